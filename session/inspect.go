package session

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
)

// Details is one session as [Manager.Inspect] finds it.
type Details struct {
	Info
	// Left is how long it lives if nobody uses it. A session of the
	// FastAPI layout without an expiry reports Options.Idle.
	Left time.Duration
	// Remember is true where its cookie outlives the browser.
	Remember bool
	// Changes counts what was stored, the first time included.
	Changes int64
	// Flashes is how many messages wait to be shown.
	Flashes int
	// Size of what is stored, in bytes, and whether that is encrypted.
	Size   int
	Sealed bool
	// Data is the T as JSON, whatever T is here. It is nil where none of the
	// keys decrypts it, and where it is no JSON.
	Data json.RawMessage
}

// Inspect tells an operator about one session of a user, by its handle, without
// using it: it lives no longer for that. A session of somebody else is none.
// With Options.FastAPILayout user is "" and handle the identifier; there is no Info
// then but the Handle. It takes three round trips.
func (m *Manager[T]) Inspect(ctx context.Context, user, handle string) (d Details, found bool, err error) {
	if m.opt.FastAPILayout {
		return m.inspectLegacy(ctx, user, handle)
	}
	if err := checkUser(user); err != nil || !validMember(handle) {
		return d, false, err
	}
	owner := m.handles.of(user)
	members, all, now, err := m.scan(ctx, owner, user)
	if err != nil {
		return d, false, &Error{Op: "inspect", Err: err}
	}
	i := slices.Index(members, handle)
	if i < 0 || all[i] == nil {
		return d, false, nil
	}
	if d.Info, err = readInfo(handle, all[i], now); err != nil {
		return d, false, &Error{Op: "inspect", Err: err}
	}
	key := keysOf(m.prefix, owner, handle).session
	res, err := m.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
		return []madcrow.Command{b.Hmget().Key(key).Field("v", "d", "r").Build(), b.Pttl().Key(key).Build()}
	})
	if err != nil {
		return d, false, &Error{Op: "inspect", Err: err}
	}
	fields, err1 := res[0].Message.ToArray()
	left, err2 := res[1].Message.AsInt64()
	if err := errors.Join(err1, err2); err != nil || len(fields) != 3 {
		return d, false, &Error{Op: "inspect", Err: errors.Join(errReply, err)}
	}
	if left < 0 || fields[0].IsNil() { // it has ended since
		return Details{}, false, nil
	}
	version, err1 := fields[0].ToString()
	data, err2 := fields[1].ToString()
	changes, err3 := strconv.ParseInt(version, 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return d, false, &Error{Op: "inspect", Err: errors.Join(errReply, err)}
	}
	d.Left, d.Changes, d.Remember = time.Duration(left)*time.Millisecond, changes, !fields[2].IsNil()
	d.Size, d.Sealed = len(data), data != "" && data[0] == sealedData
	if plain, err := m.seal.open(data, bound(user, ident{member: handle})); err == nil {
		var c content[json.RawMessage]
		if json.Unmarshal(plain, &c) == nil {
			d.Data, d.Flashes = c.Data, len(c.Flash)
		}
	}
	return d, true, nil
}

func (m *Manager[T]) inspectLegacy(ctx context.Context, user, id string) (d Details, found bool, err error) {
	if user != "" {
		return d, false, &Error{Op: "inspect", Err: ErrFastAPILayout}
	}
	if !validLegacyID(id) {
		return d, false, nil
	}
	rec, why, err := m.fetchLegacy(ctx, legacyIdent(id))
	if err != nil || why != "" {
		return d, false, wrap("inspect", err)
	}
	d.Handle, d.Left, d.Size = id, rec.left, len(rec.data)
	if json.Valid([]byte(rec.data)) {
		d.Data = json.RawMessage(rec.data)
	}
	return d, true, nil
}
