package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/exactjson"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// Codec turns messages into text and back. It must be safe for concurrent use.
type Codec[T any] interface {
	Encode(v T) (string, error)
	Decode(text string) (T, error)
}

// JSON is the codec of encoding/json; a whole number of more than 15 digits in
// an any is read as a json.Number, every other one as a float64. A message of a type without pointers,
// slices, maps and interfaces is decoded once for all who listen here.
func JSON[T any]() Codec[T] { return jsonCodec[T]{whole: whole(reflect.TypeFor[T]())} }

type jsonCodec[T any] struct {
	whole bool // a copy shares nothing that could be changed
}

func (jsonCodec[T]) Encode(v T) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}

func (jsonCodec[T]) Decode(text string) (v T, err error) {
	err = exactjson.Unmarshal([]byte(text), &v)
	return v, err
}

// Text leaves strings as they are.
func Text() Codec[string] { return textCodec{} }

type textCodec struct{}

func (textCodec) Encode(v string) (string, error)    { return v, nil }
func (textCodec) Decode(text string) (string, error) { return text, nil }

// TopicOptions says how a topic works. The zero value works.
type TopicOptions[T any] struct {
	// Codec defaults to [Text] for strings and [JSON] for all else.
	Codec Codec[T]
	// Plain sends what the codec makes and nothing else, as the Python original
	// does: without the envelope by which subscribers count what they missed.
	Plain bool
	// Sharded keeps the channel on the node of its slot (SPUBLISH, SSUBSCRIBE;
	// Redis 7): in a cluster, messages then do not go to all nodes.
	Sharded bool
	// Reserved lets the name be a reserved one, and a pattern hear reserved
	// channels: those that begin with __, on which servers speak themselves
	// (__keyspace@0__:…, and __sentinel__:hello, which Sentinels believe), and
	// those that begin with m1:, as this package's own do, which are also found under
	// the prefix of another application. Without it such names are refused, and a
	// pattern such as "*" does not hear them. Never set it where a stranger
	// chooses the name.
	Reserved bool
}

// Topic is one channel of messages of one type. It is safe for concurrent use.
type Topic[T any] struct {
	b       *Bus
	name    string
	channel string // with the prefix
	opt     TopicOptions[T]
	numbers atomic.Pointer[numbers] // nil before the first that is published
}

// NewTopic makes a topic of a channel, 1 to 1,024 bytes and not a reserved one
// (see [TopicOptions].Reserved). Whoever may publish to the channel is believed,
// what the envelope says too: who must not be, gets other channels. Redis is not asked.
func NewTopic[T any](b *Bus, channel string, options TopicOptions[T]) (*Topic[T], error) {
	if err := b.checkPublic("channel", channel, options.Reserved); err != nil {
		return nil, err
	}
	if options.Codec == nil {
		options.Codec = defaultCodec[T]()
	}
	return &Topic[T]{b: b, name: channel, channel: b.prefix + channel, opt: options}, nil
}

func defaultCodec[T any]() Codec[T] {
	if c, ok := any(Text()).(Codec[T]); ok {
		return c
	}
	return JSON[T]()
}

// Publish sends a message, and returns how many connections received it: 0 is
// nobody, not a failure. In a cluster it counts those of one node, and with an
// outbox that is not empty it is 0. It is one round trip, and is not tried
// again when it may have been sent. The error is an [*Error].
func (t *Topic[T]) Publish(ctx context.Context, v T) (receivers int64, err error) {
	payload, err := encodeBy(t.opt.Codec, v)
	if err != nil {
		return 0, &ValidationError{Field: "message", Message: fmt.Sprintf("cannot be encoded: %T", v)}
	}
	p := outgoing{channel: t.channel, sharded: t.opt.Sharded, payload: payload}
	if !t.opt.Plain {
		if p.numbers = t.numbers.Load(); p.numbers == nil {
			p.numbers = t.b.numbersOf(t.channel)
			t.numbers.Store(p.numbers)
		}
	}
	receivers, err = t.b.publish(ctx, p)
	if err != nil {
		return 0, &Error{Channel: t.name, Op: "publish", Err: err}
	}
	return receivers, nil
}

// parcel is what is sent.
type outgoing struct {
	channel string
	sharded bool
	payload string
	numbers *numbers // nil: without an envelope
}

// publish sends it, or puts it into the outbox.
func (b *Bus) publish(ctx context.Context, p outgoing) (int64, error) {
	if b.draining.Load() {
		return 0, ErrClosed
	}
	mayWait := b.outbox != nil && p.size() <= b.maxMessage
	if mayWait && b.outbox.holds() {
		return 0, b.outbox.put(p, ErrQueued) // after what waits already
	}
	n, err := b.send(ctx, p)
	if mayWait && err != nil && surelyUnsent(err) {
		return 0, b.outbox.put(p, err)
	}
	return n, err
}

// surelyUnsent says that a message was not sent and may be a moment later.
func surelyUnsent(err error) bool {
	var e *madcrow.Error
	return errors.As(err, &e) && e.Outcome == madcrow.OutcomeNotApplied &&
		(errors.Is(err, madcrow.ErrUnavailable) || e.Kind == madcrow.KindTimeout || e.Kind == madcrow.KindReadOnly || e.Kind == madcrow.KindBusy) &&
		!errors.Is(err, madcrow.ErrClosed)
}

// size is how many bytes its command has at most, without voids.
func (p outgoing) size() int {
	n := len("SPUBLISH") + len(p.channel) + len(p.payload)
	if p.numbers != nil {
		n += len(envelopeMark) + len(p.numbers.publisher) + numberSize
	}
	return n
}

// letter is a parcel with its number.
type numbered struct {
	outgoing
	text    string
	number  uint64
	skipped []span
}

// letter numbers it. Voids that need more than spare bytes are for a later one.
func (p outgoing) number(spare int) numbered {
	l := numbered{outgoing: p, text: p.payload}
	if p.numbers != nil {
		now := time.Now()
		l.number, l.skipped = p.numbers.next(now)
		if skippedSize*len(l.skipped) > spare {
			l.skipped = nil
		}
		l.text = envelope{publisher: p.numbers.publisher, number: l.number, sent: now, skipped: l.skipped, payload: p.payload}.text()
	}
	return l
}

func (l *numbered) command(b madcrow.Builder) madcrow.Command {
	if l.sharded {
		return b.Spublish().Channel(l.channel).Message(l.text).Build()
	}
	return b.Publish().Channel(l.channel).Message(l.text).Build()
}

// sent notes what became of it.
func (l *numbered) recordOutcome(b *Bus, err error) {
	var e *madcrow.Error
	switch {
	case err == nil:
		b.event("published", 1)
		if l.skipped != nil {
			l.numbers.markAnnounced(l.skipped)
		}
	case l.numbers != nil && errors.As(err, &e) && e.Outcome == madcrow.OutcomeNotApplied:
		l.numbers.skip(l.number, time.Now())
	}
}

func (b *Bus) send(ctx context.Context, p outgoing) (int64, error) {
	l := p.number(b.maxMessage - p.size())
	m, err := b.r.Do(ctx, l.command)
	if err != nil && p.sharded {
		err = noSharded(err)
	}
	if l.recordOutcome(b, err); err != nil {
		return 0, err
	}
	return m.AsInt64()
}

// sendAll sends several in one round trip, and returns an error or nil for each.
func (b *Bus) sendAll(ctx context.Context, list []outgoing) []error {
	letters, spare := make([]numbered, len(list)), b.maxMessage
	for _, p := range list {
		spare -= p.size()
	}
	for i, p := range list {
		letters[i] = p.number(spare)
		spare -= skippedSize * len(letters[i].skipped)
	}
	res, err := b.r.DoMulti(ctx, func(rb madcrow.Builder) []madcrow.Command {
		cmds := make([]madcrow.Command, len(letters))
		for i := range letters {
			cmds[i] = letters[i].command(rb)
		}
		return cmds
	})
	errs := make([]error, len(list))
	for i := range letters {
		if len(res) == len(list) {
			errs[i] = res[i].Err
		} else {
			errs[i] = err
		}
		letters[i].recordOutcome(b, errs[i])
	}
	return errs
}

// Event is what a subscriber is told.
type Event[T any] struct {
	Kind EventKind
	// Channel and Message are those of an EventMessage; the channel without the
	// prefix.
	Channel string
	Message T
	// Publisher, Number and Sent are the envelope's: who sent it, its number
	// among those of that publisher, and when, by the publisher's clock. Empty
	// without an envelope.
	Publisher string
	Number    uint64
	Sent      time.Time
	// Since and Until are the span of an EventGap, by this process' clock. Where
	// Redis hung up on a connection that was behind, Since is when the last typed
	// message was sent, by its publisher's clock; with [TopicOptions].Plain it may
	// be too late by as much as the connection was behind.
	Since, Until time.Time
	// N is the number of an EventMissed or EventDropped.
	N int
	// Err is [ErrMalformed] for a message that cannot be decoded.
	Err error
}

// SubscribeOption changes one subscription.
type SubscribeOption func(*subscribing)

type subscribing struct {
	queue    int
	overflow Overflow
}

// WithQueue sets how many messages wait for this subscriber, from 1 to
// 1,000,000, and [Options].QueueBytes at most. Defaults to 1,024.
func WithQueue(n int) SubscribeOption { return func(s *subscribing) { s.queue = n } }

// WithOverflow says what becomes of messages beyond that. Defaults to
// [DropNewest].
func WithOverflow(o Overflow) SubscribeOption { return func(s *subscribing) { s.overflow = o } }

func subscribingOf(opts []SubscribeOption) (subscribing, error) {
	s := subscribing{queue: 1024}
	for _, set := range opts {
		set(&s)
	}
	if s.queue < 1 || s.queue > 1_000_000 {
		return s, &ValidationError{Field: "queue", Message: "must be from 1 to 1000000"}
	}
	if s.overflow.wait < 0 {
		return s, &ValidationError{Field: "overflow", Message: "the time must not be negative"}
	}
	return s, nil
}

// Subscribe yields what is published until ctx ends or the loop is left. It
// begins when the loop begins, and goes on through lost connections, which it
// tells. An error is the last thing that it yields: a [*ValidationError],
// [ErrSlow], or an [*Error] that waiting does not mend.
func (t *Topic[T]) Subscribe(ctx context.Context, opts ...SubscribeOption) iter.Seq2[Event[T], error] {
	m := modeChannel
	if t.opt.Sharded {
		m = modeSharded
	}
	return subscribe(ctx, t.b, channelKey{m, t.channel}, t.opt, opts)
}

// Handle calls fn for every message until ctx ends, which is no error, or the
// subscription does. A panic of fn ends it too, as an error.
func (t *Topic[T]) Handle(ctx context.Context, fn func(context.Context, Event[T]), opts ...SubscribeOption) error {
	return handle(ctx, t.Subscribe(ctx, opts...), fn)
}

// Pattern is all channels whose names match a pattern of Redis: h?llo, h*llo,
// h[ae]llo.
type Pattern[T any] struct {
	b       *Bus
	pattern string
	opt     TopicOptions[T]
}

// NewPattern makes one. It hears no reserved channels, whatever the pattern, but
// with Options.Reserved. Options.Sharded cannot be set: Redis has no patterns of
// sharded channels. Config.KeyPrefix stands before the pattern, escaped.
func NewPattern[T any](b *Bus, pattern string, options TopicOptions[T]) (*Pattern[T], error) {
	if err := b.checkPublic("pattern", pattern, options.Reserved); err != nil {
		return nil, err
	}
	if options.Sharded {
		return nil, &ValidationError{Field: "Sharded", Message: "there are no patterns of sharded channels"}
	}
	if options.Codec == nil {
		options.Codec = defaultCodec[T]()
	}
	return &Pattern[T]{b: b, pattern: escapePattern(b.prefix) + pattern, opt: options}, nil
}

func escapePattern(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
}

// Subscribe is [Topic.Subscribe].
func (p *Pattern[T]) Subscribe(ctx context.Context, opts ...SubscribeOption) iter.Seq2[Event[T], error] {
	return subscribe(ctx, p.b, channelKey{modePattern, p.pattern}, p.opt, opts)
}

// Handle is [Topic.Handle].
func (p *Pattern[T]) Handle(ctx context.Context, fn func(context.Context, Event[T]), opts ...SubscribeOption) error {
	return handle(ctx, p.Subscribe(ctx, opts...), fn)
}

func subscribe[T any](ctx context.Context, b *Bus, key channelKey, opt TopicOptions[T], opts []SubscribeOption) iter.Seq2[Event[T], error] {
	return func(yield func(Event[T], error) bool) {
		how, err := subscribingOf(opts)
		if err != nil {
			yield(Event[T]{}, err)
			return
		}
		sub := newSubscriber(how.queue, how.overflow)
		sub.plain, sub.reserved = opt.Plain, opt.Reserved
		f, err := b.join(key, sub)
		if err != nil {
			yield(Event[T]{}, wrapError(key.channel, err))
			return
		}
		defer f.remove(sub)
		for ctx.Err() == nil {
			it, ok, err := sub.next()
			switch {
			case ok:
				if !yield(newEvent(b, it, opt), nil) {
					return
				}
				continue
			case err != nil:
				yield(Event[T]{}, wrapError(key.channel, err))
				return
			}
			select {
			case <-sub.ready:
			case <-ctx.Done():
				return
			case <-b.ctx.Done():
				yield(Event[T]{}, wrapError(key.channel, ErrClosed))
				return
			}
		}
	}
}

func wrapError(channel string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Channel: channel, Op: "subscribe", Err: err}
}

func newEvent[T any](b *Bus, it item, opt TopicOptions[T]) Event[T] {
	e := Event[T]{Kind: it.kind, Since: it.since, Until: it.until, N: it.n}
	if it.kind != EventMessage {
		return e
	}
	m := it.message
	e.Channel = strings.TrimPrefix(m.channel, b.prefix)
	text := m.raw
	if !opt.Plain {
		text = m.payload
		e.Publisher, e.Number, e.Sent = m.env.publisher, m.env.number, m.env.sent
	}
	var err error
	if e.Message, err = decode(m, text, opt); err != nil {
		e.Err = fmt.Errorf("%w: %w", ErrMalformed, err)
		b.event("malformed", 1)
	}
	return e
}

// decode decodes a message, where that can be once for all.
func decode[T any](m *message, text string, opt TopicOptions[T]) (T, error) {
	if c, ok := opt.Codec.(jsonCodec[T]); !ok || !c.whole || !m.shared {
		return decodeBy(opt.Codec, text)
	}
	m.once.Do(func() {
		v, err := decodeBy(opt.Codec, text)
		m.plain, m.decoded, m.failed = opt.Plain, v, err
	})
	if v, ok := m.decoded.(T); ok && m.plain == opt.Plain {
		return v, m.failed
	}
	return decodeBy(opt.Codec, text) // others take it for something else
}

// whole says that values of a type are copied with all that they hold.
func whole(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return whole(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !whole(t.Field(i).Type) {
				return t == reflect.TypeFor[time.Time]() // nobody changes its zone
			}
		}
		return true
	case reflect.String:
		return true
	}
	return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Complex128 && t.Kind() != reflect.Uintptr
}

func handle[T any](ctx context.Context, events iter.Seq2[Event[T], error], fn func(context.Context, Event[T])) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("pubsub: the handler: %w", guard.Recovered(p))
		}
	}()
	for e, err := range events {
		if err != nil {
			return err
		}
		fn(ctx, e)
	}
	return nil
}
