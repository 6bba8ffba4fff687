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
type recovery[T any] struct {
	t     *Recoverable[T]
	sub   *subscriber
	last  Position // what was yielded last
	yield func(Recovered[T], error) bool

	behind   bool          // there may be something in the history; what comes is in it too
	announce bool          // when all of it is yielded, EventSubscribed is
	secret   secret        // of the history that is read
	firsts   []kept        // what may be the first of another history, while nothing was missed
	look     time.Time     // when the history is read because of what is not believed; zero: not
	looked   time.Time     // when that was done last
	doubt    time.Duration // how long it is not done again
	next     time.Time     // when the history is read again
	wait     time.Duration
	news     bool // the page that is read now, or one before it, had something
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
		case !r.behind && !r.look.IsZero() && !time.Now().Before(r.look):
			r.behind, r.next = true, time.Time{}
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
	at := r.look
	if r.behind {
		at = r.next
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
	case <-r.t.b.life.Done():
	}
}

func (r *recovery[T]) hear(it item) error {
	switch it.kind {
	case EventMessage:
		if !r.behind {
			return r.live(it.message)
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
func (r *recovery[T]) live(msg *message) error {
	m, ok := parseLive(msg.raw)
	switch {
	case !ok:
		return nil // somebody else's
	case m.at.Epoch == r.last.Epoch && m.at.Offset <= r.last.Offset:
		return nil // it came from the history
	case !r.secret.sealed(m, msg.digest(m.payload)):
		r.suspect(m, msg)
	case r.follows(m):
		m.at.Nonce = strings.Clone(m.at.Nonce) // without the payload behind it
		return r.message(m)
	default:
		r.behind = true
	}
	return nil
}

const (
	// mostDoubt bounds how rarely the history is read because of messages that
	// cannot be believed and are not in it.
	mostDoubt = time.Second
	// mostFirsts bounds what is remembered of them. Once there are so many the
	// history is read, which shows what they were, but not sooner than fullDoubt
	// after it was read last.
	mostFirsts = 256
	fullDoubt  = 100 * time.Millisecond
	// mostHead is more than a genuine one has before its seal.
	mostHead = 256
)

// suspect notes a message that cannot be believed: it may be of a history that
// is not known yet, or a forgery. The history tells.
func (r *recovery[T]) suspect(m kept, msg *message) {
	if m.at.Epoch == r.secret.epoch && r.secret.text != "" && mayHash {
		return // it is forged
	}
	if r.look.IsZero() {
		if r.look = time.Now(); r.looked.Add(r.doubt).After(r.look) {
			r.look = r.looked.Add(r.doubt)
		}
	}
	if m.at.Offset == 1 && m.before == "" && m.at.Epoch != r.last.Epoch && len(r.firsts) < mostFirsts && len(m.head) < mostHead && len(m.seal) == 2*sha1.Size {
		m.digest = msg.digest(m.payload)
		m.at.Epoch, m.head, m.seal, m.payload = strings.Clone(m.at.Epoch), strings.Clone(m.head), strings.Clone(m.seal), ""
		m.at.Nonce, m.before = "", "" // they stand in the head
		r.firsts = append(r.firsts, m)
	}
	if soon := r.looked.Add(fullDoubt); len(r.firsts) == mostFirsts && soon.Before(r.look) {
		r.look = soon
	}
}

// sawFirst says whether the first message of another history came while nothing
// was missed: then the one before had come to its end, and we were there.
func (r *recovery[T]) sawFirst(s secret) bool {
	for _, m := range r.firsts {
		if s.sealed(m, m.digest) {
			return true
		}
	}
	return false
}

// caughtUp notes that all of the history was read; news is whether there was
// anything new in it. Who sends one forgery after the other has it read more and
// more rarely.
func (r *recovery[T]) caughtUp(news bool) {
	r.behind, r.wait, r.firsts = false, retryFirst, nil
	if r.look.IsZero() {
		return
	}
	r.look, r.looked = time.Time{}, time.Now()
	switch {
	case !news:
		r.doubt = min(max(2*r.doubt, retryFirst), mostDoubt)
	case r.doubt <= retryFirst:
		r.doubt = 0
	default:
		r.doubt /= 2
	}
}

// kept is a message with its place.
type kept struct {
	at      Position
	before  string // the nonce of the one before it
	payload string

	// Of a message that was sent: what its seal is of, together with the digest
	// of the payload.
	head, seal string
	digest     *[sha256.Size]byte
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
	if !ok || len(line) > maxEnvelope {
		return m, false
	}
	parts := strings.SplitN(line, " ", 6)
	if len(parts) != 5 || parts[0] == "" || parts[2] == "" {
		return m, false
	}
	n, ok := parseNumber(parts[1])
	head := text[:len(text)-len(payload)-len("\n")-len(parts[4])-len(" ")]
	return kept{at: Position{parts[0], n, parts[2]}, before: parts[3], payload: payload, head: head, seal: parts[4]}, ok
}

// secret is what the seals of a history are made with. It stands beside the
// history, so that who may not read that cannot make one.
type secret struct{ epoch, text string }

// sealed says whether a message was sent by lua/publish.lua of this history.
func (s secret) sealed(m kept, digest *[sha256.Size]byte) bool {
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
	mostPage  = 500
	// bulkBytes is about how much is read at once of large messages, and
	// bulkWait how long that may take.
	bulkBytes = 4 << 20
	bulkWait  = 5 * time.Second
)

// catchUp reads a page of the history and yields what is after the last one
// that was yielded. While Redis is away it is tried again and again.
func (r *recovery[T]) catchUp(ctx context.Context) error {
	last := r.last
	more, err := r.readPage(ctx)
	r.news = r.news || r.last != last
	var e *madcrow.Error
	switch {
	case err == nil && more:
		r.wait = retryFirst
		return nil
	case err == nil:
		r.caughtUp(r.news)
		r.news = false
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
	top, list, now, seals, err := r.fetch(ctx)
	switch {
	case err != nil:
		return false, err
	case top.Epoch != now.Epoch:
		return true, nil // another history began just now
	case now == (Position{}):
		if now, seals = r.begin(ctx); now.Offset > 0 {
			return true, nil // somebody was faster
		}
	}
	r.secret = seals
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
	case r.last.Epoch != top.Epoch && r.sawFirst(seals):
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
func (r *recovery[T]) begin(ctx context.Context) (Position, secret) {
	m, err := r.t.b.r.Eval(ctx, scriptBegin, []string{r.t.meta, r.t.history}, []string{rand.Text()[:12], r.t.life(), rand.Text()})
	if err != nil {
		return Position{}, secret{}
	}
	p, s, _ := readTop(m)
	return p, s
}

// fetch reads messages after the last one that was yielded, and where the
// history ends before and after that.
func (r *recovery[T]) fetch(ctx context.Context) (top Position, list []kept, now Position, seals secret, err error) {
	redis := r.t.b.r
	meta := func(b madcrow.Builder) madcrow.Command {
		return b.Hmget().Key(r.t.meta).Field("e", "n", "x", "s").Build()
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
		return top, nil, now, seals, err
	}
	top, _, err1 := readTop(replies[0])
	now, seals, err2 := readTop(replies[2])
	entries, err := replies[1].AsXRange()
	if err != nil && !rueidis.IsRedisNil(err) || err1 != nil || err2 != nil {
		return top, nil, now, seals, errors.Join(errReply, err, err1, err2)
	}
	list = make([]kept, len(entries))
	for i, e := range entries {
		id, _, _ := strings.Cut(e.ID, "-")
		n, ok := parseNumber(id)
		if !ok {
			return top, nil, now, seals, errReply
		}
		list[i] = kept{at: Position{now.Epoch, n, e.FieldValues["n"]}, before: e.FieldValues["p"], payload: e.FieldValues["d"]}
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
