package pubsub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// TopicOptions says how a topic works. The zero value works.
type TopicOptions[T any] struct {
	// Codec defaults to [madcrow.Text] for strings, [madcrow.Bytes] for byte slices
	// and [madcrow.JSON] for all else. A message in JSON of a type without pointers,
	// slices, maps and interfaces is decoded once for all who listen here.
	Codec madcrow.Codec[T]
	// Plain sends the text of the codec and nothing else, as the FastAPI service
	// does: without the envelope by which subscribers count missed messages.
	Plain bool
	// Sharded keeps the channel on the node of its slot (SPUBLISH, SSUBSCRIBE;
	// Redis 7): in a cluster, messages then do not go to all nodes.
	Sharded bool
	// Reserved allows reserved names, and has a pattern match reserved channels:
	// those that begin with __, on which servers publish (__keyspace@0__:…, and
	// __sentinel__:hello, which Sentinels trust), and those that begin with m1:, as
	// this package's own do, also under the prefix of another application. Without
	// it such names are refused, and a pattern such as "*" does not match them.
	// Never set it where a stranger chooses the name.
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
// (see [TopicOptions].Reserved). Every message of a client that may publish to the
// channel is accepted, its envelope too: untrusted clients need other channels.
// Redis is not asked.
func NewTopic[T any](b *Bus, channel string, options TopicOptions[T]) (*Topic[T], error) {
	if err := b.checkPublic("new_topic", "channel", channel, options.Reserved); err != nil {
		return nil, err
	}
	if options.Codec == nil {
		options.Codec = codec.Default[T]()
	}
	return &Topic[T]{b: b, name: channel, channel: b.prefix + channel, opt: options}, nil
}

// Publish sends a message, and returns how many connections received it; 0 is not
// a failure. In a cluster it counts those of one node, and with an outbox that is
// not empty it is 0. It is one round trip, and is not tried
// again when it may have been sent. The error is a [*madcrow.Error].
func (t *Topic[T]) Publish(ctx context.Context, v T) (receivers int64, err error) {
	payload, err := codec.Encode(t.opt.Codec, v)
	if err != nil {
		return 0, fail.Argument("publish", t.name, "message", fmt.Sprintf("cannot be encoded: %T", v))
	}
	p := outgoing{channel: t.channel, sharded: t.opt.Sharded, payload: payload}
	if !t.opt.Plain {
		if p.numbers = t.numbers.Load(); p.numbers == nil {
			p.numbers = t.b.numbersOf(t.channel)
			t.numbers.Store(p.numbers)
		}
	}
	receivers, err = t.b.publish(ctx, p)
	if errors.Is(err, ErrQueued) { // it will be sent: to send it again would deliver it again
		return 0, fail.WrapAs("publish", t.name, madcrow.OutcomeUnknown, err)
	}
	if err != nil {
		return 0, fail.Wrap("publish", t.name, err)
	}
	return receivers, nil
}

// outgoing is a message to send.
type outgoing struct {
	channel string
	sharded bool
	payload string
	numbers *numbers // nil: without an envelope
	// history publishes a message of a [Recoverable]; the rest but channel and
	// payload is not used then.
	history func(context.Context) error
}

// publish sends a message, or adds it to the outbox.
func (b *Bus) publish(ctx context.Context, p outgoing) (n int64, err error) {
	err = b.sendOrQueue(p, func() error {
		n, err = b.send(ctx, p)
		return err
	})
	return n, err
}

// sendOrQueue calls send, or adds the message to the outbox: behind those that wait
// there already, or where send surely did not send it.
func (b *Bus) sendOrQueue(p outgoing, send func() error) error {
	if b.draining.Load() {
		return ErrClosed
	}
	mayWait := b.outbox != nil && p.size() <= b.maxMessage
	if mayWait && b.outbox.holds() {
		return b.outbox.add(p, ErrQueued)
	}
	err := send()
	if mayWait && err != nil && operr.Retryable(err) {
		return b.outbox.add(p, err)
	}
	return err
}

// size is how many bytes its command has at most, without skipped numbers.
func (p outgoing) size() int {
	if p.history != nil {
		return len(p.channel) + len(p.payload) + historyArgs
	}
	n := len("SPUBLISH") + len(p.channel) + len(p.payload)
	if p.numbers != nil {
		n += len(envelopeMark) + len(p.numbers.publisher) + numberSize
	}
	return n
}

// numbered is an outgoing message with its sequence number.
type numbered struct {
	outgoing
	text    string
	number  uint64
	skipped []span
}

// number gives it its number. Skipped numbers that need more than free bytes are
// announced by a later message.
func (p outgoing) number(free int) numbered {
	l := numbered{outgoing: p, text: p.payload}
	if p.numbers != nil {
		now := time.Now()
		l.number, l.skipped = p.numbers.next(now)
		if skippedSize*len(l.skipped) > free {
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

// recordOutcome notes whether it was sent.
func (l *numbered) recordOutcome(ctx context.Context, b *Bus, err error) {
	var e *madcrow.Error
	switch {
	case err == nil:
		b.event(ctx, madcrow.EventPubSubPublished, b.topicName(l.channel), 1)
		if l.skipped != nil {
			l.numbers.markAnnounced(l.skipped)
		}
	case l.numbers != nil && errors.As(err, &e) && e.Outcome == madcrow.OutcomeNotApplied:
		l.numbers.skip(l.number, time.Now())
	}
}

func (b *Bus) send(ctx context.Context, p outgoing) (int64, error) {
	l := p.number(b.maxMessage - p.size())
	reply := b.r.Do(ctx, l.command(b.r.B()))
	err := reply.Err()
	if err != nil && p.sharded {
		err = nameNoSharded(err)
	}
	if l.recordOutcome(ctx, b, err); err != nil {
		return 0, err
	}
	receivers, _, err := reply.Int()
	if err != nil {
		return 0, fail.WrapAs("publish", strings.TrimPrefix(p.channel, b.prefix), madcrow.OutcomeUnknown, err)
	}
	return receivers, nil
}

// sendAll sends several in order, and returns an error or nil for each. Behind one
// of a [Recoverable] that was not sent, and may be later, none is sent.
func (b *Bus) sendAll(ctx context.Context, list []outgoing) (errs []error) {
	isHistory := func(p outgoing) bool { return p.history != nil }
	for len(list) > 0 {
		if n := slices.IndexFunc(list, isHistory); n != 0 {
			if n < 0 {
				n = len(list)
			}
			errs, list = append(errs, b.sendTogether(ctx, list[:n])...), list[n:]
			continue
		}
		err := list[0].history(ctx)
		errs, list = append(errs, err), list[1:]
		if operr.Retryable(err) {
			for range list {
				errs = append(errs, err)
			}
			return errs
		}
	}
	return errs
}

// sendTogether sends messages of topics in one round trip.
func (b *Bus) sendTogether(ctx context.Context, list []outgoing) []error {
	messages, free := make([]numbered, len(list)), b.maxMessage
	for _, p := range list {
		free -= p.size()
	}
	for i, p := range list {
		messages[i] = p.number(free)
		free -= skippedSize * len(messages[i].skipped)
	}
	cmds := make([]madcrow.Command, len(messages))
	for i := range messages {
		cmds[i] = messages[i].command(b.r.B())
	}
	res, err := b.r.DoMulti(ctx, cmds...)
	errs := make([]error, len(list))
	for i := range messages {
		if len(res) == len(list) {
			errs[i] = res[i].Err()
		} else {
			errs[i] = err
		}
		messages[i].recordOutcome(ctx, b, errs[i])
	}
	return errs
}

// Event is a message, or an event of the subscription between messages.
type Event[T any] struct {
	Kind EventKind
	// Channel and Message are those of an EventMessage; the channel without the
	// prefix.
	Channel string
	Message T
	// Publisher, Number and Sent are the envelope's: the publisher, the number
	// among its messages, and when it was sent, by the publisher's clock. Empty
	// without an envelope.
	Publisher string
	Number    uint64
	Sent      time.Time
	// Since and Until are the span of an EventGap, by this process' clock. Where
	// Redis closed a connection that was behind, Since is when the last typed
	// message was sent, by its publisher's clock; with [TopicOptions].Plain it may
	// be too late by as much as the connection was behind.
	Since, Until time.Time
	// N is the number of an EventMissed or EventDropped.
	N int
	// Position is, of a [Recoverable], where to go on from after this event.
	Position Position
	// Err is [ErrMalformed] for a message that cannot be decoded, and
	// [ErrHistoryLost] for an EventHistoryLost.
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

// WithOverflow says which messages are dropped beyond that. Defaults to
// [DropNewest].
func WithOverflow(o Overflow) SubscribeOption { return func(s *subscribing) { s.overflow = o } }

func subscribingOf(opts []SubscribeOption) (subscribing, error) {
	s := subscribing{queue: 1024}
	for _, set := range opts {
		set(&s)
	}
	if s.queue < 1 || s.queue > 1_000_000 {
		return s, fail.Argument("subscribe", "", "WithQueue", "must be from 1 to 1000000")
	}
	return s, nil
}

// Subscribe yields messages until ctx ends or the loop is left. It begins when the
// loop begins, and goes on through lost connections, which are events. An error is
// the last thing that it yields: a [*madcrow.ArgumentError],
// [ErrSlow], or another [*madcrow.Error] that waiting does not mend.
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

func escapePattern(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
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
			yield(Event[T]{}, fail.Wrap("subscribe", key.name(b), err))
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
				yield(Event[T]{}, fail.Wrap("subscribe", key.name(b), err))
				return
			}
			select {
			case <-sub.ready:
			case <-ctx.Done():
				return
			case <-b.ctx.Done():
				yield(Event[T]{}, fail.Wrap("subscribe", key.name(b), ErrClosed))
				return
			}
		}
	}
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
		b.event(context.Background(), madcrow.EventPubSubMalformed, e.Channel, 1)
	}
	return e
}

// decode decodes a message, once for all subscribers where values are immutable.
func decode[T any](m *message, text string, opt TopicOptions[T]) (T, error) {
	if !m.shared || !codec.Immutable(opt.Codec) {
		return codec.Decode(opt.Codec, text)
	}
	m.once.Do(func() {
		v, err := codec.Decode(opt.Codec, text)
		m.plain, m.decoded, m.failed = opt.Plain, v, err
	})
	if v, ok := m.decoded.(T); ok && m.plain == opt.Plain {
		return v, m.failed
	}
	return codec.Decode(opt.Codec, text) // another subscriber decodes it to another type
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
