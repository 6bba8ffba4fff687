package pubsub

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
)

// recovery is one subscription to a recoverable topic.
type recovery[T any] struct {
	t     *Recoverable[T]
	sub   *subscriber
	last  Position // what was yielded last
	yield func(Recovered[T], error) bool

	behind   bool      // there may be something in the history; what comes is in it too
	announce bool      // when all of it is yielded, EventSubscribed is
	began    string    // a history whose first message came while nothing was missed
	next     time.Time // when the history is read again
	wait     time.Duration
	page     int  // how many messages are read at once
	bulk     bool // they are large
}

func (r *recovery[T]) run(ctx context.Context) (err error) {
	for err == nil {
		switch {
		case ctx.Err() != nil:
			return nil
		case r.t.b.life.Err() != nil:
			return ErrClosed
		case r.behind && !time.Now().Before(r.next):
			err = r.catchUp(ctx)
			continue
		}
		it, ok, over := r.sub.take()
		switch {
		case over != nil:
			return over
		case ok:
			err = r.hear(it)
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
func (r *recovery[T]) await(ctx context.Context) {
	var due <-chan time.Time
	if r.behind {
		timer := time.NewTimer(time.Until(r.next))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-r.sub.ready:
	case <-due:
	case <-ctx.Done():
	case <-r.t.b.life.Done():
	}
}

func (r *recovery[T]) hear(it item) error {
	switch it.kind {
	case EventMessage:
		if !r.behind {
			return r.live(it.message.raw)
		}
	case EventInterrupted:
		return r.tell(Recovered[T]{Kind: EventInterrupted})
	case EventSubscribed, EventGap:
		r.behind, r.announce, r.next = true, true, time.Time{}
	case EventDropped: // the queue was too small; the history has them
		r.behind = true
	}
	return nil
}

func (r *recovery[T]) tell(e Recovered[T]) error {
	e.Position = r.last
	if !r.yield(e, nil) {
		return errStop
	}
	return nil
}

// tellLost tells that there is a hole before a position.
func (r *recovery[T]) tellLost(at Position) error {
	r.last = at
	r.t.b.event("history_lost", 1)
	return r.tell(Recovered[T]{Kind: EventHistoryLost, Err: ErrHistoryLost})
}

// live takes a message as it was published.
func (r *recovery[T]) live(text string) error {
	m, ok := parseLive(text)
	switch {
	case !ok:
		return nil // somebody else's
	case r.follows(m):
		m.at.Nonce = strings.Clone(m.at.Nonce) // without the payload behind it
		return r.message(m)
	case m.at.Epoch == r.last.Epoch && m.at.Offset <= r.last.Offset:
		return nil // it came from the history
	}
	r.behind = true
	if m.at.Offset == 1 { // the history before had come to its end, and we were there
		r.began = strings.Clone(m.at.Epoch)
	}
	return nil
}

// kept is a message with its place.
type kept struct {
	at      Position
	before  string // the nonce of the one before it
	payload string
}

// follows says whether a message comes right after the one that was yielded
// last: after that very one, not after another of the same offset.
func (r *recovery[T]) follows(m kept) bool {
	return m.at.Epoch == r.last.Epoch && m.at.Offset == r.last.Offset+1 && m.before == r.last.Nonce
}

func (r *recovery[T]) message(m kept) error {
	m.at.Epoch = r.last.Epoch // the same, in a string that is there already
	r.last = m.at
	e := Recovered[T]{Kind: EventMessage}
	var err error
	if e.Message, err = decodeBy(r.t.opt.Codec, m.payload); err != nil {
		e.Err = fmt.Errorf("%w: %w", ErrMalformed, err)
		r.t.b.event("malformed", 1)
	}
	r.t.b.event("received", 1)
	return r.tell(e)
}

// parseLive reads what lua/publish.lua sends.
func parseLive(text string) (m kept, ok bool) {
	rest, ok := strings.CutPrefix(text, "r1 ")
	if !ok {
		return m, false
	}
	line, payload, ok := strings.Cut(rest, "\n")
	parts := strings.Split(line, " ")
	if !ok || len(parts) != 4 || parts[0] == "" || parts[2] == "" {
		return m, false
	}
	n, ok := parseNumber(parts[1])
	return kept{Position{parts[0], n, parts[2]}, parts[3], payload}, ok
}

const (
	// firstPage is small: nobody knows yet how large the messages are, and other
	// calls wait behind them.
	firstPage = 4
	mostPage  = 500
	// bulkBytes is about how much is read at once of large messages, and
	// bulkWait how long that may take.
	bulkBytes = 4 << 20
	bulkWait  = 5 * time.Second
)

// catchUp reads a page of the history and yields what is after the last one
// that was yielded. While Redis is away it is tried again and again.
func (r *recovery[T]) catchUp(ctx context.Context) error {
	more, err := r.readPage(ctx)
	var e *madcrow.Error
	switch {
	case err == nil && more:
		r.wait = retryFirst
		return nil
	case err == nil:
		r.behind, r.wait = false, retryFirst
		if r.announce {
			r.announce = false
			return r.tell(Recovered[T]{Kind: EventSubscribed})
		}
		return nil
	case hopelessForWork(err) || !errors.As(err, &e):
		return err
	case e.Kind == madcrow.KindTimeout:
		r.tooMuch()
	}
	r.next, r.wait = time.Now().Add(r.wait), min(2*r.wait, retryMost)
	return nil
}

// tooMuch makes the next page smaller, and in the end has it read apart from
// other calls, and for longer.
func (r *recovery[T]) tooMuch() {
	r.bulk = r.bulk || r.page == 1
	r.page = max(1, r.page/4)
}

// sized lets the pages fit the messages.
func (r *recovery[T]) sized(list []kept) {
	if len(list) == 0 {
		return
	}
	size := 1
	for i := range list {
		size += len(list[i].payload)
	}
	each := max(1, size/len(list))
	most := r.t.b.bulk
	if r.bulk = each >= most; r.bulk {
		most = bulkBytes
	}
	r.page = max(1, min(4*r.page, most/each, mostPage))
}

// readPage reads a part of the history. more is true when there may be more.
func (r *recovery[T]) readPage(ctx context.Context) (more bool, err error) {
	page := r.page
	top, list, now, err := r.fetch(ctx)
	switch {
	case err != nil:
		return false, err
	case top.Epoch != now.Epoch:
		return true, nil // another history began just now
	case now == (Position{}):
		if now = r.begin(ctx); now.Offset > 0 {
			return true, nil // somebody was faster
		}
	}
	switch {
	case r.last == (Position{}): // the present
		r.last = orStart(now)
		return false, nil
	case top == (Position{}) && r.last.Epoch == anyEpoch:
		r.last = orStart(now) // still nothing
		return false, nil
	case top == (Position{}):
		return false, r.tellLost(orStart(now))
	case r.last == Beginning && len(list) == 0: // nothing is kept
		r.last = top
		return false, nil
	case r.last == Beginning:
		r.last = Position{top.Epoch, list[0].at.Offset - 1, list[0].before}
	case r.last == start:
		r.last = Position{Epoch: top.Epoch}
	case r.last.Epoch != top.Epoch && r.began == top.Epoch:
		r.last = Position{Epoch: top.Epoch}
		return true, nil
	case r.last.Epoch != top.Epoch:
		return false, r.tellLost(now)
	}
	r.sized(list)
	if len(list) == 0 && (top.Offset != r.last.Offset || top.Nonce != r.last.Nonce) || len(list) > 0 && !r.follows(list[0]) {
		return false, r.tellLost(now)
	}
	for _, m := range list {
		if !r.follows(m) {
			return false, r.tellLost(now) // somebody took some out
		}
		if err := r.message(m); err != nil {
			return false, err
		}
	}
	return len(list) == page, nil
}

func orStart(p Position) Position {
	if p == (Position{}) {
		return start
	}
	return p
}

// begin begins a history where there is none, so that a loss of all that comes
// next will be seen. It returns the place before its first message; the zero value
// where that cannot be.
func (r *recovery[T]) begin(ctx context.Context) Position {
	m, err := r.t.b.r.Eval(ctx, scriptBegin, []string{r.t.meta, r.t.history}, []string{rand.Text()[:12], r.t.life()})
	if err != nil {
		return Position{}
	}
	p, _ := readTop(m)
	return p
}

// fetch reads messages after the last one that was yielded, and where the
// history ends before and after that.
func (r *recovery[T]) fetch(ctx context.Context) (top Position, list []kept, now Position, err error) {
	redis := r.t.b.r
	meta := func(b madcrow.Builder) madcrow.Command {
		return b.Hmget().Key(r.t.meta).Field("e", "n", "x").Build()
	}
	history := func(b madcrow.Builder) madcrow.Command {
		return b.Xrange().Key(r.t.history).Start(strconv.FormatUint(r.last.Offset+1, 10) + "-0").End("+").Count(int64(r.page)).Build()
	}
	var replies [3]madcrow.Message
	if !r.bulk {
		var res []madcrow.Result
		res, err = redis.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
			return []madcrow.Command{meta(b), history(b), meta(b)}
		})
		for i := range res {
			replies[i] = res[i].Message
		}
	} else {
		replies[0], err = redis.Do(ctx, meta)
		if err == nil {
			replies[1], err = redis.DoBlocking(ctx, bulkWait, history)
		}
		if err == nil {
			replies[2], err = redis.Do(ctx, meta)
		}
	}
	if err != nil {
		return top, nil, now, err
	}
	top, err1 := readTop(replies[0])
	now, err2 := readTop(replies[2])
	entries, err := replies[1].AsXRange()
	if err != nil && !rueidis.IsRedisNil(err) || err1 != nil || err2 != nil {
		return top, nil, now, errors.Join(errReply, err, err1, err2)
	}
	list = make([]kept, len(entries))
	for i, e := range entries {
		id, _, _ := strings.Cut(e.ID, "-")
		n, ok := parseNumber(id)
		if !ok {
			return top, nil, now, errReply
		}
		list[i] = kept{Position{now.Epoch, n, e.FieldValues["n"]}, e.FieldValues["p"], e.FieldValues["d"]}
	}
	return top, list, now, nil
}

// readTop reads where the history ends; the zero value is nowhere.
func readTop(meta madcrow.Message) (p Position, err error) {
	fields, err := meta.ToArray()
	if err != nil || len(fields) != 3 {
		return p, errors.Join(errReply, err)
	}
	if fields[0].IsNil() || fields[1].IsNil() || fields[2].IsNil() {
		return p, nil
	}
	p.Epoch, err = fields[0].ToString()
	n, err1 := fields[1].AsUint64()
	nonce, err2 := fields[2].ToString()
	p.Offset, p.Nonce = n, nonce
	return p, errors.Join(err, err1, err2)
}
