package pubsub

import (
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // see secret.sealed
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
)

// recovery is one subscription to a recoverable topic.
type historyReader[T any] struct {
	t        *Recoverable[T]
	sub      *subscriber
	position Position // what was yielded last
	yield    func(Recovered[T], error) bool

	behind      bool             // there may be something in the history; what comes is in it too
	announce    bool             // when all of it is yielded, EventSubscribed is
	secret      secret           // of the history that is read
	candidates  []historyMessage // what may be the first of another history, while nothing was missed
	verifyAt    time.Time        // when the history is read because of what is not believed; zero: not
	verifiedAt  time.Time        // when that was done last
	verifyDelay time.Duration    // how long it is not done again
	retryAt     time.Time        // when the history is read again
	retryDelay  time.Duration
	progress    bool // the page that is read now, or one before it, had something
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
		return r.emit(Recovered[T]{Kind: EventInterrupted})
	case EventSubscribed, EventGap:
		r.behind, r.announce, r.retryAt = true, true, time.Time{}
	case EventDropped: // the queue was too small; the history has them
		r.behind = true
	}
	return nil
}

func (r *historyReader[T]) emit(e Recovered[T]) error {
	e.Position = r.position
	if !r.yield(e, nil) {
		return errStop
	}
	return nil
}

// tellLost tells that there is a hole before a position.
func (r *historyReader[T]) emitHistoryLost(at Position) error {
	r.position = at
	r.t.b.event("history_lost", 1)
	return r.emit(Recovered[T]{Kind: EventHistoryLost, Err: ErrHistoryLost})
}

// live takes a message as it was published.
func (r *historyReader[T]) handleLive(msg *message) error {
	m, ok := parseLive(msg.raw)
	switch {
	case !ok:
		return nil // somebody else's
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
	// mostDoubt bounds how rarely the history is read because of messages that
	// cannot be believed and are not in it.
	maxVerifyDelay = time.Second
	// mostFirsts bounds what is remembered of them. Once there are so many the
	// history is read, which shows what they were, but not sooner than fullDoubt
	// after it was read last.
	maxCandidates  = 256
	minVerifyDelay = 100 * time.Millisecond
	// mostHead is more than a genuine one has before its seal.
	maxHead = 256
)

// suspect notes a message that cannot be believed: it may be of a history that
// is not known yet, or a forgery. The history tells.
func (r *historyReader[T]) noteUnverified(m historyMessage, msg *message) {
	if m.at.Epoch == r.secret.epoch && r.secret.text != "" && mayHash {
		return // it is forged
	}
	if r.verifyAt.IsZero() {
		if r.verifyAt = time.Now(); r.verifiedAt.Add(r.verifyDelay).After(r.verifyAt) {
			r.verifyAt = r.verifiedAt.Add(r.verifyDelay)
		}
	}
	if m.at.Offset == 1 && m.previous == "" && m.at.Epoch != r.position.Epoch && len(r.candidates) < maxCandidates && len(m.head) < maxHead && len(m.seal) == 2*sha1.Size {
		m.digest = msg.digest(m.payload)
		m.at.Epoch, m.head, m.seal, m.payload = strings.Clone(m.at.Epoch), strings.Clone(m.head), strings.Clone(m.seal), ""
		m.at.Nonce, m.previous = "", "" // they stand in the head
		r.candidates = append(r.candidates, m)
	}
	if soon := r.verifiedAt.Add(minVerifyDelay); len(r.candidates) == maxCandidates && soon.Before(r.verifyAt) {
		r.verifyAt = soon
	}
}

// sawFirst says whether the first message of another history came while nothing
// was missed: then the one before had come to its end, and we were there.
func (r *historyReader[T]) sawFirstOf(s secret) bool {
	for _, m := range r.candidates {
		if s.verifies(m, m.digest) {
			return true
		}
	}
	return false
}

// caughtUp notes that all of the history was read; news is whether there was
// anything new in it. Who sends one forgery after the other has it read more and
// more rarely.
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

// kept is a message with its place.
type historyMessage struct {
	at       Position
	previous string // the nonce of the one before it
	payload  string

	// Of a message that was sent: what its seal is of, together with the digest
	// of the payload.
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
	e := Recovered[T]{Kind: EventMessage}
	var err error
	if e.Message, err = decodeBy(r.t.opt.Codec, m.payload); err != nil {
		e.Err = fmt.Errorf("%w: %w", ErrMalformed, err)
		r.t.b.event("malformed", 1)
	}
	r.t.b.event("received", 1)
	return r.emit(e)
}

// parseLive reads what lua/publish.lua sends.
func parseLive(text string) (m historyMessage, ok bool) {
	rest, ok := strings.CutPrefix(text, "r1 ")
	if !ok {
		return m, false
	}
	line, payload, ok := strings.Cut(rest, "\n")
	if !ok || len(line) > maxEnvelope {
		return m, false
	}
	parts := strings.SplitN(line, " ", 6)
	if len(parts) != 5 || parts[0] == "" || parts[2] == "" {
		return m, false
	}
	n, ok := parseNumber(parts[1])
	head := text[:len(text)-len(payload)-len("\n")-len(parts[4])-len(" ")]
	return historyMessage{at: Position{parts[0], n, parts[2]}, previous: parts[3], payload: payload, head: head, seal: parts[4]}, ok
}

// secret is what the seals of a history are made with. It stands beside the
// history, so that who may not read that cannot make one.
type secret struct{ epoch, text string }

// sealed says whether a message was sent by lua/publish.lua of this history.
func (s secret) verifies(m historyMessage, digest *[sha256.Size]byte) bool {
	if s.text == "" || m.at.Epoch != s.epoch || len(m.seal) != 2*sha1.Size || !mayHash {
		return false
	}
	var room [512]byte
	text := append(append(append(room[:0], 'i'), s.text...), m.head...)
	text = hex.AppendEncode(append(text, ' '), digest[:])
	inner := sha1.Sum(text) //nolint:gosec // the hash that Redis has; in this use it is sound
	text = append(append(room[:0], 'o'), s.text...)
	outer := sha1.Sum(hex.AppendEncode(text, inner[:])) //nolint:gosec // as above
	text = hex.AppendEncode(room[:0], outer[:])
	differ := byte(0)
	for i, c := range text {
		differ |= c ^ m.seal[i]
	}
	return differ == 0
}

// mayHash is false where SHA-1 is forbidden (GODEBUG=fips140=only). Then every
// message is read from the history.
var mayHash = func() (may bool) {
	defer func() { may = recover() == nil }()
	sha1.Sum(nil) //nolint:gosec // as above
	return true
}()

// digest is the hash of the payload, made once for all who listen.
func (m *message) digest(payload string) *[sha256.Size]byte {
	if sum := m.sum.Load(); sum != nil {
		return sum
	}
	sum := sha256.Sum256([]byte(payload))
	m.sum.Store(&sum)
	return &sum
}

const (
	// firstPage is small: nobody knows yet how large the messages are, and other
	// calls wait behind them.
	firstPage = 4
	maxPage   = 500
	// bulkBytes is about how much is read at once of large messages, and
	// bulkWait how long that may take.
	bulkBytes   = 4 << 20
	bulkTimeout = 5 * time.Second
)

// catchUp reads a page of the history and yields what is after the last one
// that was yielded. While Redis is away it is tried again and again.
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
			return r.emit(Recovered[T]{Kind: EventSubscribed})
		}
		return nil
	case hopelessForWork(err) || !errors.As(err, &e):
		return err
	case e.Kind == madcrow.KindTimeout:
		r.shrinkPage()
	}
	r.retryAt, r.retryDelay = time.Now().Add(r.retryDelay), min(2*r.retryDelay, maxRetry)
	return nil
}

// tooMuch makes the next page smaller, and in the end has it read apart from
// other calls, and for longer.
func (r *historyReader[T]) shrinkPage() {
	r.bulk = r.bulk || r.pageSize == 1
	r.pageSize = max(1, r.pageSize/4)
}

// sized lets the pages fit the messages.
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
			return true, nil // somebody was faster
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
			return false, r.emitHistoryLost(now) // somebody took some out
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

// begin begins a history where there is none, so that a loss of all that comes
// next will be seen. It returns the place before its first message; the zero value
// where that cannot be.
func (r *historyReader[T]) beginHistory(ctx context.Context) (Position, secret) {
	m, err := r.t.b.r.Eval(ctx, scriptBegin, []string{r.t.meta, r.t.history}, []string{rand.Text()[:12], r.t.metaTTL(), rand.Text()})
	if err != nil {
		return Position{}, secret{}
	}
	p, s, _ := readTop(m)
	return p, s
}

// fetch reads messages after the last one that was yielded, and where the
// history ends before and after that.
func (r *historyReader[T]) fetch(ctx context.Context) (top Position, list []historyMessage, now Position, seals secret, err error) {
	redis := r.t.b.r
	meta := func(b madcrow.Builder) madcrow.Command {
		return b.Hmget().Key(r.t.meta).Field("e", "n", "x", "s").Build()
	}
	history := func(b madcrow.Builder) madcrow.Command {
		return b.Xrange().Key(r.t.history).Start(strconv.FormatUint(r.position.Offset+1, 10) + "-0").End("+").Count(int64(r.pageSize)).Build()
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
			replies[1], err = redis.DoBlocking(ctx, bulkTimeout, history)
		}
		if err == nil {
			replies[2], err = redis.Do(ctx, meta)
		}
	}
	if err != nil {
		return top, nil, now, seals, err
	}
	top, _, err1 := readTop(replies[0])
	now, seals, err2 := readTop(replies[2])
	entries, err := replies[1].AsXRange()
	if err != nil && !rueidis.IsRedisNil(err) || err1 != nil || err2 != nil {
		return top, nil, now, seals, errors.Join(errReply, err, err1, err2)
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

// readTop reads where the history ends, and its secret; the zero value is
// nowhere.
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
