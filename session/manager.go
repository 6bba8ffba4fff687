package session

import (
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

// Manager makes sessions whose data is a T. It is safe for concurrent use. Make
// it with [New].
type Manager[T any] struct {
	r        *madcrow.Redis
	rec      madcrow.Recorder // nil: nobody listens
	log      *slog.Logger
	unread   logonce.Reasons // why sessions cannot be read
	several  logonce.Reasons // that several cookies of one name came
	opt      Options
	prefix   string
	seal     seal
	copies   *fallbackCopies
	validity *validityCache

	handles *handles
	timeout time.Duration // of one call to Redis
	cluster bool

	hook func(script, []string) (script, []string) // nil but in tests
}

// New makes a manager of sessions. T is stored as JSON. The error is a
// [*ValidationError]; Redis is not asked.
func New[T any](r *madcrow.Redis, options Options) (*Manager[T], error) {
	opt, err := options.filled()
	if err != nil {
		return nil, err
	}
	cfg := r.Config()
	m := &Manager[T]{
		r: r, log: opt.Logger, opt: opt, copies: newFallbackCopies(opt.CopyFor), validity: newValidityCache(), handles: newHandles(opt.Secret),
		prefix:  cfg.KeyPrefix + "m1:session:" + opt.Name + ":",
		timeout: cfg.CommandTimeout, cluster: cfg.Cluster.Enabled,
	}
	if opt.WaitReplicas > 0 && opt.WaitTimeout >= cfg.CommandTimeout {
		return nil, &ValidationError{Field: "options", Message: "WaitTimeout must be less than the Redis' CommandTimeout"}
	}
	if m.log == nil {
		m.log = cfg.Logger
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if _, nobody := r.Recorder().(madcrow.NopRecorder); !nobody {
		m.rec = r.Recorder()
	}
	if m.seal, err = newSeal(opt.Keys); err != nil {
		return nil, err
	}
	if opt.FastAPILayout {
		m.prefix = cfg.KeyPrefix + "session:"
	}
	return m, nil
}

func (m *Manager[T]) event(name string) {
	if m.rec != nil {
		m.rec.Event("session", name, 1)
	}
}

// The scripts of this package.
var (
	//go:embed lua/clock.lua
	luaClock string
	//go:embed lua/begin.lua
	luaBegin string
	//go:embed lua/load.lua
	luaLoad string
	//go:embed lua/create.lua
	luaCreate string
	//go:embed lua/commit.lua
	luaCommit string
	//go:embed lua/rotate.lua
	luaRotate string
	//go:embed lua/destroy.lua
	luaDestroy string
	//go:embed lua/revoke.lua
	luaRevoke string
	//go:embed lua/list.lua
	luaList string

	scriptLoad    = newScript("load", luaBegin, luaLoad).ofOneKey()
	scriptCreate  = newScript("create", luaCreate).ofOneKey()
	scriptCommit  = newScript("commit", luaBegin, luaCommit).ofOneKey()
	scriptRotate  = newScript("rotate", luaBegin, luaRotate)
	scriptDestroy = newScript("destroy", luaBegin, luaDestroy).ofOneKey()
	scriptRevoke  = newScript("revoke", luaBegin, luaRevoke)
	scriptList    = newScript("list", luaList)
)

// script keeps its source beside it: where replicas are waited for, it travels
// with each call, since nothing of a pipeline can be sent again.
type script struct {
	*madcrow.Script
	source string
	// oneKey says that it also runs with the session's key alone, for a session
	// without user; of one with a user it then changes nothing and replies
	// {0, 'whole'}.
	oneKey bool
}

func (s script) ofOneKey() script {
	s.oneKey = true
	return s
}

// newScript puts a script together: of those functions alone that it needs, since
// Redis makes them anew for each call.
func newScript(name string, parts ...string) script {
	source := luaClock + strings.Join(parts, "")
	return script{Script: madcrow.NewScript("session_"+name, source), source: source}
}

// eval runs a script that changes something, and waits for replicas where that
// is wanted. ErrNotReplicated goes with a reply.
func (m *Manager[T]) eval(ctx context.Context, s script, keys, args []string) ([]madcrow.Message, error) {
	if m.opt.WaitReplicas == 0 {
		return m.read(ctx, s, keys, args)
	}
	if m.hook != nil {
		s, args = m.hook(s, args)
	}
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	return m.evalAndWait(ctx, s, keys, args)
}

// evalAndWait runs a script and waits for replicas, on one connection: a pipeline
// would be taken apart in a cluster, and its first reply lost where the second
// is late.
func (m *Manager[T]) evalAndWait(ctx context.Context, s script, keys, args []string) (list []madcrow.Message, err error) {
	var watch []string // says which node of a cluster
	if m.cluster {
		watch = keys[:1]
	}
	done := false // the script has run
	var short error
	_, err = m.r.Tx(ctx, watch, func(tx *madcrow.Tx) error {
		msg, err := tx.Do(func(b madcrow.Builder) madcrow.Command {
			return b.Eval().Script(s.source).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
		})
		if err != nil {
			return err
		}
		done = true
		if list, short = listOf(msg); short != nil {
			return nil
		}
		count, err := tx.Do(func(b madcrow.Builder) madcrow.Command {
			return b.Wait().Numreplicas(int64(m.opt.WaitReplicas)).Timeout(m.patience(ctx)).Build()
		})
		n := int64(0)
		if err == nil {
			n, err = count.AsInt64()
		}
		if e := (*madcrow.Error)(nil); errors.As(err, &e) {
			err = &madcrow.Error{Op: e.Op, Kind: e.Kind, Outcome: madcrow.OutcomeApplied, Err: e.Err}
		}
		if err != nil || n < int64(m.opt.WaitReplicas) {
			short = errors.Join(ErrNotReplicated, err)
		}
		return nil
	})
	if done {
		return list, short
	}
	return nil, err
}

// patience is how many milliseconds to wait for replicas: the caller shall
// learn what they did before its own time is over.
func (m *Manager[T]) patience(ctx context.Context) int64 {
	wait := m.opt.WaitTimeout
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end)-15*time.Millisecond)
	}
	return max(wait.Milliseconds(), 1) // 0 would be for ever
}

// read runs a script once, on the shared connection. While a cluster moves the
// slot of a session, it refuses scripts with all keys of one without user, two of
// which do not exist: then the script gets the first alone. The keys of a user
// move together, and soon; that is waited for.
func (m *Manager[T]) read(ctx context.Context, s script, keys, args []string) (list []madcrow.Message, err error) {
	if m.hook != nil {
		s, args = m.hook(s, args)
	}
	if !m.cluster || !s.oneKey {
		return m.run(ctx, s, keys, args)
	}
	err = m.r.Within(ctx, func(ctx context.Context) error {
		return m.r.SplitKeys(ctx, keys[0], func(ctx context.Context) error {
			list, err = m.run(ctx, s, keys, args)
			return err
		}, func(split context.Context) error {
			list, err = m.run(split, s, keys[:1], args)
			if err == nil && needsWhole(list) {
				list, err = m.run(ctx, s, keys, args)
			}
			return err
		})
	})
	return list, err
}

// needsWhole says that a script was given too few keys.
func needsWhole(list []madcrow.Message) bool {
	if len(list) != 2 {
		return false
	}
	why, err := list[1].ToString()
	return err == nil && why == "whole"
}

func (m *Manager[T]) run(ctx context.Context, s script, keys, args []string) ([]madcrow.Message, error) {
	msg, err := m.r.Eval(ctx, s.Script, keys, args)
	if err != nil {
		return nil, err
	}
	return listOf(msg)
}

// listOf reads a reply.
func listOf(msg madcrow.Message) ([]madcrow.Message, error) {
	list, err := msg.ToArray()
	if err == nil && len(list) == 0 {
		err = errReply
	}
	return list, err
}

var errReply = errors.New("the script returned an unexpected reply")

// record is a session as Redis has it.
type record struct {
	version string
	user    string
	data    string // as stored
	frozen  bool
	ends    time.Duration // left until the absolute end
	left    time.Duration // left while it is not used
	idle    time.Duration // may pass while it is not used
	end     string        // the absolute one, as stored

	remember bool // its cookie outlives the browser
	legacy   bool // of the FastAPI layout
}

// What the scripts reply.
const (
	replyNone   = int64(iota) // there is none, and why
	replyRecord               // a record
	replyDone                 // it was done

	frozen  = "frozen"  // rotated, and read only
	rotated = "rotated" // has another identifier, and nothing can be read
)

func readRecord(list []madcrow.Message) (rec record, what int64, why string, err error) {
	if what, err = list[0].AsInt64(); err != nil {
		return rec, 0, "", errors.Join(errReply, err)
	}
	switch {
	case what == replyNone && len(list) == 2:
		why, err = list[1].ToString()
	case what == replyRecord && len(list) == 10:
		rec, err = parseRecord(list)
	case what != replyDone:
		err = errReply
	}
	return rec, what, why, err
}

func parseRecord(list []madcrow.Message) (rec record, err error) {
	var text [10]string
	for _, i := range [...]int{1, 2, 3, 7, 9} {
		if text[i], err = list[i].ToString(); err != nil {
			return rec, errors.Join(errReply, err)
		}
	}
	var number [9]int64
	for _, i := range [...]int{4, 5, 6, 8} {
		if number[i], err = list[i].AsInt64(); err != nil {
			return rec, errors.Join(errReply, err)
		}
	}
	return record{
		version: text[1], user: text[2], data: text[3], frozen: number[4] == 1,
		ends: time.Duration(number[5]) * time.Microsecond, left: time.Duration(number[6]) * time.Millisecond,
		idle: time.Duration(number[8]) * time.Millisecond, remember: text[7] != "",
		end: text[9],
	}, nil
}

// leftOf reads what is left until the end; otherwise is for what it cannot.
func leftOf(list []madcrow.Message, otherwise time.Duration) time.Duration {
	if len(list) == 2 {
		if n, err := list[1].AsInt64(); err == nil {
			return time.Duration(n) * time.Microsecond
		}
	}
	return otherwise
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
