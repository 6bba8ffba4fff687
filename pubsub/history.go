package pubsub

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/operr"
)

var (
	//go:embed lua/publish.lua
	luaPublish string
	//go:embed lua/begin.lua
	luaBegin string

	scriptPublish = madcrow.NewScript("pubsub_publish", luaPublish)
	scriptBegin   = madcrow.NewScript("pubsub_begin", luaBegin)
)

// Position is a place in the history of a [Recoverable] topic. The zero value
// is the present: what is published from now on.
type Position struct {
	// Epoch names one unbroken history.
	Epoch string
	// Offset counts its messages from 1; 0 is the place before the first.
	Offset uint64
	// Nonce is the message's own: after a failover another message may get its
	// offset.
	Nonce string
}

// Beginning is the place before the oldest message that is kept.
var Beginning = Position{Epoch: anyEpoch}

// anyEpoch is that of places before a message that is not known yet. start is
// the place before the very first one: where nothing had been published, and no
// history could be begun.
const anyEpoch = "*"

var startPosition = Position{Epoch: anyEpoch, Nonce: "0"}

// String returns the position as text for URLs and headers; "" for the zero value.
func (p Position) String() string {
	if p == (Position{}) {
		return ""
	}
	return p.Epoch + "-" + strconv.FormatUint(p.Offset, 10) + "-" + p.Nonce
}

// ParsePosition reads what String returns. "" is the zero value.
func ParsePosition(s string) (p Position, err error) {
	if s == "" {
		return p, nil
	}
	parts := strings.Split(s, "-")
	if len(parts) == 3 && parts[0] != "" && len(s) <= 128 {
		if p.Offset, err = strconv.ParseUint(parts[1], 10, 63); err == nil {
			p.Epoch, p.Nonce = parts[0], parts[2]
			return p, nil
		}
	}
	return Position{}, fail.Argument("parse_position", "", "position", "must be the text of a Position")
}

// historyPrefix and historySuffix stand around the encoded name in the channel of a
// recoverable topic.
const (
	historyPrefix = "m1:topic:{"
	historySuffix = "}:live"
)

// RecoverableOptions says how a recoverable topic works. The zero value works.
// All who publish to one must have the same.
type RecoverableOptions[T any] struct {
	// Codec defaults as that of [TopicOptions].
	Codec madcrow.Codec[T]
	// History is how many messages are kept at least, from 1 to 1,000,000.
	// Defaults to 1,000.
	History int
	// HistoryTTL is how long the history is kept after the last message, from 1
	// second to a year. Defaults to 1 hour. Its last position, some 100 bytes, is
	// kept a day longer: a subscriber that had all of it has missed nothing.
	HistoryTTL time.Duration
}

// Recoverable is a topic with a history. It is safe for concurrent use.
//
// A message is accepted when it stands in the history or bears a seal, which needs
// permission to write there. A client that may only PUBLISH to the channel cannot
// deliver a message to subscribers, and can have one withheld only where a new
// history begins during a flood of its forgeries: then the beginning may be
// reported as lost.
type Recoverable[T any] struct {
	b       *Bus
	name    string
	channel string
	meta    string
	history string
	sharded bool
	opt     RecoverableOptions[T]
}

// NewRecoverable makes a recoverable topic. Its name is of 1 to 1,024 bytes. In
// a cluster it lives on the node of its slot. Redis is not asked.
func NewRecoverable[T any](b *Bus, name string, options RecoverableOptions[T]) (*Recoverable[T], error) {
	if options.Codec == nil {
		options.Codec = codec.Default[T]()
	}
	if options.History == 0 {
		options.History = 1000
	}
	if options.HistoryTTL == 0 {
		options.HistoryTTL = time.Hour
	}
	var wrong operr.Arguments
	if message := keys.CheckChannelLength(name); message != "" {
		wrong.Check(false, "name", message)
		name = ""
	}
	wrong.Check(options.History >= 1 && options.History <= 1_000_000, "RecoverableOptions.History", "must be from 1 to 1000000")
	wrong.Check(options.HistoryTTL >= time.Second && options.HistoryTTL <= 366*24*time.Hour, "RecoverableOptions.HistoryTTL", "must be from 1s to a year")
	if err := fail.Arguments("new_recoverable", name, wrong); err != nil {
		return nil, err
	}
	base := b.prefix + historyPrefix + keys.Encode(name) + "}:"
	return &Recoverable[T]{
		b: b, name: name, channel: base + "live", meta: base + "meta", history: base + "history",
		sharded: b.r.Config().Cluster.Enabled, opt: options,
	}, nil
}

// metaTTL is how long the last position of the history is kept.
func (t *Recoverable[T]) metaTTL() string { return milliseconds(t.opt.HistoryTTL + metaExtra) }

// milliseconds is an argument of a script.
func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// metaExtra is how much longer its last position is kept than the history.
const metaExtra = 24 * time.Hour

// Publish appends a message to the history and sends it, in one script: both,
// or neither. It returns the position of the message; with an outbox that holds it
// there is none, and the error is [ErrQueued]. When the error leaves the outcome
// unknown, the message may be there.
func (t *Recoverable[T]) Publish(ctx context.Context, v T) (at Position, err error) {
	payload, err := codec.Encode(t.opt.Codec, v)
	if err != nil {
		return Position{}, fail.Argument("publish", t.name, "message", fmt.Sprintf("cannot be encoded: %T", v))
	}
	send := func(ctx context.Context) (err error) {
		at, err = t.appendMessage(ctx, payload)
		return err
	}
	p := outgoing{channel: t.channel, payload: payload, history: func(ctx context.Context) error {
		_, err := t.appendMessage(ctx, payload)
		return err
	}}
	err = t.b.sendOrQueue(p, func() error { return send(ctx) })
	if errors.Is(err, ErrQueued) { // it will be sent: to send it again would deliver it again
		return Position{}, fail.WrapAs("publish", t.name, madcrow.OutcomeUnknown, err)
	}
	return at, fail.Wrap("publish", t.name, err)
}

// historyArgs is more than the arguments of the script need but for the channel and
// the payload.
const historyArgs = 512

// appendMessage appends a message to the history, and publishes it.
func (t *Recoverable[T]) appendMessage(ctx context.Context, payload string) (Position, error) {
	verb := "PUBLISH"
	if t.sharded {
		verb = "SPUBLISH"
	}
	nonce, digest := rand.Text()[:12], sha256.Sum256([]byte(payload))
	m, err := t.b.r.Eval(ctx, scriptPublish, []string{t.meta, t.history}, []string{
		t.channel, verb, rand.Text()[:12], nonce, strconv.Itoa(t.opt.History),
		milliseconds(t.opt.HistoryTTL), t.metaTTL(), payload, rand.Text(), hex.EncodeToString(digest[:]),
	}).Message()
	if err != nil {
		return Position{}, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 3 {
		return Position{}, fail.WrapAs("publish", t.name, madcrow.OutcomeUnknown, errors.Join(errReply, err))
	}
	epoch, err1 := list[0].ToString()
	offset, err2 := list[1].AsUint64()
	if err := errors.Join(err1, err2); err != nil {
		return Position{}, fail.WrapAs("publish", t.name, madcrow.OutcomeUnknown, errors.Join(errReply, err))
	}
	t.b.event(ctx, madcrow.EventPubSubPublished, t.name, 1)
	return Position{epoch, offset, nonce}, nil
}

// Subscribe yields what was published after a position, from the history and
// then as it comes, in order, each once, until ctx ends or the loop is left.
// Messages that were missed in an interruption come after it. Keep the Position of
// the last event that you have handled, to go on from there later, in another
// process too. Errors are those of [Topic.Subscribe]; of the options, WithOverflow has
// no effect.
//
// Where there is no history yet, one is created: a hash of some 100 bytes for
// HistoryTTL and a day. For a user without permission to write none is; then a loss of
// everything before the first message of this subscription is not reported.
func (t *Recoverable[T]) Subscribe(ctx context.Context, after Position, opts ...SubscribeOption) iter.Seq2[Event[T], error] {
	return func(yield func(Event[T], error) bool) {
		how, err := subscribingOf(opts)
		if err != nil {
			yield(Event[T]{}, err)
			return
		}
		if after.Epoch == anyEpoch && after.Nonce != startPosition.Nonce {
			after = Beginning
		}
		r := &historyReader[T]{t: t, position: after, sub: newSubscriber(how.queue, DropNewest), yield: yield, pageSize: firstPage, retryDelay: minRetry}
		r.sub.plain = true
		m := modeChannel
		if t.sharded {
			m = modeSharded
		}
		f, err := t.b.join(channelKey{m, t.channel}, r.sub)
		if err != nil {
			yield(Event[T]{}, fail.Wrap("subscribe", t.name, err))
			return
		}
		defer f.remove(r.sub)
		if err := r.run(ctx); err != nil && err != errStop { //nolint:errorlint // our own value
			yield(Event[T]{}, fail.Wrap("subscribe", t.name, err))
		}
	}
}

// errStop says that the loop was left.
var errStop = errors.New("stop")
