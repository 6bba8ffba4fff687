package httpcache

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/cachelimit"
	"github.com/madcrow-go/madcrow/problem"
)

// visit is one GET or HEAD on its way through the cache.
type visit struct {
	h    *Cache
	w    http.ResponseWriter
	r    *http.Request // as the handler may see it
	next http.Handler

	address
	authorization, cookie bool
	known                 []string // tags of the response, beside those of the URL
	all                   []string // both
	asks                  control  // what the client asks for, if that is obeyed
	obeys                 bool
	fwd                   string // why the request goes to the handler
}

// spot is where a response may be stored: under the key of the URL, or, where
// the responses vary, under one of its own.
type spot struct {
	key  string
	vary []string
	gen  string
}

type foundResponse = cache.Found[*storedResponse]

// maxLooks is how often a request looks at most: for the variants of a URL, and again where
// what it waited for is not for it.
const maxLooks = 8

// revalidatePassAfter is the minimum age of a hit-for-pass entry before one
// request checks it again.
const revalidatePassAfter = time.Second

func (h *Cache) get(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if h.bypassed(r) {
		h.forward(w, r, next, "fwd=bypass")
		return
	}
	r = h.cleaned(r)
	v := &visit{h: h, w: w, r: r, next: next, fwd: "fwd=uri-miss", obeys: h.opt.ObeyRequest}
	if h.opt.Tags != nil {
		v.known = h.opt.Tags(r)
		if cachelimit.TagProblem(v.known) != "" {
			h.event(r.Context(), madcrow.EventHTTPCacheBadTags, "") // what could not be removed is not stored
			h.forward(w, r, next, "fwd=bypass")
			return
		}
	}
	v.asks = parseControl(nil)
	if v.obeys {
		v.asks = parseControl(r.Header["Cache-Control"])
		v.asks.noCache = v.asks.noCache || r.Header["Cache-Control"] == nil && strings.Contains(strings.ToLower(r.Header.Get("Pragma")), "no-cache")
		if v.asks.noStore {
			h.forward(w, r, next, "fwd=request")
			return
		}
	}
	v.authorization, v.cookie = h.credentials(r)
	kind := keyAnonymous
	if v.authorization || v.cookie {
		kind = keyKnown
	}
	v.address = h.addressOf(r, kind)
	v.all = union(v.tags, v.known)
	v.serve()
}

// serve looks until there is a response.
func (v *visit) serve() {
	at := spot{key: v.key}
	for range maxLooks {
		f, err := v.h.engine.Lookup(v.r.Context(), at.key, v.all)
		if err != nil {
			if v.r.Context().Err() != nil {
				v.late()
				return
			}
			if errors.Is(err, cache.ErrClosed) || errors.Is(err, madcrow.ErrCanceled) {
				break // it says nothing of Redis
			}
			f = v.h.engine.LastKnown(at.key, v.all)
		}
		if f.Value == nil {
			f = foundResponse{}
		} else if !v.fits(f.Value) {
			at, v.fwd = v.variant(f.Value), "fwd=vary-miss"
			continue
		}
		how, newer := v.choose(f), false
		if f.Value != nil && f.Value.kind == kindPass && f.Value.status != 0 {
			newer = f.State == cache.Fresh // then what is there does not count
			f.State, f.Value = cache.Stale, f.Value.reserve()
		}
		switch how {
		case useHit:
			v.h.event(v.r.Context(), madcrow.EventHTTPCacheHit, v.h.engine.Tier(f))
			v.hit(f)
			return
		case useStale:
			v.hitAndReload(at, f, err, newer)
			return
		case useKept:
			v.h.servedStale(v.r.Context(), whileRevalidate, nil)
			v.hit(f)
			return
		}
		if v.asks.onlyIfCached {
			v.refuse("NOT_CACHED", "There is no stored response")
			return
		}
		if how == usePass {
			v.pass(f)
			return
		}
		if v.r.Method == http.MethodHead { // its response is not worth storing
			break
		}
		again, elsewhere := v.load(at, f, err, how, newer)
		if !again {
			return
		}
		if at = (spot{key: v.key}); elsewhere != nil {
			at, v.fwd = v.variant(elsewhere), "fwd=vary-miss"
		}
	}
	v.h.forward(v.w, v.r, v.next, v.fwd)
}

// hitAndReload serves a stale response while the handler makes a new one.
func (v *visit) hitAndReload(at spot, f foundResponse, readErr error, newer bool) {
	v.h.servedStale(v.r.Context(), whileRevalidate, nil)
	x := newExchange(v, at, f)
	x.detach()
	l := v.startLoad(at, f, readErr, x, newer)
	defer v.linger(x, l) // also when the client's writer panics
	v.hit(f)
}

// fits says whether what was found is about this request, and not about another
// variant of the URL.
func (v *visit) fits(s *storedResponse) bool {
	return s.kind != kindVary && (len(s.vary) == 0 || v.variant(s).key == s.variant)
}

// variant is where the response to this request is, as s knows it.
func (v *visit) variant(s *storedResponse) spot {
	return spot{key: v.h.variantKey(v.key, s.gen, s.vary, v.r.Header), vary: s.vary, gen: s.gen}
}

// use is what is done with what was found.
type use uint8

const (
	useNot       use = iota // load
	useHit                  // serve it
	useStale                // serve it, and load it again meanwhile
	usePass                 // hit-for-pass: the handler, at once
	usePassProbe            // hit-for-pass, but check whether it still is
	useReload               // load, though it is fresh
	useKept                 // serve it, though it is stale: it was tried just now
)

func (v *visit) choose(f foundResponse) use {
	s := f.Value
	switch {
	case f.State == cache.Missing:
		return useNot
	case s.kind == kindPass && f.State == cache.Fresh:
		v.fwd = "fwd=miss; detail=pass"
		probe := f.Age > revalidatePassAfter
		kept := s.swr > 0 && s.overdue(f.Age) <= s.swr
		if kept && v.asks.tooOld(s.age(f.Age), 0) {
			kept, v.fwd = false, "fwd=request"
		}
		switch {
		case kept && probe:
			return useStale
		case kept:
			return useKept
		case probe:
			return usePassProbe
		}
		return usePass
	case s.kind == kindPass && s.status != 0:
		s = s.reserve()
	case s.kind != kindResponse:
		return useNot
	}
	fresh, over := f.State == cache.Fresh, s.overdue(f.Age)
	if v.obeys {
		a := v.asks
		switch {
		case a.tooOld(s.age(f.Age), f.TTL):
			if v.fwd = "fwd=request"; !fresh {
				v.fwd = "fwd=stale"
			}
			return useReload
		case !fresh && a.maxStale >= over && !s.strict:
			return useHit
		}
	}
	switch {
	case fresh:
		return useHit
	case s.swr > 0 && over <= s.swr:
		return useStale
	}
	v.fwd = "fwd=stale"
	return useNot
}

// startLoad starts the load of a response, or joins the one that runs.
func (v *visit) startLoad(at spot, f foundResponse, readErr error, x *exchange, newer bool) cache.Loading[*storedResponse] {
	x.known, x.hinted = v.knownTags()
	x.tags = union(v.tags, x.known)
	return v.h.engine.Begin(v.r.Context(), cache.LoadRequest[*storedResponse]{
		Key: at.key, Tags: x.tags, Load: x.load, Newer: newer, Age: f.Age, ReadErr: readErr, StaleFor: x.staleFor(),
	})
}

// linger ends with the handler, if that runs for this request. The client has
// its answer.
func (v *visit) linger(x *exchange, l cache.Loading[*storedResponse]) {
	if !l.Leads() || v.h.opt.Detached {
		return
	}
	select {
	case <-l.Done():
	default:
		_ = http.NewResponseController(v.w).Flush()
		<-l.Done()
	}
	if x.retire() {
		<-x.done
	}
}

// load has the response loaded, by this request or another one, and serves it.
// again is true when what came is not for this request; elsewhere then says
// where it may be.
func (v *visit) load(at spot, f foundResponse, readErr error, how use, newer bool) (again bool, elsewhere *storedResponse) {
	if how == usePassProbe || how == useReload {
		newer = true // what is there does not count
	} else {
		v.h.event(v.r.Context(), madcrow.EventHTTPCacheMiss, strings.TrimPrefix(v.fwd, "fwd="))
	}
	x := newExchange(v, at, f)
	l := v.startLoad(at, f, readErr, x, newer)
	leads := l.Leads()
	defer v.linger(x, l)
	if !leads && how == usePassProbe {
		v.pass(f) // another one finds out
		return false, nil
	}
	res, err := l.Wait(v.r.Context())
	s := res.Value
	switch {
	case v.r.Context().Err() != nil: // no one waits any more, or not so long
		if _, streamed := x.settle(true); !streamed {
			v.late()
		}
		return false, nil
	case err != nil:
		v.failed(f, x, err)
		return false, nil
	case s.kind == kindResponse && v.fits(s):
		status := v.fwd + "; stored; ttl=" + wholeSeconds(res.TTL)
		if s.unstored || leads && res.Degraded {
			status = v.fwd
		}
		if !leads || res.Source != cache.SourceLoad {
			v.answer(s, res.Age, true, status+"; collapsed")
		} else if own, streamed := x.settle(true); !streamed {
			if own == nil {
				own = s
			}
			_, code := x.ran()
			v.answer(own, 0, false, status+code)
		}
		return false, nil
	}
	if own, streamed := x.settle(false); streamed || own != nil {
		if own != nil {
			v.answer(own, 0, false, v.fwd)
		}
		return false, nil
	}
	if s.kind == kindPass && v.fits(s) {
		v.fwd += "; collapsed=?0"
		v.alone(f)
		return false, nil
	}
	if s.kind == kindAgain {
		s = nil
	}
	return true, s
}

// failed serves what there is when a load came to nothing: the stale response
// where that is allowed, or what the handler says to this request.
func (v *visit) failed(f foundResponse, x *exchange, err error) {
	stale := x.canBeStale()
	own, streamed := x.settle(stale)
	switch {
	case streamed:
	case stale:
		v.h.servedStale(v.r.Context(), ifError, err)
		status := "hit"
		if asked, code := x.ran(); asked {
			status = v.fwd + code
		}
		v.answer(f.Value, f.Age, true, status+"; ttl="+wholeSeconds(-f.Value.overdue(f.Age)))
	case own != nil:
		v.answer(own, 0, false, v.fwd)
	default:
		v.h.forward(v.w, v.r, v.next, v.fwd)
	}
}

// hit serves what was found.
func (v *visit) hit(f foundResponse) {
	ttl := wholeSeconds(f.TTL)
	if f.State == cache.Stale {
		ttl = wholeSeconds(-f.Value.overdue(f.Age))
	}
	v.answer(f.Value, f.Age, true, "hit; ttl="+ttl)
}

func (v *visit) pass(f foundResponse) {
	v.h.event(v.r.Context(), madcrow.EventHTTPCachePass, "")
	v.alone(f)
}

// alone lets the handler answer this request; where it fails, the stale
// response is served if there is one.
func (v *visit) alone(f foundResponse) {
	x := newExchange(v, spot{key: v.key}, f)
	if !x.recorder.staleOK {
		v.h.forward(v.w, v.r, v.next, v.fwd)
		return
	}
	ctx, cancel := context.WithTimeout(v.r.Context(), v.h.opt.LoadTimeout)
	defer cancel()
	x.start(ctx)
	go x.run()
	if !v.h.opt.Detached {
		defer func() { <-x.done }()
	}
	x.wait()
	_, err := x.outcome(ctx)
	switch {
	case v.r.Context().Err() != nil: // no one waits any more
		x.settle(true)
	case err != nil:
		v.failed(f, x, err)
	default:
		if own, streamed := x.settle(false); !streamed && own != nil {
			v.answer(own, 0, false, v.fwd)
		}
	}
}

// late answers a request whose time is over.
func (v *visit) late() { v.refuse("CACHE_TIMEOUT", "Timed out loading the data") }

// refuse answers without a response: a 504.
func (v *visit) refuse(code, message string) {
	problem.Write(v.w, v.r, v.h.log, problem.New(http.StatusGatewayTimeout, code, message))
}

// forward lets the handler answer, without the cache.
func (h *Cache) forward(w http.ResponseWriter, r *http.Request, next http.Handler, status string) {
	h.status(w.Header(), status)
	next.ServeHTTP(w, r)
}

// status adds to the header Cache-Status (RFC 9211).
func (h *Cache) status(header http.Header, what string) {
	if h.opt.StatusName != "-" {
		header.Add("Cache-Status", h.opt.StatusName+"; "+what)
	}
}

func wholeSeconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

// answer serves a response. aged says that it was not made for this request.
func (v *visit) answer(s *storedResponse, stored time.Duration, aged bool, status string) {
	header := v.w.Header()
	merge(header, s.header, header["Vary"], header["Cache-Status"])
	v.h.status(header, status)
	age := s.age(stored)
	if aged || s.initialAge > 0 {
		header.Set("Age", wholeSeconds(age))
		if s.header["Date"] == nil {
			header.Set("Date", time.Now().Add(-age).UTC().Format(http.TimeFormat))
		}
	}
	if notModified(v.r, s, age) {
		answerNotModified(v.w)
		return
	}
	if bodyAllowed(s.status) {
		header.Set("Content-Length", strconv.Itoa(len(s.body)))
	}
	v.w.WriteHeader(s.status)
	if v.r.Method != http.MethodHead && len(s.body) > 0 {
		_, _ = v.w.Write(s.body) // where that fails the client has gone
	}
}

// merge puts a response's header over that which stands there already. What
// two may add to is added to.
func merge(to, from http.Header, vary, status []string) {
	total := 0
	for _, values := range from {
		total += len(values)
	}
	all := make([]string, 0, total) // one piece for all, and none of it shared
	for name, values := range from {
		start := len(all)
		all = append(all, values...)
		to[name] = all[start:len(all):len(all)]
	}
	if len(vary) > 0 && from["Vary"] != nil {
		to["Vary"] = slices.Concat(vary, from["Vary"])
	}
	if len(status) > 0 && from["Cache-Status"] != nil {
		to["Cache-Status"] = slices.Concat(status, from["Cache-Status"])
	}
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// knownTags are the tags of a load, known before it begins: those of the
// request, and those that the handler gave by header before. hinted is true
// where it did.
func (v *visit) knownTags() (tags []string, hinted bool) {
	if !v.h.taggers.Load() {
		return v.known, false
	}
	f, err := v.h.engine.Lookup(v.r.Context(), tagsKey(v.url), nil)
	if err != nil || f.State != cache.Fresh || f.Value == nil {
		return v.known, false
	}
	if all := union(v.known, f.Value.tags); len(all) < cachelimit.MaxTags {
		return all, true
	}
	return v.known, true
}

// union is a with what b has more.
func union(a, b []string) []string {
	all := slices.Clip(a)
	for _, s := range b {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

func tagsKey(key string) string { return "t|" + key }
