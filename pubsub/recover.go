package pubsub

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/keys"
)

//go:embed lua/publish.lua
var luaPublish string

var scriptPublish = madcrow.NewScript("pubsub_publish", luaPublish)

// Position is a place in the history of a [Recoverable] topic. The zero value
// is the present: what is published from now on.
type Position struct {
	// Epoch names one unbroken history.
	Epoch string
	// Offset counts its messages from 1; 0 is the place before the first.
	Offset uint64
	// Nonce is the message's own, so that another one that got its offset after
	// a failover is not taken for it.
	Nonce string
}

// Beginning is the place before the oldest message that is kept.
var Beginning = Position{Epoch: anyEpoch}

// anyEpoch is that of places before a message that is not known yet. start is
// the place before the very first one: where nothing had been published.
const anyEpoch = "*"

var start = Position{Epoch: anyEpoch, Nonce: "0"}

// String returns a form for URLs and headers; "" for the zero value.
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
	return Position{}, &ValidationError{Field: "position", Message: "is none of this package's"}
}

// RecoverableOptions says how a recoverable topic works. The zero value works.
// All who publish to one must have the same.
type RecoverableOptions[T any] struct {
	// Codec defaults to [Text] for strings and [JSON] for all else.
	Codec Codec[T]
	// History is how many messages are kept at least, from 1 to 1,000,000.
	// Defaults to 1,000.
	History int
	// Life is how long the history is kept after the last message, from 1
	// second to a year. Defaults to 1 hour.
	Life time.Duration
}

// Recoverable is a topic with a history. It is safe for concurrent use.
type Recoverable[T any] struct {
	b       *Bus
	name    string
	channel string
	meta    string
	history string
	sharded bool
	opt     RecoverableOptions[T]
}

// EventHistoryLost says that what came after the position is not all there any
// more. Err is [ErrHistoryLost]. Read anew what the messages are about; the messages
// that follow are those after the Position of this event.
const EventHistoryLost EventKind = 100

// NewRecoverable makes a recoverable topic. Its name is of 1 to 1,024 bytes. In
// a cluster it lives on the node of its slot. Redis is not asked.
func NewRecoverable[T any](b *Bus, name string, options RecoverableOptions[T]) (*Recoverable[T], error) {
	if err := checkChannel("name", name); err != nil {
		return nil, err
	}
	if options.Codec == nil {
		options.Codec = defaultCodec[T]()
	}
	if options.History == 0 {
		options.History = 1000
	}
	if options.Life == 0 {
		options.Life = time.Hour
	}
	if options.History < 1 || options.History > 1_000_000 || options.Life < time.Second || options.Life > 366*24*time.Hour {
		return nil, &ValidationError{Field: "options", Message: "History must be from 1 to 1000000, Life from 1s to a year"}
	}
	base := b.prefix + "m1:topic:{" + keys.Form(name) + "}:"
	return &Recoverable[T]{
		b: b, name: name, channel: base + "live", meta: base + "meta", history: base + "history",
		sharded: b.r.Client().Mode() == rueidis.ClientModeCluster, opt: options,
	}, nil
}

// Publish appends a message to the history and sends it, in one script: both,
// or neither. It returns where the message is. When the error leaves the
// outcome unknown, the message may be there.
func (t *Recoverable[T]) Publish(ctx context.Context, v T) (Position, error) {
	payload, err := t.opt.Codec.Encode(v)
	if err != nil {
		return Position{}, &ValidationError{Field: "message", Message: fmt.Sprintf("cannot be encoded: %T", v)}
	}
	verb := "PUBLISH"
	if t.sharded {
		verb = "SPUBLISH"
	}
	nonce := rand.Text()[:12]
	m, err := t.b.r.Eval(ctx, scriptPublish, []string{t.meta, t.history}, []string{
		t.channel, verb, rand.Text()[:12], nonce, strconv.Itoa(t.opt.History), strconv.FormatInt(t.opt.Life.Milliseconds(), 10), payload,
	})
	if err != nil {
		return Position{}, &Error{Channel: t.name, Op: "publish", Err: err}
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 3 {
		return Position{}, &Error{Channel: t.name, Op: "publish", Err: errors.Join(errReply, err)}
	}
	epoch, err1 := list[0].ToString()
	offset, err2 := list[1].AsInt64()
	if err := errors.Join(err1, err2); err != nil {
		return Position{}, &Error{Channel: t.name, Op: "publish", Err: errors.Join(errReply, err)}
	}
	t.b.event("published", 1)
	return Position{epoch, uint64(offset), nonce}, nil
}

var errReply = errors.New("unexpected reply")

// Recovered is what a subscriber of a recoverable topic is told.
type Recovered[T any] struct {
	// Kind is EventMessage, EventSubscribed, EventInterrupted or
	// EventHistoryLost.
	Kind EventKind
	// Message is that of an EventMessage.
	Message T
	// Position is where to go on from after this event.
	Position Position
	// Err is [ErrMalformed] for a message that cannot be decoded, and
	// [ErrHistoryLost] for an EventHistoryLost.
	Err error
}

// Subscribe yields what was published after a position, from the history and
// then as it comes, in order, each once, until ctx ends or the loop is left.
// What was missed in an interruption comes after it. Keep the Position of the
// last event that was dealt with to go on from there later, in another process
// too. Errors are those of [Topic.Subscribe]; of the options, WithOverflow has
// no effect.
func (t *Recoverable[T]) Subscribe(ctx context.Context, after Position, opts ...SubscribeOption) iter.Seq2[Recovered[T], error] {
	return func(yield func(Recovered[T], error) bool) {
		how, err := subscribingOf(opts)
		if err != nil {
			yield(Recovered[T]{}, err)
			return
		}
		r := &recovery[T]{t: t, last: after, sub: newSubscriber(how.queue, DropNewest), recent: map[uint64]string{}}
		m := modeChannel
		if t.sharded {
			m = modeSharded
		}
		f, err := t.b.join(feedKey{m, t.channel}, r.sub)
		if err != nil {
			yield(Recovered[T]{}, wrapError(t.name, err))
			return
		}
		defer f.part(r.sub)
		if err := r.run(ctx, yield); err != nil && err != errStop { //nolint:errorlint // our own value
			yield(Recovered[T]{}, wrapError(t.name, err))
		}
	}
}

// errStop says that the loop was left.
var errStop = errors.New("stop")

// recovery is one subscription to a recoverable topic.
type recovery[T any] struct {
	t      *Recoverable[T]
	sub    *subscriber
	last   Position // what was yielded last
	recent map[uint64]string
	yield  func(Recovered[T], error) bool
}

// recentMost is how many nonces are remembered, to know what comes twice.
const recentMost = 2048

func (r *recovery[T]) run(ctx context.Context, yield func(Recovered[T], error) bool) error {
	r.yield = yield
	for {
		it, ok, err := r.sub.take()
		if err != nil {
			return err
		}
		if !ok {
			select {
			case <-r.sub.ready:
			case <-ctx.Done():
				return nil
			case <-r.t.b.life.Done():
				return ErrClosed
			}
			continue
		}
		switch it.kind {
		case EventMessage:
			err = r.live(ctx, it.raw)
		case EventInterrupted:
			err = r.tell(Recovered[T]{Kind: EventInterrupted})
		case EventSubscribed, EventGap:
			if err = r.catchUp(ctx); err == nil {
				err = r.tell(Recovered[T]{Kind: EventSubscribed})
			}
		case EventDropped: // the queue was too small; the history has them
			err = r.catchUp(ctx)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func (r *recovery[T]) tell(e Recovered[T]) error {
	e.Position = r.last
	if !r.yield(e, nil) {
		return errStop
	}
	return nil
}

// live takes a message as it was published.
func (r *recovery[T]) live(ctx context.Context, text string) error {
	at, payload, ok := parseLive(text)
	if !ok {
		return nil // somebody else's
	}
	switch {
	case at.Epoch == r.last.Epoch && at.Offset == r.last.Offset+1:
		return r.message(at, payload)
	case at.Epoch == r.last.Epoch && r.recent[at.Offset] == at.Nonce:
		return nil // it came from the history
	}
	return r.catchUp(ctx)
}

func (r *recovery[T]) message(at Position, payload string) error {
	r.last = at
	r.recent[at.Offset] = at.Nonce
	delete(r.recent, at.Offset-recentMost)
	e := Recovered[T]{Kind: EventMessage}
	var err error
	if e.Message, err = r.t.opt.Codec.Decode(payload); err != nil {
		e.Err = fmt.Errorf("%w: %w", ErrMalformed, err)
		r.t.b.event("malformed", 1)
	}
	r.t.b.event("received", 1)
	return r.tell(e)
}

func parseLive(text string) (p Position, payload string, ok bool) {
	rest, ok := strings.CutPrefix(text, "r1 ")
	if !ok {
		return p, "", false
	}
	line, payload, ok := strings.Cut(rest, "\n")
	parts := strings.Split(line, " ")
	if !ok || len(parts) != 3 {
		return p, "", false
	}
	n, err := strconv.ParseUint(parts[1], 10, 63)
	return Position{parts[0], n, parts[2]}, payload, err == nil
}

// page is how many messages of the history are read at once.
const page = 500

// catchUp yields what is in the history after the last one that was yielded. It
// tries again while Redis is away.
func (r *recovery[T]) catchUp(ctx context.Context) error {
	wait := retryFirst
	for {
		more, err := r.readPage(ctx)
		switch {
		case err == nil && !more:
			return nil
		case err == nil:
			wait = retryFirst
			continue
		case err == errStop || hopeless(err) || ctx.Err() != nil: //nolint:errorlint // our own value
			return err
		}
		var e *madcrow.Error
		if !errors.As(err, &e) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait = min(2*wait, retryMost)
	}
}

// readPage reads a part of the history. more is true when there may be more.
func (r *recovery[T]) readPage(ctx context.Context) (more bool, err error) {
	from := strconv.FormatUint(r.last.Offset, 10) + "-0"
	res, err := r.t.b.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
		return []madcrow.Command{
			b.Hmget().Key(r.t.meta).Field("e", "n").Build(),
			b.Xrange().Key(r.t.history).Start(from).End("+").Count(page).Build(),
			b.Xrevrange().Key(r.t.history).End("+").Start("-").Count(1).Build(),
		}
	})
	if err != nil {
		return false, err
	}
	top, err := r.top(res[0].Message, res[2].Message)
	if err != nil {
		return false, err
	}
	entries, err := res[1].Message.AsXRange()
	if err != nil && !rueidis.IsRedisNil(err) {
		return false, errors.Join(errReply, err)
	}
	if r.last == (Position{}) { // the present
		r.last = orStart(top)
		return false, nil
	}
	if top == (Position{}) && r.last.Epoch == anyEpoch {
		return false, nil // still nothing
	}
	if r.last.Epoch == anyEpoch {
		r.last.Epoch = top.Epoch
	}
	if !r.follows(top, entries) {
		r.t.b.event("history_lost", 1)
		r.last = orStart(top)
		clear(r.recent)
		return false, r.tell(Recovered[T]{Kind: EventHistoryLost, Err: ErrHistoryLost})
	}
	return r.yieldPage(entries)
}

func orStart(p Position) Position {
	if p == (Position{}) {
		return start
	}
	return p
}

// top is the newest message, or the place before the first.
func (r *recovery[T]) top(meta, newest madcrow.Message) (p Position, err error) {
	fields, err := meta.ToArray()
	if err != nil || len(fields) != 2 {
		return p, errors.Join(errReply, err)
	}
	if fields[0].IsNil() {
		return Position{}, nil // there is no history
	}
	if p.Epoch, err = fields[0].ToString(); err != nil {
		return p, errors.Join(errReply, err)
	}
	if !fields[1].IsNil() {
		n, err := fields[1].AsInt64()
		if err != nil {
			return p, errors.Join(errReply, err)
		}
		p.Offset = uint64(n)
	}
	if list, err := newest.AsXRange(); err == nil && len(list) == 1 {
		if at, _ := strconv.ParseUint(strings.TrimSuffix(list[0].ID, "-0"), 10, 63); at == p.Offset {
			p.Nonce = list[0].FieldValues["n"]
		}
	}
	return p, nil
}

// follows says whether the entries go on where the last one ended: the first of
// them must be that one itself, or the very first of all.
func (r *recovery[T]) follows(top Position, entries []rueidis.XRangeEntry) bool {
	switch {
	case top.Epoch != r.last.Epoch, top.Offset < r.last.Offset:
		return false
	case r.last.Offset == 0:
		return len(entries) > 0 && (entries[0].ID == "1-0" || r.last.Nonce != start.Nonce)
	case len(entries) == 0:
		return false
	}
	return entries[0].ID == strconv.FormatUint(r.last.Offset, 10)+"-0" && entries[0].FieldValues["n"] == r.last.Nonce
}

func (r *recovery[T]) yieldPage(entries []rueidis.XRangeEntry) (more bool, err error) {
	for _, entry := range entries {
		offset, err := strconv.ParseUint(strings.TrimSuffix(entry.ID, "-0"), 10, 63)
		if err != nil {
			return false, errors.Join(errReply, err)
		}
		if offset <= r.last.Offset {
			continue // the one that was yielded last
		}
		if err := r.message(Position{r.last.Epoch, offset, entry.FieldValues["n"]}, entry.FieldValues["d"]); err != nil {
			return false, err
		}
	}
	return len(entries) == page, nil
}
