package pubsub

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/keys"
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

	scriptDead   = madcrow.NewScript("pubsub_dead", luaDead)
	scriptReplay = madcrow.NewScript("pubsub_replay", luaReplay)

	scriptConsumers = madcrow.NewScript("pubsub_consumers", luaConsumers)
	scriptLeave     = madcrow.NewScript("pubsub_leave", luaLeave)
	scriptKeep      = madcrow.NewScript("pubsub_keep", luaKeep)
	scriptClaim     = madcrow.NewScript("pubsub_claim", luaClaim)
	scriptRead      = madcrow.NewScript("pubsub_read", luaRead)
)

// StreamOptions says how a stream works. The zero value works.
type StreamOptions[T any] struct {
	// Codec defaults to [Text] for strings and [JSON] for all else.
	Codec Codec[T]
	// MaxLen is how many messages are kept at least: beyond it the oldest are
	// lost, also those that a group has not done. That is counted, see Lag. All
	// who use the stream must have the same. Defaults to 1,000,000.
	MaxLen int
	// KeepDone keeps what every group has done, up to MaxLen, so that a group
	// that is made later begins with it. Defaults to false: it is trimmed about
	// once a second while a worker runs, and a new group begins with what is
	// there. All who work on the stream must have the same.
	KeepDone bool
	// MaxDead is the same for dead letters. Defaults to 10,000.
	MaxDead int
}

// Stream is a queue of messages of one type. Groups of workers each get every
// message, and share them among their workers. It is safe for concurrent use.
type Stream[T any] struct {
	b    *Bus
	name string
	base string
	opt  StreamOptions[T]
}

// NewStream makes a stream. Its name is of 1 to 1,024 bytes. Redis is not
// asked.
func NewStream[T any](b *Bus, name string, options StreamOptions[T]) (*Stream[T], error) {
	if err := checkChannel("name", name); err != nil {
		return nil, err
	}
	if options.Codec == nil {
		options.Codec = defaultCodec[T]()
	}
	if options.MaxLen == 0 {
		options.MaxLen = 1_000_000
	}
	if options.MaxDead == 0 {
		options.MaxDead = 10_000
	}
	if options.MaxLen < 1 || options.MaxDead < 1 {
		return nil, &ValidationError{Field: "options", Message: "MaxLen and MaxDead must be at least 1"}
	}
	return &Stream[T]{b: b, name: name, base: b.prefix + "m1:stream:{" + keys.Form(name) + "}:", opt: options}, nil
}

func (s *Stream[T]) logKey() string                { return s.base + "log" }
func (s *Stream[T]) deadKey(group string) string   { return s.base + "dead:" + keys.Form(group) }
func (s *Stream[T]) lostKey() string               { return s.base + "lost" }
func (s *Stream[T]) reasonKey(group string) string { return s.base + "why:" + keys.Form(group) }

// Publish appends a message and returns its id. When the error leaves the
// outcome unknown, the message may be there.
func (s *Stream[T]) Publish(ctx context.Context, v T) (id string, err error) {
	payload, err := encodeBy(s.opt.Codec, v)
	if err != nil {
		return "", &ValidationError{Field: "message", Message: fmt.Sprintf("cannot be encoded: %T", v)}
	}
	if err := s.b.knowStreams(ctx, s.logKey()); err != nil {
		return "", s.failed("publish", err)
	}
	m, err := s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Xadd().Key(s.logKey()).Maxlen().Almost().Threshold(strconv.Itoa(s.opt.MaxLen)).Id("*").FieldValue().FieldValue("d", payload).Build()
	})
	if err != nil {
		return "", s.failed("publish", err)
	}
	s.b.event("published", 1)
	id, err = m.ToString()
	return id, s.failed("publish", err)
}

func (s *Stream[T]) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Channel: s.name, Op: op, Err: err}
}

// Once says whether this is the first call for a key within life (1 ms to a
// year): for a worker that must not do a message twice. Call it with the
// message's id, or better with an id of the thing itself, before the effect
// that must not come twice; when that fails, call Forget.
func (b *Bus) Once(ctx context.Context, key string, life time.Duration) (first bool, err error) {
	if key == "" || life < time.Millisecond || life > 366*24*time.Hour {
		return false, &ValidationError{Field: "once", Message: "needs a key, and a life from 1ms to a year"}
	}
	k := b.onceKey(key)
	m, err := b.r.Do(ctx, func(rb madcrow.Builder) madcrow.Command {
		return rb.Set().Key(k).Value("1").Nx().PxMilliseconds(life.Milliseconds()).Build()
	})
	if err != nil {
		return false, &Error{Channel: "once", Op: "once", Err: err}
	}
	return !m.IsNil(), nil
}

// Forget lets Once say true again.
func (b *Bus) Forget(ctx context.Context, key string) error {
	k := b.onceKey(key)
	if _, err := b.r.Do(ctx, func(rb madcrow.Builder) madcrow.Command { return rb.Del().Key(k).Build() }); err != nil {
		return &Error{Channel: "once", Op: "forget", Err: err}
	}
	return nil
}

func (b *Bus) onceKey(key string) string { return b.prefix + "m1:once:{" + keys.Form(key) + "}" }

// Lag is how far a group is behind.
type Lag struct {
	// Length is how many messages the stream keeps: those that a group has not
	// done, those of the last second, and with KeepDone all.
	Length int64
	// Lost is how many messages the group never did because MaxLen overtook it:
	// from Redis 7 on, of older ones only those that a worker had. It is never
	// less than the truth but for a burst of MaxLen messages within one round
	// trip; a failover while messages are being lost can make it too large, and one
	// that a worker still has may count until it is done.
	Lost int64
	// Waiting have not been given to any worker; -1 where Redis cannot tell. A
	// failover can make Redis count too many, but not where it is 0; the workers
	// put that right when they have nothing to do.
	Waiting int64
	// Pending were given to a worker and are not done.
	Pending int64
	// Workers are those that Redis knows.
	Workers int64
	// Dead is how many dead letters the group has.
	Dead int64
}

// Lag says how far a group is behind. A group that does not exist yet has
// everything waiting.
func (s *Stream[T]) Lag(ctx context.Context, group string) (Lag, error) {
	if err := checkChannel("group", group); err != nil {
		return Lag{}, err
	}
	res, err := s.b.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
		return []madcrow.Command{
			b.Xlen().Key(s.logKey()).Build(), b.Xlen().Key(s.deadKey(group)).Build(), b.XinfoGroups().Key(s.logKey()).Build(),
			b.XinfoStream().Key(s.logKey()).Build(), b.Hget().Key(s.lostKey()).Field(group).Build(),
		}
	})
	var l Lag
	if err != nil && (len(res) != 5 || !isNoKey(res[2].Err)) {
		return l, s.failed("lag", err)
	}
	if l.Length, err = res[0].Message.AsInt64(); err == nil {
		l.Dead, err = res[1].Message.AsInt64()
	}
	if err != nil {
		return l, s.failed("lag", err)
	}
	l.Lost, _ = res[4].Message.AsInt64()
	l.Waiting = l.Length
	fields := groupInfo(res[2].Message, group)
	if fields == nil {
		return l, nil
	}
	pending, workers := fields["pending"], fields["consumers"]
	l.Pending, _ = pending.AsInt64()
	l.Workers, _ = workers.AsInt64()
	of, err := res[3].Message.AsMap()
	if err == nil {
		s.setBacklog(&l, fields, of)
	}
	return l, nil
}

// behind says how many messages wait for a group, and how many it has lost that
// no worker has counted yet. Redis' own count is that of what was published.
func (s *Stream[T]) setBacklog(l *Lag, group, stream map[string]rueidis.RedisMessage) {
	text := func(m rueidis.RedisMessage) string { s, _ := m.ToString(); return s }
	id := text(group["last-delivered-id"])
	waiting, first, added, given := group["lag"], stream["first-entry"], stream["entries-added"], group["entries-read"]
	var err error
	if l.Waiting, err = waiting.AsInt64(); err != nil {
		l.Waiting = -1
	}
	oldest, _ := first.ToArray()
	switch {
	case len(oldest) == 0, !laterID(text(stream["last-generated-id"]), id):
		l.Waiting = 0 // whatever Redis counted
	case laterID(text(oldest[0]), id):
		l.Waiting = l.Length
		all, err1 := added.AsInt64()
		had, err2 := given.AsInt64()
		full := l.Length >= int64(s.opt.MaxLen) || s.opt.MaxLen == math.MaxInt // a tool does not know it
		if full && err1 == nil && err2 == nil && !laterID(text(stream["max-deleted-entry-id"]), id) {
			l.Lost += max(all-l.Length-had, 0)
		}
	}
}

// fieldsOf finds a group in the reply of XINFO GROUPS; nil: it does not exist.
func groupInfo(m madcrow.Message, group string) map[string]rueidis.RedisMessage {
	groups, _ := m.ToArray()
	for i := range groups {
		fields, err := groups[i].AsMap()
		if err != nil {
			continue
		}
		name := fields["name"]
		if text, _ := name.ToString(); text == group {
			return fields
		}
	}
	return nil
}

// nothing is for when a group has no such dead letters: it says whether there is
// no such group either.
func (s *Stream[T]) checkGroup(ctx context.Context, op, group string) error {
	m, err := s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command { return b.XinfoGroups().Key(s.logKey()).Build() })
	switch {
	case err != nil && !isNoKey(err):
		return s.failed(op, err)
	case err != nil || groupInfo(m, group) == nil:
		return s.failed(op, ErrNoGroup)
	}
	return nil
}

// laterID says whether the message with an id came after the one with another.
func laterID(id, other string) bool {
	ms, seq := idParts(id)
	otherMs, otherSeq := idParts(other)
	return ms > otherMs || ms == otherMs && seq > otherSeq
}

func idParts(id string) (ms, seq uint64) {
	a, b, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(a, 10, 64)
	seq, _ = strconv.ParseUint(b, 10, 64)
	return ms, seq
}

// checkLetter refuses what is no whole id: Redis would take the first part of one
// for several messages here and for another one there.
func checkDeadID(id string) error {
	ms, seq, ok := strings.Cut(id, "-")
	for _, part := range []string{ms, seq} {
		if _, err := strconv.ParseUint(part, 10, 64); err != nil || part[0] == '+' {
			ok = false
		}
	}
	if !ok {
		return &ValidationError{Field: "id", Message: "must be the whole id of a dead letter, like 1764000000000-0"}
	}
	return nil
}

// noKey recognises the error of a stream that does not exist.
func isNoKey(err error) bool { return err != nil && strings.Contains(err.Error(), "no such key") }

// noGroup recognises the error of a group that does not exist.
func isNoGroup(err error) bool { return err != nil && strings.Contains(err.Error(), "NOGROUP") }

// DeadLetter is a message that was put aside.
type DeadLetter[T any] struct {
	// ID is its place among the dead letters, Original what it was in the
	// stream.
	ID, Original string
	// Reason is the last error of a worker, Deliveries how often it was given
	// to one.
	Reason     string
	Deliveries int64
	Message    T
	// Raw is the message as it is stored, or, of an entry that is none of a
	// Stream's, its fields and values in lines; Err says why it cannot be
	// decoded.
	Raw string
	Err error
}

// Dead returns up to n dead letters of a group, the oldest first, after the one
// with an id ("" for the first). A group that has none and does not exist is
// [ErrNoGroup].
func (s *Stream[T]) Dead(ctx context.Context, group, after string, n int) ([]DeadLetter[T], error) {
	err := checkChannel("group", group)
	from := "-"
	if after != "" {
		err = errors.Join(err, checkDeadID(after))
		from = "(" + after
	}
	if err != nil {
		return nil, err
	}
	m, err := s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Xrange().Key(s.deadKey(group)).Start(from).End("+").Count(int64(max(n, 1))).Build()
	})
	if err != nil {
		return nil, s.failed("dead", err)
	}
	entries, err := m.AsXRange()
	if err != nil && !rueidis.IsRedisNil(err) {
		return nil, s.failed("dead", errors.Join(errReply, err))
	}
	if len(entries) == 0 {
		return nil, s.checkGroup(ctx, "dead", group)
	}
	out := make([]DeadLetter[T], len(entries))
	for i, e := range entries {
		d := DeadLetter[T]{ID: e.ID, Original: e.FieldValues["id"], Reason: e.FieldValues["why"], Raw: e.FieldValues["d"]}
		d.Deliveries, _ = strconv.ParseInt(e.FieldValues["n"], 10, 64)
		d.Message, d.Err = decodeBy(s.opt.Codec, d.Raw)
		out[i] = d
	}
	return out, nil
}

// Replay sends a dead letter again, to all groups of the stream, and says
// whether there was one. A group that does not exist is [ErrNoGroup].
func (s *Stream[T]) Replay(ctx context.Context, group, id string) (bool, error) {
	if err := errors.Join(checkChannel("group", group), checkDeadID(id)); err != nil {
		return false, err
	}
	m, err := s.b.r.Eval(ctx, scriptReplay, []string{s.logKey(), s.deadKey(group)}, []string{id, strconv.Itoa(s.opt.MaxLen)})
	if err != nil {
		return false, s.failed("replay", err)
	}
	if m.IsNil() {
		return false, s.checkGroup(ctx, "replay", group)
	}
	return true, nil
}

// Purge removes dead letters by id, all of them without, and says how many
// there were. A group that has none and does not exist is [ErrNoGroup].
func (s *Stream[T]) Purge(ctx context.Context, group string, ids ...string) (int64, error) {
	err := checkChannel("group", group)
	for _, id := range ids {
		err = errors.Join(err, checkDeadID(id))
	}
	if err != nil {
		return 0, err
	}
	m, err := s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		if len(ids) == 0 {
			return b.Xtrim().Key(s.deadKey(group)).Maxlen().Exact().Threshold("0").Build()
		}
		return b.Xdel().Key(s.deadKey(group)).Id(ids...).Build()
	})
	if err != nil {
		return 0, s.failed("purge", err)
	}
	n, err := m.AsInt64()
	if err == nil && n == 0 {
		return 0, s.checkGroup(ctx, "purge", group)
	}
	return n, s.failed("purge", err)
}
