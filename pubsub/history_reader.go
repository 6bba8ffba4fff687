package pubsub

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/codec"
)

// historyReader is one subscription to a recoverable topic: it merges the history
// with the messages as they come. It belongs to one goroutine.
type historyReader[T any] struct {
	t        *Recoverable[T]
	sub      *subscriber
	position Position // what was yielded last
	yield    func(Event[T], error) bool

	behind      bool             // the history has to be read; messages that come are in it too
	announce    bool             // when all of it is yielded, EventSubscribed is
	secret      secret           // of the history
	candidates  []historyMessage // unverified messages that may be the first of another history
	verifyAt    time.Time        // when the history is read because of unverified messages; zero: not
	verifiedAt  time.Time        // when that was done last
	verifyDelay time.Duration    // the least time until it is done again
	retryAt     time.Time        // when a failed read of the history is tried again
	retryDelay  time.Duration
	progress    bool // a page of the current reading had messages
	pageSize    int  // how many messages are read at once
	bulk        bool // they are large
}

func (r *historyReader[T]) run(ctx context.Context) (err error) {
	for err == nil {
		switch {
		case ctx.Err() != nil:
			return nil
		case r.t.b.ctx.Err() != nil:
			return ErrClosed
		case r.behind && !time.Now().Before(r.retryAt):
			err = r.catchUp(ctx)
			continue
		case !r.behind && !r.verifyAt.IsZero() && !time.Now().Before(r.verifyAt):
			r.behind, r.retryAt = true, time.Time{}
			continue
		}
		it, ok, over := r.sub.next()
		switch {
		case over != nil:
			return over
		case ok:
			err = r.handle(it)
		default:
			r.await(ctx)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// await waits until there is something to do.
func (r *historyReader[T]) await(ctx context.Context) {
	var due <-chan time.Time
	at := r.verifyAt
	if r.behind {
		at = r.retryAt
	}
	if !at.IsZero() {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-r.sub.ready:
	case <-due:
	case <-ctx.Done():
	case <-r.t.b.ctx.Done():
	}
}

func (r *historyReader[T]) handle(it item) error {
	switch it.kind {
	case EventMessage:
		if !r.behind {
			return r.handleLive(it.message)
		}
	case EventInterrupted:
		return r.emit(Event[T]{Kind: EventInterrupted})
	case EventSubscribed, EventGap:
		r.behind, r.announce, r.retryAt = true, true, time.Time{}
	case EventDropped: // the queue was too small; the history has them
		r.behind = true
	}
	return nil
}

func (r *historyReader[T]) emit(e Event[T]) error {
	e.Channel, e.Position = r.t.name, r.position
	if !r.yield(e, nil) {
		return errStop
	}
	return nil
}

// emitHistoryLost reports a hole before a position.
func (r *historyReader[T]) emitHistoryLost(at Position) error {
	r.position = at
	r.t.b.event(context.Background(), madcrow.EventPubSubHistoryLost, r.t.name, 1)
	return r.emit(Event[T]{Kind: EventHistoryLost, Err: ErrHistoryLost})
}

// handleLive handles a message as it was published.
func (r *historyReader[T]) handleLive(msg *message) error {
	m, ok := parseLive(msg.raw)
	switch {
	case !ok:
		return nil // not of this package
	case m.at.Epoch == r.position.Epoch && m.at.Offset <= r.position.Offset:
		return nil // it came from the history
	case !r.secret.verifies(m, msg.digest(m.payload)):
		r.noteUnverified(m, msg)
	case r.follows(m):
		m.at.Nonce = strings.Clone(m.at.Nonce) // without the payload behind it
		return r.emitMessage(m)
	default:
		r.behind = true
	}
	return nil
}

const (
	// maxVerifyDelay bounds how rarely the history is read because of unverified
	// messages that turn out not to be in it.
	maxVerifyDelay = time.Second
	// maxCandidates bounds the candidates. Once there are so many the history is
	// read, which shows what they were, but not sooner than minVerifyDelay after it
	// was read last.
	maxCandidates  = 256
	minVerifyDelay = 100 * time.Millisecond
	// maxHead is more than a genuine message has before its seal.
	maxHead = 256
)

// noteUnverified notes a message without a valid seal: it may be of a history that
// is not known yet, or a forgery. Reading the history decides.
func (r *historyReader[T]) noteUnverified(m historyMessage, msg *message) {
	if m.at.Epoch == r.secret.epoch && r.secret.text != "" && mayHash {
		return // it is forged
	}
	if r.verifyAt.IsZero() {
		if r.verifyAt = time.Now(); r.verifiedAt.Add(r.verifyDelay).After(r.verifyAt) {
			r.verifyAt = r.verifiedAt.Add(r.verifyDelay)
		}
	}
	if m.at.Offset == 1 && m.previous == "" && m.at.Epoch != r.position.Epoch && len(r.candidates) < maxCandidates && len(m.head) < maxHead && len(m.seal) == sealSize {
		m.digest = msg.digest(m.payload)
		m.at.Epoch, m.head, m.seal, m.payload = strings.Clone(m.at.Epoch), strings.Clone(m.head), strings.Clone(m.seal), ""
		m.at.Nonce, m.previous = "", "" // they stand in the head
		r.candidates = append(r.candidates, m)
	}
	if soon := r.verifiedAt.Add(minVerifyDelay); len(r.candidates) == maxCandidates && soon.Before(r.verifyAt) {
		r.verifyAt = soon
	}
}

// sawFirstOf says whether the first message of another history came while nothing
// was missed: then the history before had ended, and we had all of it.
func (r *historyReader[T]) sawFirstOf(s secret) bool {
	for _, m := range r.candidates {
		if s.verifies(m, m.digest) {
			return true
		}
	}
	return false
}

// caughtUp notes that all of the history was read; news is whether it had new
// messages. A sequence of forgeries has it read more and more rarely.
func (r *historyReader[T]) caughtUp(news bool) {
	r.behind, r.retryDelay, r.candidates = false, minRetry, nil
	if r.verifyAt.IsZero() {
		return
	}
	r.verifyAt, r.verifiedAt = time.Time{}, time.Now()
	switch {
	case !news:
		r.verifyDelay = min(max(2*r.verifyDelay, minRetry), maxVerifyDelay)
	case r.verifyDelay <= minRetry:
		r.verifyDelay = 0
	default:
		r.verifyDelay /= 2
	}
}

// historyMessage is a message with its position.
type historyMessage struct {
	at       Position
	previous string // the nonce of the one before it
	payload  string

	// Of a message that came over the channel: its seal, and the text that the seal
	// is of, together with the digest of the payload.
	head, seal string
	digest     *[sha256.Size]byte
}

// follows says whether a message comes right after the one that was yielded
// last: after that very one, not after another of the same offset.
func (r *historyReader[T]) follows(m historyMessage) bool {
	return m.at.Epoch == r.position.Epoch && m.at.Offset == r.position.Offset+1 && m.previous == r.position.Nonce
}

func (r *historyReader[T]) emitMessage(m historyMessage) error {
	m.at.Epoch = r.position.Epoch // the same, in a string that is there already
	r.position = m.at
	e := Event[T]{Kind: EventMessage}
	var err error
	if e.Message, err = codec.Decode(r.t.opt.Codec, m.payload); err != nil {
		e.Err = fmt.Errorf("%w: %w", ErrMalformed, err)
		r.t.b.event(context.Background(), madcrow.EventPubSubMalformed, r.t.name, 1)
	}
	r.t.b.event(context.Background(), madcrow.EventPubSubReceived, r.t.name, 1)
	return r.emit(e)
}

const (
	// firstPage is small: the size of the messages is not known yet, and other
	// calls wait behind them.
	firstPage = 4
	maxPage   = 500
	// bulkBytes is about how much is read at once of large messages, and
	// bulkTimeout how long that may take.
	bulkBytes   = 4 << 20
	bulkTimeout = 5 * time.Second
)

// catchUp reads a page of the history and yields the messages after the position.
// While Redis is away it is tried again.
func (r *historyReader[T]) catchUp(ctx context.Context) error {
	last := r.position
	more, err := r.readPage(ctx)
	r.progress = r.progress || r.position != last
	var e *madcrow.Error
	switch {
	case err == nil && more:
		r.retryDelay = minRetry
		return nil
	case err == nil:
		r.caughtUp(r.progress)
		r.progress = false
		if r.announce {
			r.announce = false
			return r.emit(Event[T]{Kind: EventSubscribed})
		}
		return nil
	case permanent(err) || !errors.As(err, &e):
		return err
	case e.Kind == madcrow.KindTimeout:
		r.shrinkPage()
	}
	r.retryAt, r.retryDelay = time.Now().Add(r.retryDelay), min(2*r.retryDelay, maxRetry)
	return nil
}

// shrinkPage makes the next page smaller, and in the end has it read on a
// connection of its own, and for longer.
func (r *historyReader[T]) shrinkPage() {
	r.bulk = r.bulk || r.pageSize == 1
	r.pageSize = max(1, r.pageSize/4)
}

// adaptPage lets the page size fit the size of the messages.
func (r *historyReader[T]) adaptPage(list []historyMessage) {
	if len(list) == 0 {
		return
	}
	size := 1
	for i := range list {
		size += len(list[i].payload)
	}
	each := max(1, size/len(list))
	most := r.t.b.bulkThreshold
	if r.bulk = each >= most; r.bulk {
		most = bulkBytes
	}
	r.pageSize = max(1, min(4*r.pageSize, most/each, maxPage))
}

// readPage reads a part of the history. more is true when there may be more.
func (r *historyReader[T]) readPage(ctx context.Context) (more bool, err error) {
	page := r.pageSize
	top, list, now, seals, err := r.fetch(ctx)
	switch {
	case err != nil:
		return false, err
	case top.Epoch != now.Epoch:
		return true, nil // another history began just now
	case now == (Position{}):
		if now, seals = r.beginHistory(ctx); now.Offset > 0 {
			return true, nil // another client was faster
		}
	}
	r.secret = seals
	switch {
	case r.position == (Position{}): // the present
		r.position = orStart(now)
		return false, nil
	case top == (Position{}) && r.position.Epoch == anyEpoch:
		r.position = orStart(now) // still nothing
		return false, nil
	case top == (Position{}):
		return false, r.emitHistoryLost(orStart(now))
	case r.position == Beginning && len(list) == 0: // nothing is kept
		r.position = top
		return false, nil
	case r.position == Beginning:
		r.position = Position{top.Epoch, list[0].at.Offset - 1, list[0].previous}
	case r.position == startPosition:
		r.position = Position{Epoch: top.Epoch}
	case r.position.Epoch != top.Epoch && r.sawFirstOf(seals):
		r.position = Position{Epoch: top.Epoch}
		return true, nil
	case r.position.Epoch != top.Epoch:
		return false, r.emitHistoryLost(now)
	}
	r.adaptPage(list)
	if len(list) == 0 && (top.Offset != r.position.Offset || top.Nonce != r.position.Nonce) || len(list) > 0 && !r.follows(list[0]) {
		return false, r.emitHistoryLost(now)
	}
	for _, m := range list {
		if !r.follows(m) {
			return false, r.emitHistoryLost(now) // some were removed
		}
		if err := r.emitMessage(m); err != nil {
			return false, err
		}
	}
	return len(list) == page, nil
}

func orStart(p Position) Position {
	if p == (Position{}) {
		return startPosition
	}
	return p
}

// beginHistory creates a history where there is none, so that a loss of all later
// messages will be seen. It returns the position before its first message; the zero
// value where it cannot be created. While a cluster moves the slot that is known
// after one round trip.
func (r *historyReader[T]) beginHistory(ctx context.Context) (Position, secret) {
	var m madcrow.Message
	err := r.t.b.r.SplitKeys(ctx, r.t.meta, func(ctx context.Context) (err error) {
		m, err = r.t.b.r.Eval(ctx, scriptBegin, []string{r.t.meta, r.t.history}, []string{rand.Text()[:12], r.t.metaTTL(), rand.Text()}).Message()
		return err
	}, nil)
	if err != nil {
		return Position{}, secret{}
	}
	p, s, _ := readTop(m)
	return p, s
}

// fetch reads messages after the position, and the end of the history before and
// after that.
func (r *historyReader[T]) fetch(ctx context.Context) (top Position, list []historyMessage, now Position, seals secret, err error) {
	redis := r.t.b.r
	meta := func() madcrow.Command {
		return redis.B().Hmget().Key(r.t.meta).Field("e", "n", "x", "s").Build()
	}
	history := func() madcrow.Command {
		return redis.B().Xrange().Key(r.t.history).Start(strconv.FormatUint(r.position.Offset+1, 10) + "-0").End("+").Count(int64(r.pageSize)).Build()
	}
	var replies [3]madcrow.Message
	if !r.bulk {
		var res []madcrow.Reply
		res, err = redis.DoMulti(ctx, meta(), history(), meta())
		for i := range res {
			replies[i], _ = res[i].Message()
		}
	} else {
		replies[0], err = redis.Do(ctx, meta()).Message()
		if err == nil {
			replies[1], err = redis.Do(ctx, history(), madcrow.Blocking(bulkTimeout)).Message()
		}
		if err == nil {
			replies[2], err = redis.Do(ctx, meta()).Message()
		}
	}
	if err != nil {
		return top, nil, now, seals, err
	}
	top, _, err1 := readTop(replies[0])
	now, seals, err2 := readTop(replies[2])
	if err1 != nil || err2 != nil {
		return top, nil, now, seals, errors.Join(errReply, err1, err2)
	}
	if replies[1].IsNil() {
		return top, nil, now, seals, nil
	}
	entries, err := replies[1].AsXRange()
	if err != nil {
		return top, nil, now, seals, errors.Join(errReply, err)
	}
	list = make([]historyMessage, len(entries))
	for i, e := range entries {
		id, _, _ := strings.Cut(e.ID, "-")
		n, ok := parseNumber(id)
		if !ok {
			return top, nil, now, seals, errReply
		}
		list[i] = historyMessage{at: Position{now.Epoch, n, e.FieldValues["n"]}, previous: e.FieldValues["p"], payload: e.FieldValues["d"]}
	}
	return top, list, now, seals, nil
}

// readTop reads the end of the history, and its secret; the zero value where there
// is none.
func readTop(meta madcrow.Message) (p Position, s secret, err error) {
	fields, err := meta.ToArray()
	if err != nil || len(fields) != 4 {
		return p, s, errors.Join(errReply, err)
	}
	if fields[0].IsNil() || fields[1].IsNil() || fields[2].IsNil() {
		return p, s, nil
	}
	p.Epoch, err = fields[0].ToString()
	n, err1 := fields[1].AsUint64()
	nonce, err2 := fields[2].ToString()
	p.Offset, p.Nonce = n, nonce
	if s.epoch = p.Epoch; !fields[3].IsNil() {
		s.text, _ = fields[3].ToString()
	}
	return p, s, errors.Join(err, err1, err2)
}
