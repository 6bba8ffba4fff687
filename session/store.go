package session

import (
	"context"
	"errors"
	"time"

	"github.com/madcrow-go/madcrow"
)

// store keeps the sessions of a manager. [New] chooses the implementation:
// cachedStore around redisStore, or legacyStore with Options.FastAPILayout.
//
// An absent or ended session is a reply with statusNone, not an error. Errors are
// those of Redis, and ErrNotReplicated, which comes with a valid reply (see
// made). Methods are safe for concurrent use.
type store interface {
	// extended returns nil, or the error of a layout without users, lists and
	// flashes.
	extended() error
	// parseID returns the identifier in a cookie; false for a value that the
	// store cannot have made.
	parseID(token string) (ident, bool)
	// newID returns a new identifier for a session of user, "" for no user.
	newID(user string) ident
	// nextID returns a new identifier for a session that has id now.
	nextID(id ident) ident
	// handle names the session of id in lists; "" without lists.
	handle(id ident) string

	// load reads a session and touches it if that is due: statusRecord or
	// statusNone.
	load(ctx context.Context, id ident) (reply, error)
	// classify returns the identifiers of valid sessions, and those that a
	// rotation or a login has replaced. It touches none of them.
	classify(ctx context.Context, ids []ident) (valid, replaced []ident, err error)
	// create stores a new session and returns the members that Options.MaxPerUser
	// ended.
	create(ctx context.Context, s newSession) (evicted []string, err error)
	// commit replaces the data of version: statusDone with the new version and
	// data, statusRecord if the version is another one, or statusNone. It never
	// creates a session.
	commit(ctx context.Context, id ident, version, data string) (reply, error)
	// rotate moves the session to another identifier: statusDone, or as commit.
	// Version "" is any, data "" keeps the data. With reply.copied the session is
	// still there under from, for the caller to destroy.
	rotate(ctx context.Context, from, to ident, version, data string) (reply, error)
	// destroy ends a session, or the session that it was rotated to.
	destroy(ctx context.Context, id ident) (reply, error)
	// supersede ends the session of id in favour of a login: statusDone;
	// statusRecord without ending it if the version is another one; or
	// statusNone. Version "" ends any; anyVersion ends any and returns its record.
	supersede(ctx context.Context, id ident, version string) (reply, error)

	// list returns the live sessions of a user.
	list(ctx context.Context, user string) ([]Info, error)
	// inspect returns the details of one session, and its stored data, without
	// touching it.
	inspect(ctx context.Context, user, handle string) (d Details, data string, found bool, err error)
	// revoke ends the session of a user with that handle.
	revoke(ctx context.Context, user, handle string) (reply, error)
	// revokeAll ends all sessions of a user and returns how many were listed.
	revokeAll(ctx context.Context, user string) (reply, error)
	// revokeOthers ends all sessions of the user of id but that of id: statusDone,
	// or statusNone without ending any.
	revokeOthers(ctx context.Context, id ident) (reply, error)
}

// anyVersion is the version of supersede that ends whatever is there, and
// returns it.
const anyVersion = "*"

// status is the first element of a script's reply.
type status int64

const (
	statusNone   status = iota // there is no session; reply.reason
	statusRecord               // the current session; reply.rec
	statusDone                 // the change was made
)

// reason says why there is no session, or why it was not changed.
type reason string

const (
	reasonMissing reason = "missing"
	reasonRevoked reason = "revoked"
	reasonFrozen  reason = "frozen"  // rotated: readable in the grace, not writable
	reasonRotated reason = "rotated" // the identifier was replaced; not readable

	reasonOtherSecret reason = "other secret" // the user's handle is made with another Options.Secret
)

// reply is the result of a store's operation.
type reply struct {
	status    status
	reason    reason        // with statusNone
	rec       record        // with statusRecord; version and data of a commit that was done
	ends      time.Duration // of a rotation that was done: left until the absolute end; 0 if unknown
	copied    bool          // of a rotation that was done: the session is under the old identifier too
	successor string        // of an ended session: the member that it was rotated to
	count     int           // of a revocation
}

// record is a session as it is stored.
type record struct {
	version string
	user    string
	data    string        // encoded
	frozen  bool          // rotated, readable in the grace
	ends    time.Duration // left until the absolute end
	left    time.Duration // left while it is not used
	idle    time.Duration // its idle time
	end     string        // the absolute end, as stored

	remember bool // the cookie outlives the browser
}

// newSession holds the arguments of store.create.
type newSession struct {
	id     ident
	user   string
	data   string
	device Device
	life   lifetimes
	// replaces is the member of a session that ends next and does not count for
	// Options.MaxPerUser; "" for none.
	replaces string
}

// made reports whether a change was made, possibly with an error.
func made(err error) bool {
	return err == nil || errors.Is(err, ErrNotReplicated) || errors.Is(err, ErrOldSessionActive)
}

// applied marks err as the error of a change that was made; nil stays nil.
func applied(err error) error {
	if err == nil {
		return nil
	}
	if e := (*madcrow.Error)(nil); errors.As(err, &e) {
		return &madcrow.Error{Op: e.Op, Kind: e.Kind, Outcome: madcrow.OutcomeApplied, Err: e.Err}
	}
	return &madcrow.Error{Op: "change", Outcome: madcrow.OutcomeApplied, Err: err}
}

// unknown marks err as the error of a script that ran and whose reply cannot be
// read.
func unknown(err error) error {
	return &madcrow.Error{Op: "reply", Kind: madcrow.KindServer, Outcome: madcrow.OutcomeUnknown, Err: err}
}
