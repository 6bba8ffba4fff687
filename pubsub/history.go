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

// RecoverableOptions says how a recoverable topic works. The zero value works.
// All who publish to one must have the same.
type RecoverableOptions[T any] struct {
	// Codec defaults as that of [TopicOptions].
	Codec madcrow.Codec[T]
	// History is how many messages are kept at least, from 1 to 1,000,000.
	// Defaults to 1,000.
	History int
	// Life is how long the history is kept after the last message, from 1
	// second to a year. Defaults to 1 hour. Its last position, some 100 bytes, is
	// kept a day longer: a subscriber that had all of it has missed nothing.
	Life time.Duration
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
	if err := checkLength("new_recoverable", "name", name); err != nil {
		return nil, err
	}
	if options.Codec == nil {
		options.Codec = codec.Default[T]()
	}
	if options.History == 0 {
		options.History = 1000
	}
	if options.Life == 0 {
		options.Life = time.Hour
	}
	if options.History < 1 || options.History > 1_000_000 || options.Life < time.Second || options.Life > 366*24*time.Hour {
		return nil, fail.Argument("new_recoverable", name, "Options", "History must be from 1 to 1000000, Life from 1s to a year")
	}
	base := b.prefix + "m1:topic:{" + keys.Encode(name) + "}:"
	return &Recoverable[T]{
		b: b, name: name, channel: base + "live", meta: base + "meta", history: base + "history",
		sharded: b.r.Config().Cluster.Enabled, opt: options,
	}, nil
}

// metaTTL is how long the last position of the history is kept.
func (t *Recoverable[T]) metaTTL() string { return milliseconds(t.opt.Life + metaExtra) }

// milliseconds is an argument of a script.
func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// metaExtra is how much longer its last position is kept than the history.
const metaExtra = 24 * time.Hour

// Publish appends a message to the history and sends it, in one script: both,
// or neither. It returns the position of the message, and how many connections
// received it at once; a subscriber that was away gets it from the history.
// In a cluster it counts those of one node. When the error leaves the outcome
// unknown, the message may be there.
func (t *Recoverable[T]) Publish(ctx context.Context, v T) (at Position, receivers int64, err error) {
	payload, err := codec.Encode(t.opt.Codec, v)
	if err != nil {
		return Position{}, 0, fail.Argument("publish", t.name, "message", fmt.Sprintf("cannot be encoded: %T", v))
	}
	verb := "PUBLISH"
	if t.sharded {
		verb = "SPUBLISH"
	}
	nonce, digest := rand.Text()[:12], sha256.Sum256([]byte(payload))
	m, err := t.b.r.Eval(ctx, scriptPublish, []string{t.meta, t.history}, []string{
		t.channel, verb, rand.Text()[:12], nonce, strconv.Itoa(t.opt.History),
		milliseconds(t.opt.Life), t.metaTTL(), payload, rand.Text(), hex.EncodeToString(digest[:]),
	})
	if err != nil {
		return Position{}, 0, fail.Wrap("publish", t.name, err)
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 3 {
		return Position{}, 0, fail.WrapAs("publish", t.name, madcrow.OutcomeUnknown, errors.Join(errReply, err))
	}
	epoch, err1 := list[0].ToString()
	offset, err2 := list[1].AsUint64()
	receivers, err3 := list[2].AsInt64()
	if err := errors.Join(err1, err2, err3); err != nil {
		return Position{}, 0, fail.WrapAs("publish", t.name, madcrow.OutcomeUnknown, errors.Join(errReply, err))
	}
	t.b.event(ctx, madcrow.EventPubSubPublished, 1)
	return Position{epoch, offset, nonce}, receivers, nil
}

// Subscribe yields what was published after a position, from the history and
// then as it comes, in order, each once, until ctx ends or the loop is left.
// Messages that were missed in an interruption come after it. Keep the Position of
// the last event that you have handled, to go on from there later, in another
// process too. Errors are those of [Topic.Subscribe]; of the options, WithOverflow has
// no effect.
//
// Where there is no history yet, one is created: a hash of some 100 bytes for Life
// and a day. For a user without permission to write none is; then a loss of
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
