package stream

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/operr"
)

var (
	//go:embed lua/dead.lua
	luaDead string
	//go:embed lua/replay.lua
	luaReplay string
	//go:embed lua/consumers.lua
	luaConsumers string
	//go:embed lua/leave.lua
	luaLeave string
	//go:embed lua/keep.lua
	luaKeep string
	//go:embed lua/claim.lua
	luaClaim string
	//go:embed lua/read.lua
	luaRead string
	//go:embed lua/delay.lua
	luaDelay string
	//go:embed lua/due.lua
	luaDue string
	//go:embed lua/undelay.lua
	luaUndelay string

	scriptDead      = madcrow.NewScript("stream_dead", luaDead)
	scriptReplay    = madcrow.NewScript("stream_replay", luaReplay)
	scriptConsumers = madcrow.NewScript("stream_consumers", luaConsumers)
	scriptLeave     = madcrow.NewScript("stream_leave", luaLeave)
	scriptKeep      = madcrow.NewScript("stream_keep", luaKeep)
	scriptClaim     = madcrow.NewScript("stream_claim", luaClaim)
	scriptRead      = madcrow.NewScript("stream_read", luaRead)
	scriptDelay     = madcrow.NewScript("stream_delay", luaDelay)
	scriptDue       = madcrow.NewScript("stream_due", luaDue)
	scriptUndelay   = madcrow.NewScript("stream_undelay", luaUndelay)
)

// Options says how a stream works. The zero value works.
type Options[T any] struct {
	// Codec defaults to [madcrow.Text] for strings, [madcrow.Bytes] for byte slices
	// and [madcrow.JSON] for all else.
	Codec madcrow.Codec[T]
	// MaxLen is how many messages are kept at least: beyond it the oldest are
	// lost, also those that a group has not done. That is counted, see [Lag]. All
	// who use the stream must have the same. Defaults to 1,000,000.
	MaxLen int
	// KeepDone keeps what every group has done, up to MaxLen, so that a group
	// that is created later begins with it. Defaults to false: it is trimmed
	// about once a second while a worker runs, and a new group begins with what
	// is there. All who work on the stream must have the same.
	KeepDone bool
	// MaxDead is the same for dead letters as MaxLen is for messages. Defaults to
	// 10,000.
	MaxDead int
	// MaxDelayed is how many delayed messages may wait (see [Stream.PublishAt]), from
	// 1 to 10,000,000. Defaults to 100,000.
	MaxDelayed int
	// Outbox is how many messages wait in this process while Redis is away, or takes
	// no writes; Publish then is [ErrQueued], and beyond that [ErrOutboxFull]. They are
	// appended in the order in which they came, when Redis is back; one whose answer
	// was lost is appended again, and may come twice. While Redis is full, those that
	// wait go on waiting. A process that ends loses them:
	// [Stream.Close] waits for them while Redis is there. Defaults to 0: publishing is
	// an error.
	Outbox int
	// OutboxBytes bounds their sizes together. Defaults to 64 MiB.
	OutboxBytes int
	// OnDead is called after a message became a dead letter, by the process that made
	// it one, in the place of a worker: for an alert. Its context ends with the
	// drain of [Stream.Work]. It is not called where the process dies in between:
	// watch [Lag].Dead too. A panic is logged. Defaults to nothing but the log.
	OnDead func(context.Context, DeadLetter[T])
	// Logger defaults to that of the Redis.
	Logger *slog.Logger
}

// Stream is a queue of messages of one type. It is safe for concurrent use. Make
// it with [New].
type Stream[T any] struct {
	r      *madcrow.Redis
	events events.Source
	log    *slog.Logger
	name   string
	prefix string // of all its keys
	opt    Options[T]

	processID     string // begins the names of the consumers of this process
	bulkThreshold int    // Config.BulkThreshold
	maxMessage    int    // Config.MaxValueSize

	mover  mover
	outbox *outbox[T] // nil without Options.Outbox

	checked atomic.Bool // the server knows the commands that streams need

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
}

// New makes a stream on r. Its name is of 1 to 1,024 bytes. Redis is not asked.
func New[T any](r *madcrow.Redis, name string, options Options[T]) (*Stream[T], error) {
	if options.Codec == nil {
		options.Codec = codec.Default[T]()
	}
	if options.MaxLen == 0 {
		options.MaxLen = 1_000_000
	}
	if options.MaxDead == 0 {
		options.MaxDead = 10_000
	}
	if options.OutboxBytes == 0 {
		options.OutboxBytes = 64 << 20
	}
	if options.MaxDelayed == 0 {
		options.MaxDelayed = 100_000
	}
	var wrong operr.Arguments
	if message := keys.CheckChannelLength(name); message != "" {
		wrong.Check(false, "name", message)
		name = ""
	}
	wrong.Check(options.MaxLen >= 1, "Options.MaxLen", "must be at least 1")
	wrong.Check(options.MaxDead >= 1, "Options.MaxDead", "must be at least 1")
	wrong.Check(options.Outbox >= 0 && options.Outbox <= 10_000_000, "Options.Outbox", "must be from 0 to 10000000")
	wrong.Check(options.OutboxBytes >= 1, "Options.OutboxBytes", "must be at least 1")
	wrong.Check(options.MaxDelayed >= 1 && options.MaxDelayed <= 10_000_000, "Options.MaxDelayed", "must be from 1 to 10000000")
	if err := fail.Arguments("new", name, wrong); err != nil {
		return nil, err
	}
	if options.Logger == nil {
		options.Logger = r.Logger()
	}
	cfg := r.Config()
	s := &Stream[T]{
		r: r, events: events.Of(r, name), log: guard.Logger(options.Logger), name: name, opt: options,
		prefix:    cfg.KeyPrefix + "m1:stream:{" + keys.Encode(name) + "}:",
		processID: rand.Text()[:12], bulkThreshold: cfg.BulkThreshold, maxMessage: cfg.MaxValueSize,
	}
	s.mover.wake = make(chan struct{}, 1)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if options.Outbox > 0 {
		s.outbox = newOutbox(s, options.Outbox, options.OutboxBytes)
	}
	return s, nil
}

// Close ends every [Stream.Work] of this Stream as the end of its context does;
// each then returns [ErrClosed]. It does not wait for them. It waits until ctx ends
// for the messages of the outbox to be appended, if Redis is there; those that are
// not are lost, and the error says how many. A Stream without an outbox that no one
// works on needs no Close.
func (s *Stream[T]) Close(ctx context.Context) error {
	s.cancel()
	if s.outbox == nil {
		return nil
	}
	return s.outbox.drain(ctx)
}

func (s *Stream[T]) logKey() string                { return s.prefix + "log" }
func (s *Stream[T]) deadKey(group string) string   { return s.prefix + "dead:" + keys.Encode(group) }
func (s *Stream[T]) delayedKey() string            { return s.prefix + "delayed" }
func (s *Stream[T]) lostKey() string               { return s.prefix + "lost" }
func (s *Stream[T]) reasonKey(group string) string { return s.prefix + "why:" + keys.Encode(group) }

func (s *Stream[T]) event(ctx context.Context, t madcrow.EventType, n int) {
	s.events.CountN(ctx, t, n)
}

func (s *Stream[T]) failed(op string, err error) error { return fail.Wrap(op, s.name, err) }

// evalTogether runs a script that uses several keys of the stream. While a cluster
// moves their slot the error is [madcrow.ErrSlotMoving] after one round trip: some of
// the keys seldom exist, and Redis refuses the script until the whole slot has moved.
func (s *Stream[T]) evalTogether(ctx context.Context, script *madcrow.Script, keys, args []string) (m madcrow.Message, err error) {
	err = s.r.SplitKeys(ctx, keys[0], func(ctx context.Context) (err error) {
		m, err = s.r.Eval(ctx, script, keys, args).Message()
		return err
	}, nil)
	return m, err
}

func (s *Stream[T]) checkGroupName(op, group string) error {
	if message := keys.CheckChannelLength(group); message != "" {
		return fail.Argument(op, s.name, "group", message)
	}
	return nil
}

// Publish appends a message and returns its id; with an outbox that holds it there
// is none, and the error is [ErrQueued]. When the error leaves the outcome unknown,
// the message may be there.
func (s *Stream[T]) Publish(ctx context.Context, v T) (id string, err error) {
	payload, err := codec.Encode(s.opt.Codec, v)
	if err != nil {
		return "", fail.Argument("publish", s.name, "message", fmt.Sprintf("cannot be encoded: %T", v))
	}
	if s.outbox != nil && s.ctx.Err() != nil {
		return "", s.failed("publish", ErrClosed)
	}
	mayWait := s.outbox != nil && s.size(payload) <= s.maxMessage
	if mayWait && s.outbox.queue.Len() > 0 {
		return "", s.queued(s.outbox.add(ctx, payload, nil)) // after those that wait already
	}
	id, err = s.appendMessage(ctx, payload)
	if mayWait && err != nil && operr.Retryable(err) {
		return "", s.queued(s.outbox.add(ctx, payload, err))
	}
	return id, s.failed("publish", err)
}

// queued is the error of a message that the outbox was given.
func (s *Stream[T]) queued(err error) error {
	if errors.Is(err, ErrQueued) { // it will be sent: to send it again would double it
		return fail.WrapAs("publish", s.name, madcrow.OutcomeUnknown, err)
	}
	return s.failed("publish", err)
}

// add is the command that appends a message.
func (s *Stream[T]) add(b madcrow.Builder, payload string) madcrow.Command {
	return b.Xadd().Key(s.logKey()).Maxlen().Almost().Threshold(strconv.Itoa(s.opt.MaxLen)).Id("*").FieldValue().FieldValue("d", payload).Build()
}

// appendMessage appends a message, and returns its id.
func (s *Stream[T]) appendMessage(ctx context.Context, payload string) (id string, err error) {
	if err := s.checkServer(ctx); err != nil {
		return "", err
	}
	m, err := s.r.Do(ctx, s.add(s.r.B(), payload)).Message()
	if err != nil {
		return "", err
	}
	s.event(ctx, madcrow.EventStreamPublished, 1)
	id, err = m.ToString()
	return id, fail.WrapAs("publish", s.name, madcrow.OutcomeUnknown, err)
}

// checkServer makes sure, once, that the server knows the commands that streams
// need: XPENDING with IDLE came with the rest of them.
func (s *Stream[T]) checkServer(ctx context.Context) error {
	if s.checked.Load() {
		return nil
	}
	err := s.r.Do(ctx, s.r.B().Xpending().Key(s.logKey()).Group("-").Idle(0).Start("-").End("+").Count(1).Build()).Err()
	var e *madcrow.Error
	switch err = nameTooOld(err); {
	case errors.Is(err, ErrTooOld):
		return err
	case err != nil && (!errors.As(err, &e) || e.Kind != madcrow.KindServer && e.Kind != madcrow.KindWrongType && e.Kind != madcrow.KindPermission):
		return err // Redis is away
	}
	s.checked.Store(true) // there is no such group, or the user may not ask
	return nil
}
