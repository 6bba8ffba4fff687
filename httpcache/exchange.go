package httpcache

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/cachelimit"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// exchange is one run of the handler in a load, and the ResponseWriter that it
// writes to. It begins by keeping the response. As soon as that turns out to be
// not shareable, too large or a stream, the handler goes on with the client of
// the request that leads the load, and the load is over; where that client has
// gone, or there was none, no one gets the rest.
type exchange struct {
	v       *visit
	at      spot
	old     foundResponse
	staleOK bool     // old may be served when the handler fails
	known   []string // the tags that are known before the handler runs,
	hinted  bool     // and it gave some of them before
	tags    []string // of the load

	req        *http.Request // what the handler gets, and may change
	asked      http.Header   // its header as it was
	fwd        string
	ctx        context.Context
	cancel     context.CancelFunc
	validating bool // the request asks whether old is still right
	varied     []string
	statuses   []string

	began time.Time

	over chan struct{} // closed when the load need not wait any more
	done chan struct{} // closed when the handler has returned

	mu       sync.Mutex
	phase    phase
	attached bool // there is a client who waits
	streamed bool // and gets what the handler writes
	expired  bool
	released bool
	unbind   []func() bool
	flushing bool // it becomes a stream if it goes on for long

	header   http.Header // the handler's
	status   int         // 0: not yet
	sent     http.Header // as it was then
	body     []byte
	ruling   ruling
	rec      *storedResponse // the response, when the handler has returned
	panicked any             // of the handler
	broken   any             // of the client's writer, here
}

type phase uint8

const (
	phaseIdle    phase = iota // the handler does not run
	phaseKeep                 // what it writes is kept
	phaseStream               // the client gets it
	phaseDiscard              // no one gets it
	phaseEnd                  // it has returned
)

var errHandler = errors.New("the handler failed")

// newExchange takes what it needs of the request: its client may be gone when
// the handler runs.
func newExchange(v *visit, at spot, f foundResponse) *exchange {
	x := &exchange{
		v: v, at: at, old: f, attached: true, header: http.Header{}, asked: v.r.Header.Clone(), fwd: v.fwd,
		began: time.Now(), over: make(chan struct{}), done: make(chan struct{}),
		varied: slices.Clone(v.w.Header()["Vary"]), statuses: slices.Clone(v.w.Header()["Cache-Status"]),
	}
	x.ctx, x.cancel = context.WithCancel(context.WithoutCancel(v.r.Context()))
	x.req = v.r.Clone(x.ctx)
	x.req.Method, x.req.Body = http.MethodGet, http.NoBody
	for _, name := range unseen {
		delete(x.req.Header, name)
	}
	if s := f.Value; f.State == cache.Stale && s.kind == kindResponse {
		x.staleOK = s.sie > 0 && s.overdue(f.Age) <= s.sie
		if tag := s.etag(); tag != "" && !s.ownTag {
			x.req.Header.Set("If-None-Match", tag)
			x.validating = true
		}
		if date := s.header.Get("Last-Modified"); date != "" {
			x.req.Header.Set("If-Modified-Since", date)
			x.validating = true
		}
	}
	return x
}

// load is the loader.
func (x *exchange) load(ctx context.Context, l *cache.Load[*storedResponse]) (*storedResponse, error) {
	x.mu.Lock()
	if x.phase != phaseIdle { // its request has ended
		x.mu.Unlock()
		return nil, errHandler
	}
	x.phase = phaseKeep
	x.unbind = append(x.unbind, context.AfterFunc(ctx, x.expire))
	x.mu.Unlock()
	go x.run()
	select {
	case <-x.done:
	case <-x.over:
	}
	s, err := x.outcome(ctx)
	if err != nil {
		return nil, err
	}
	s = x.placed(ctx, l, s)
	switch s.kind {
	case kindAgain:
		l.Skip()
	case kindPass:
		s = x.keeping(l, s)
		ttl, staleFor := x.v.h.opt.PassFor, max(0, s.fresh+max(s.swr, s.sie)-x.v.h.opt.PassFor)
		if !x.admit(ctx, l, ttl+staleFor) {
			l.Skip()
		}
		l.SetTTL(ttl)
		l.SetStaleFor(staleFor)
	default:
		ttl, staleFor := max(x.ruling.fresh, cachelimit.MinTTL), max(x.ruling.swr, x.ruling.sie)
		if s.unstored || !x.admit(ctx, l, ttl+staleFor) {
			s.unstored = true // placed made it
			l.Skip()
		}
		l.SetTTL(ttl)
		l.SetStaleFor(staleFor)
	}
	return s, nil
}

// keeping adds to a kindPass the stale response that was there: a refusal, or
// an answer for one client alone, does not take it away from the others. What was
// removed meanwhile stays so.
func (x *exchange) keeping(l *cache.Load[*storedResponse], pass *storedResponse) *storedResponse {
	f := x.old
	if f.State != cache.Stale || f.Value == nil || f.Value.kind != kindResponse {
		return pass
	}
	if x.v.h.engine.Removed(l, f) {
		return pass
	}
	p := *f.Value
	x.mu.Lock()
	if x.status == http.StatusNotFound || x.status == http.StatusGone { // that is of the page, not of a client
		p.swr = 0
	}
	x.mu.Unlock()
	return p.passing(f.Age + time.Since(x.began))
}

// outcome is the response if others may have it.
func (x *exchange) outcome(ctx context.Context) (*storedResponse, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.panicked != nil || x.status >= 500:
		return nil, errHandler
	case x.expired && (x.staleOK || !errors.Is(ctx.Err(), context.DeadlineExceeded)):
		return nil, cache.ErrLoadTimeout // what is stored is better than nothing
	case x.rec != nil && x.ruling.share:
		return x.rec, nil
	}
	return passResponse, nil
}

// placed is the response as it is stored, where it is stored. Where it cannot
// be, the next one can: its tags were not known before the handler ran, or it
// varies by more than was known.
func (x *exchange) placed(ctx context.Context, l *cache.Load[*storedResponse], rec *storedResponse) *storedResponse {
	if rec.kind != kindResponse {
		return rec
	}
	h, ru, known := x.v.h, x.ruling, x.known
	if all := union(ru.tags, known); len(union(known, ru.tags)) > len(known) {
		h.taggers.Store(true)
		if len(all) >= cachelimit.MaxTags {
			all = ru.tags
		}
		if !x.note(ctx, l, tagsKey(x.v.url), &storedResponse{kind: kindTags, tags: all}) || x.hinted {
			return passResponse // its tags change all the time: no one shall wait for that
		}
		return againResponse
	}
	s := *rec
	s.header = impersonal(rec.header)
	s.vary = ru.vary
	old, there := x.old.Value, x.v.h.engine.AtLease(l)
	if there == nil || old != nil && there.gen != old.gen {
		old = nil // it was removed while this waited, and its variants with it
	}
	switch {
	case x.at.vary != nil:
		s.vary, s.gen = union(x.at.vary, ru.vary), x.at.gen
		if slices.Sort(s.vary); len(s.vary) > len(x.at.vary) {
			if len(s.vary) > 2*maxVary || !x.note(ctx, l, x.v.key, &storedResponse{kind: kindVary, vary: s.vary, gen: rand.Text()}, x.tags...) {
				return passResponse
			}
			return againResponse
		}
	case len(s.vary) > 0 && old != nil && len(old.vary) > 0: // other variants stay known
		s.vary, s.gen = union(old.vary, ru.vary), old.gen
		slices.Sort(s.vary)
	case len(s.vary) > 0:
		s.gen = rand.Text()
	}
	if len(s.vary) > 0 {
		h.codings.learn(s.vary, x.asked, s.header)
		s.variant = h.variantKey(x.v.key, s.gen, s.vary, x.asked)
		// It is not where others would look for it: they have learnt the same.
		s.unstored = x.at.vary != nil && s.variant != x.at.key
	}
	return &s
}

// note stores what helps the next load. It holds nothing that could be out of
// date.
func (x *exchange) note(ctx context.Context, l *cache.Load[*storedResponse], key string, s *storedResponse, tags ...string) bool {
	return !x.v.h.engine.Degraded(l) && x.v.h.engine.Remember(ctx, key, s, max(x.v.h.opt.MaxTTL, time.Hour), tags) == nil
}

// run runs the handler.
func (x *exchange) run() {
	returned := false
	defer close(x.done)
	defer func() {
		p := recover()
		if !returned && p == nil {
			p = http.ErrAbortHandler // runtime.Goexit
		}
		x.finish(p)
	}()
	x.v.next.ServeHTTP(x, x.req)
	returned = true
}

// finish takes what the handler has written for the response.
func (x *exchange) finish(p any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	broken := guard.Call(func() error { // the client's writer and the options are users' code too
		x.conclude(p)
		return nil
	})
	if p == nil && broken != nil {
		p = broken
	}
	x.panicked = p
	if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this too
		x.v.h.log.Error("a handler panicked", "cache", x.v.h.engine.Name(), "panic", p, "stack", string(debug.Stack()))
	}
	x.phase = phaseEnd
	for _, unbind := range x.unbind {
		unbind()
	}
	x.cancel()
}

func (x *exchange) conclude(p any) {
	if p == nil && x.status == 0 && x.phase != phaseStream {
		x.writeHeader(http.StatusOK)
	}
	if p == nil && x.phase == phaseKeep {
		x.complete()
	}
	if x.phase == phaseStream {
		x.trail()
	}
}

// complete makes the response of what was kept.
func (x *exchange) complete() {
	length := x.sent.Get("Content-Length")
	switch {
	case x.status >= 500: // the stale one is served
	case x.validating && x.status == http.StatusNotModified:
		s := x.old.Value
		header := s.header.Clone()
		delete(header, "Date")
		for name, values := range x.sent {
			if !strings.HasPrefix(name, "Content-") {
				header[name] = values
			}
		}
		x.ruling = x.v.h.rule(x.v, s.status, header)
		x.record(s.status, header, s.body, s.ownTag)
	case length != "" && length != strconv.Itoa(len(x.body)), x.hasTrailers():
		x.pass()
	default:
		x.record(x.status, x.sent.Clone(), x.body, false)
	}
}

// record is the response as far as it is known here.
func (x *exchange) record(status int, header http.Header, body []byte, ownTag bool) {
	endToEnd(header)
	for _, name := range []string{"Content-Length", "Age"} {
		delete(header, name)
	}
	if _, set := header["Content-Type"]; !set && len(body) > 0 && header["Content-Encoding"] == nil {
		header.Set("Content-Type", http.DetectContentType(body))
	}
	if header["Etag"] == nil && status == http.StatusOK {
		header.Set("ETag", etagOf(body))
		ownTag = true
	}
	ru := &x.ruling
	x.rec = &storedResponse{
		kind: kindResponse, status: status, strict: ru.strict, ownTag: ownTag,
		fresh: ru.fresh, swr: ru.swr, sie: ru.sie, initialAge: ru.initialAge,
		header: header, body: body,
	}
}

func (x *exchange) hasTrailers() bool {
	for name := range x.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// trail hands over the trailers.
func (x *exchange) trail() {
	to := x.v.w.Header()
	if x.status == 0 {
		x.head(x.header)
	}
	for _, line := range x.sent["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); x.header[name] != nil {
				to[name] = x.header[name]
			}
		}
	}
	for name, values := range x.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			to[name] = values
		}
	}
}

// expire is called when the time for the load is over. A client who waits goes
// on waiting, as without the cache.
func (x *exchange) expire() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.phase == phaseKeep {
		x.expired = true
		if x.staleOK {
			x.phase = phaseDiscard
			x.release()
		} else {
			x.pass()
		}
	}
	if x.phase == phaseDiscard {
		x.cancel()
	}
}

// pass ends the load: no one else gets the response.
func (x *exchange) pass() {
	if x.attached {
		x.stream()
	} else {
		x.phase = phaseDiscard
	}
	x.release()
}

func (x *exchange) release() {
	if !x.released {
		x.released = true
		close(x.over)
	}
}

// stream lets the client have what was written and what comes. From now on it
// is the client's request that the handler's context follows.
func (x *exchange) stream() {
	x.phase, x.streamed = phaseStream, true
	x.unbind = append(x.unbind, context.AfterFunc(x.v.r.Context(), x.cancel))
	if x.status != 0 {
		x.handOver()
	}
	if x.flushing && x.broken == nil {
		_ = http.NewResponseController(x.v.w).Flush()
	}
	x.body = nil
}

// handOver writes what was kept. It runs in whatever goroutine; a panic belongs
// to that of the request.
func (x *exchange) handOver() {
	defer func() {
		if x.broken = recover(); x.broken != nil {
			x.cancel()
		}
	}()
	if x.validating && x.status == http.StatusNotModified {
		// The condition was not the client's.
		x.v.answer(x.old.Value, x.old.Age, true, x.fwd+"; fwd-status=304")
		x.phase = phaseDiscard // there is no more
		return
	}
	x.head(x.sent) // the handler may be changing its own
	x.v.w.WriteHeader(x.status)
	if len(x.body) > 0 {
		_, _ = x.v.w.Write(x.body)
	}
}

// head puts a header into the client's.
func (x *exchange) head(from http.Header) {
	to := x.v.w.Header()
	merge(to, from, x.varied, x.statuses)
	if from["Cache-Status"] == nil {
		delete(to, "Cache-Status")
		for _, line := range x.statuses {
			to.Add("Cache-Status", line)
		}
	}
	x.v.h.status(to, x.fwd)
}

// settle ends what the waiting request has to do with the handler. With giveUp
// it does not want the response; otherwise it gets it: streamed to its end, or
// as it was kept. A panic of the handler is raised again.
func (x *exchange) settle(giveUp bool) (rec *storedResponse, streamed bool) {
	x.mu.Lock()
	if x.phase == phaseKeep && !giveUp {
		x.stream()
		x.release()
	}
	if x.streamed {
		x.mu.Unlock()
		<-x.done
		for _, p := range []any{x.broken, x.panicked} {
			if p != nil {
				panic(p)
			}
		}
		return nil, true
	}
	x.attached = false
	rec, p := x.rec, x.panicked
	x.mu.Unlock()
	if p != nil && (!giveUp || p == http.ErrAbortHandler) { //nolint:errorlint // as above
		panic(p)
	}
	return rec, false
}

// ran says whether the handler ran, and what it said if that is not what the
// client gets, as a parameter of Cache-Status.
func (x *exchange) ran() (yes bool, code string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.status >= 500 || x.status == http.StatusNotModified {
		code = "; fwd-status=" + strconv.Itoa(x.status)
	}
	return x.phase != phaseIdle, code
}

// canBeStale says whether the stale response may be served in the place of the
// handler's.
func (x *exchange) canBeStale() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.staleOK
}

// decide is called with the handler's header: is it worth keeping the body?
func (x *exchange) decide() {
	x.sent = x.header.Clone()
	switch {
	case x.status >= 500:
		x.staleOK = x.staleOK && x.status != http.StatusNotImplemented && x.status <= http.StatusGatewayTimeout
		if !x.staleOK {
			x.pass()
		}
		return
	case x.validating && x.status == http.StatusNotModified:
		return
	}
	x.ruling = x.v.h.rule(x.v, x.status, x.sent)
	n, err := strconv.Atoi(x.sent.Get("Content-Length"))
	if !x.ruling.share || err == nil && n > x.v.h.opt.MaxBody {
		x.pass()
	}
}
