package session

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
)

// Manager makes sessions whose data is a T. It is safe for concurrent use. Make
// it with [New].
type Manager[T any] struct {
	r      *madcrow.Redis
	rec    madcrow.Recorder // nil: nobody listens
	log    *slog.Logger
	opt    Options
	prefix string
	seal   seal
	copies *copies
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
		r: r, log: opt.Logger, opt: opt, copies: newCopies(opt.CopyFor),
		prefix: cfg.KeyPrefix + "m1:session:" + opt.Name + ":",
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
	if opt.Original {
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

	scriptLoad    = newScript("load", luaLoad)
	scriptCreate  = newScript("create", luaCreate)
	scriptCommit  = newScript("commit", luaCommit)
	scriptRotate  = newScript("rotate", luaRotate)
	scriptDestroy = newScript("destroy", luaDestroy)
	scriptRevoke  = newScript("revoke", luaRevoke)
)

// script keeps its source beside it: where replicas are waited for, it travels
// with each call, since nothing of a pipeline can be sent again.
type script struct {
	*madcrow.Script
	source string
}

func newScript(name, body string) script {
	source := luaBegin + body
	return script{madcrow.NewScript("session_"+name, source), source}
}

// eval runs a script that changes something, and waits for replicas where that
// is wanted.
func (m *Manager[T]) eval(ctx context.Context, s script, keys, args []string) ([]madcrow.Message, error) {
	if m.opt.WaitReplicas == 0 {
		return m.read(ctx, s, keys, args)
	}
	wait := m.opt.WaitTimeout.Milliseconds()
	res, err := m.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
		return []madcrow.Command{
			b.Eval().Script(s.source).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build(),
			b.Wait().Numreplicas(int64(m.opt.WaitReplicas)).Timeout(wait).Build(),
		}
	})
	if len(res) != 2 || res[0].Err != nil {
		return nil, err
	}
	list, err := listOf(res[0].Message)
	if err != nil {
		return nil, err
	}
	if n, err := res[1].Message.AsInt64(); res[1].Err != nil || err != nil || n < int64(m.opt.WaitReplicas) {
		return list, errors.Join(ErrNotReplicated, res[1].Err)
	}
	return list, nil
}

// read runs a script once, on the shared connection.
func (m *Manager[T]) read(ctx context.Context, s script, keys, args []string) ([]madcrow.Message, error) {
	msg, err := m.r.Eval(ctx, s.Script, keys, args)
	if err != nil {
		return nil, err
	}
	return listOf(msg)
}

// listOf reads a reply; one number is a list of one.
func listOf(msg madcrow.Message) ([]madcrow.Message, error) {
	if msg.IsInt64() {
		return []madcrow.Message{msg}, nil
	}
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
	created time.Time
	ends    time.Duration // left until the absolute end
	left    time.Duration // left while it is not used
	device  string

	original bool // of the original's layout
}

// content is what the data of a session holds.
type content[T any] struct {
	Data  T       `json:"d"`
	Flash []Flash `json:"f,omitempty"`
}

// what of a reply: 0 there is none, 1 a record follows, 2 it was done.
func readRecord(list []madcrow.Message) (rec record, what int64, why string, err error) {
	if what, err = list[0].AsInt64(); err != nil {
		return rec, 0, "", errors.Join(errReply, err)
	}
	switch {
	case what == 0 && len(list) == 2:
		why, err = list[1].ToString()
	case what == 1 && len(list) == 9:
		rec, err = parseRecord(list)
	case what != 2:
		err = errReply
	}
	return rec, what, why, err
}

func parseRecord(list []madcrow.Message) (rec record, err error) {
	var text [9]string
	for _, i := range []int{1, 2, 3, 5, 6, 8} {
		if text[i], err = list[i].ToString(); err != nil {
			return rec, errors.Join(errReply, err)
		}
	}
	frozen, err := list[4].AsInt64()
	left, err2 := list[7].AsInt64()
	created, err3 := strconv.ParseInt(text[5], 10, 64)
	ends, err4 := strconv.ParseInt(text[6], 10, 64)
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return rec, errors.Join(errReply, err)
	}
	return record{
		version: text[1], user: text[2], data: text[3], frozen: frozen == 1,
		created: time.UnixMicro(created), ends: time.Duration(ends) * time.Microsecond,
		left: time.Duration(left) * time.Millisecond, device: text[8],
	}, nil
}

// encode makes the data of a session.
func (m *Manager[T]) encode(c content[T], user string) (string, error) {
	if m.opt.Original {
		return encodeOriginal(c)
	}
	plain, err := json.Marshal(c)
	if err != nil {
		return "", &ValidationError{Field: "data", Message: fmt.Sprintf("cannot be stored as JSON: %T", c.Data)}
	}
	return string(m.seal.close(plain, user)), nil
}

func (m *Manager[T]) decode(rec record) (c content[T], err error) {
	if rec.original {
		err = json.Unmarshal([]byte(rec.data), &c.Data)
		return c, err
	}
	plain, err := m.seal.open(rec.data, rec.user)
	if err == nil {
		err = json.Unmarshal(plain, &c)
	}
	if err != nil {
		return content[T]{}, err
	}
	return c, nil
}

func (m *Manager[T]) undecodable(ctx context.Context, err error) {
	m.event("undecodable")
	if m.opt.OnUndecodable != nil {
		m.opt.OnUndecodable(ctx, err)
		return
	}
	m.log.WarnContext(ctx, "a session cannot be read and is taken for none", "reason", err)
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
