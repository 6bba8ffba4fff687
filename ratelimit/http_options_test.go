package ratelimit_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// events counts what is reported.
type events struct {
	madcrow.NopRecorder
	sync.Mutex
	n map[string]int
}

func (e *events) Event(_ context.Context, ev madcrow.Event) {
	e.Lock()
	defer e.Unlock()
	if ev.Type.Package() == "ratelimit" {
		e.n[ev.Type.Name()] += ev.N
	}
}

// take returns what was counted since the last time.
func (e *events) take() string {
	e.Lock()
	defer e.Unlock()
	text := fmt.Sprint(e.n)
	e.n = map[string]int{}
	return text
}

func openRecorded(t *testing.T) (*madcrow.Redis, *events) {
	e := &events{n: map[string]int{}}
	cfg := config
	cfg.KeyPrefix, cfg.Recorder = fmt.Sprintf("%s:%d:", t.Name(), time.Now().UnixNano()), e
	return openConfig(t, cfg), e
}

func ranges(t *testing.T, texts ...string) []netip.Prefix {
	t.Helper()
	return must[[]netip.Prefix](t)(clientip.ParseRanges(texts...))
}

func TestMiddleware_ShadowCountsAndRefusesNothing(t *testing.T) {
	r, e := openRecorded(t)
	l := newLimit(t, r, "x", ratelimit.PerMinute(2), madcrow.FailClosed)
	var seen []bool
	w := newWeb(t, l, ratelimit.ByHeader("User"), ratelimit.MiddlewareOptions{Shadow: true, Deny: ranges(t, "198.51.100.0/24"), Client: clientip.RemoteAddr(), OnDecision: func(_ *http.Request, d ratelimit.Decision) { seen = append(seen, d.Allowed) }})
	for i := range 5 {
		w.get("User", "a").want(204, "").has("Retry-After", "")
		if w.last.Allowed != (i < 2) {
			t.Errorf("%+v", w.last)
		}
	}
	if got := fmt.Sprint(seen); got != "[true true false false false]" {
		t.Errorf("got %s", got)
	}
	if got := e.take(); got != "map[allowed:2 denied:1 denied_locally:2 shadow_denied:3]" {
		t.Errorf("counted %s", got)
	}
	w.get().want(204, "")
	if w.found {
		t.Errorf("a decision about no client: %+v", w.last)
	}
	w.get("User", "a", "addr", "198.51.100.7:1").want(204, "")
	if got := e.take(); got != "map[denied_by_list:1 shadow_denied:1 unkeyed:1]" {
		t.Errorf("counted %s", got)
	}
}

func TestMiddleware_ListsAndSkip(t *testing.T) {
	r, e := openRecorded(t)
	w := newWeb(t, newLimit(t, r, "x", ratelimit.PerMinute(1), madcrow.FailClosed), byAddress(), ratelimit.MiddlewareOptions{Skip: func(r *http.Request) bool { return r.URL.Path == "/livez" }, Deny: append(ranges(t, "198.51.100.0/24", "2001:db8:bad::/48"), netip.MustParsePrefix("::ffff:192.0.2.0/120")), Client: clientip.RemoteAddr(), Allow: ranges(t, "10.0.0.0/8", "198.51.100.7")})
	for range 3 {
		w.get("addr", "10.1.2.3:1").want(204, "").has("RateLimit", "", "RateLimit-Policy", "")
		if !w.last.Allowed || w.last.Source != ratelimit.SourceBypass {
			t.Errorf("allowed: %+v", w.last)
		}
	}
	passed := w.passed.Load()
	for _, addr := range []string{"198.51.100.8:1", "198.51.100.7:1", "[2001:db8:bad::1]:1", "[::ffff:198.51.100.8]:1", "192.0.2.200:1"} {
		w.get("addr", addr).want(403, "CLIENT_DENIED").has("RateLimit", "")
	}
	w.get("addr", "@").want(400, "CLIENT_UNKNOWN")
	if w.passed.Load() != passed {
		t.Error("a denied client passed")
	}
	w.get("addr", "@", "path", "/livez").want(204, "")
	w.get("addr", "198.51.100.8:1", "path", "/livez").want(204, "")
	if got := e.take(); got != "map[bypassed:5 denied_by_list:5 unkeyed:1]" {
		t.Errorf("counted %s", got)
	}
	w.get().want(204, "")
	w.get().want(429, "QUOTA_EXCEEDED")

	// An empty list asks for no address, and who has none is not allowed for it.
	w = newWeb(t, newLimit(t, r, "y", ratelimit.PerMinute(1), madcrow.FailClosed), ratelimit.ByHeader("User"), ratelimit.MiddlewareOptions{Allow: ranges(t, "10.0.0.0/8"), Client: clientip.RemoteAddr()})
	if w.get("addr", "@", "User", "a").want(204, ""); w.last.Source != ratelimit.SourceRedis {
		t.Errorf("without an address: %+v", w.last)
	}
}

func TestMiddleware_RoutesHaveLimitsOfTheirOwn(t *testing.T) {
	r := openAgain(t)
	api := newLimit(t, r, "api", ratelimit.PerMinute(100), madcrow.FailClosed)
	login := newLimit(t, r, "login", ratelimit.PerMinute(1), madcrow.FailClosed)
	group := must[*ratelimit.Group](t)(ratelimit.Join(newLimit(t, r, "a", ratelimit.PerMinute(3), madcrow.FailClosed), newLimit(t, r, "b", ratelimit.PerDay(9), madcrow.FailClosed)))
	routes := ratelimit.MiddlewareOptions{Routes: map[string]ratelimit.Limit{"POST /login/{user}": login, "GET /items/{id}": group}}
	by := ratelimit.ByAll(byAddress(), ratelimit.ByPath())
	ask := func(w *web, method, path string) *reply {
		t.Helper()
		return w.do(httptest.NewRequest(method, path, nil))
	}
	check := func(w *web) {
		t.Helper()
		ask(w, "POST", "/login/alice").want(204, "").has("RateLimit-Policy", `"login";q=1;w=60`)
		ask(w, "POST", "/login/bob").want(429, "QUOTA_EXCEEDED") // the route is the key, not the path
		ask(w, "GET", "/items/7").want(204, "").has("RateLimit-Policy", `"a";q=3;w=60, "b";q=9;w=86400`)
		ask(w, "GET", "/items/8").want(204, "").has("RateLimit", `"a";r=1;t=20, "b";r=7;t=67200`)
		ask(w, "GET", "/").want(204, "").has("RateLimit-Policy", `"api";q=100;w=60`)
	}
	register := func(wrap func(http.Handler) http.Handler, h http.Handler) *http.ServeMux {
		mux := http.NewServeMux()
		for _, pattern := range []string{"POST /login/{user}", "GET /items/{id}", "GET /{$}"} {
			mux.Handle(pattern, wrap(h))
		}
		return mux
	}
	t.Run("inside the mux", func(t *testing.T) {
		w := &web{t: t}
		w.handler = register(ratelimit.Middleware(api, by, routes), w)
		check(w)
	})
	for _, l := range []interface {
		Reset(context.Context, string) error
	}{login, group, api} {
		for _, pattern := range []string{"POST /login/{user}", "GET /items/{id}", "GET /{$}"} {
			if err := l.Reset(t.Context(), fmt.Sprintf("9:192.0.2.1,%d:%s", len(pattern), pattern)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("outside, with the mux", func(t *testing.T) {
		w := &web{t: t}
		mux := register(func(h http.Handler) http.Handler { return h }, w)
		limited := ratelimit.Middleware(api, by, ratelimit.MiddlewareOptions{Routes: routes.Routes, Mux: mux})(mux)
		var pattern string // what a log outside sees
		w.handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			limited.ServeHTTP(rw, r)
			pattern = r.Pattern
		})
		check(w)
		if pattern != "GET /{$}" {
			t.Errorf("outside the pattern is %q", pattern)
		}
		// Paths that no route has are one subject.
		for i := range 3 {
			r := httptest.NewRecorder()
			limited.ServeHTTP(r, httptest.NewRequest("GET", fmt.Sprintf("/none/%d", i), nil))
			if left := fmt.Sprintf(`"api";r=%d;`, 99-i); r.Code != 404 || !strings.HasPrefix(r.Header().Get("RateLimit"), left) {
				t.Errorf("%d %v, want %s", r.Code, r.Header(), left)
			}
		}
	})
	t.Run("outside, without the mux", func(t *testing.T) {
		w := newWeb(t, api, by, routes)
		ask(w, "POST", "/login/alice").want(500, "LIMIT_MISPLACED")
		if w.passed.Load() != 0 {
			t.Error("passed without its limit")
		}
	})
}

func TestMiddleware_RefusesWhatCannotKeepALimit(t *testing.T) {
	r := openAgain(t)
	l := newLimit(t, r, "x", ratelimit.PerMinute(10), madcrow.FailClosed)
	twins := must[*ratelimit.Group](t)(ratelimit.Join(l, newLimit(t, r, "x", ratelimit.PerMinute(10), madcrow.FailClosed, ratelimit.Options{Algorithm: ratelimit.SortedSetLog()})))
	noPolicy, remote := clientip.Policy{}, clientip.RemoteAddr()
	with := func(limit ratelimit.Limit, by ratelimit.Key, opts ...ratelimit.MiddlewareOptions) func() {
		return func() { ratelimit.Middleware(limit, by, first(opts)) }
	}
	for name, f := range map[string]func(){
		"no limit":                with(nil, byAddress()),
		"nil limiter":             with((*ratelimit.Limiter)(nil), byAddress()),
		"zero limiter":            with(&ratelimit.Limiter{}, byAddress()),
		"nil bucket":              with((*ratelimit.TokenBucket)(nil), byAddress()),
		"zero bucket":             with(&ratelimit.TokenBucket{}, byAddress()),
		"nil group":               with((*ratelimit.Group)(nil), byAddress()),
		"zero group":              with(&ratelimit.Group{}, byAddress()),
		"one name twice":          with(twins, byAddress()),
		"zero key":                with(l, ratelimit.Key{}),
		"both costs":              with(l, byAddress(), ratelimit.MiddlewareOptions{Cost: func(*http.Request) int64 { return 1 }, Costs: func(*http.Request) []int64 { return nil }}),
		"nil route":               with(l, byAddress(), ratelimit.MiddlewareOptions{Routes: map[string]ratelimit.Limit{"/": nil}}),
		"empty route":             with(l, byAddress(), ratelimit.MiddlewareOptions{Routes: map[string]ratelimit.Limit{"": l}}),
		"no route":                with(l, byAddress(), ratelimit.MiddlewareOptions{Routes: map[string]ratelimit.Limit{"/{": l}, Mux: http.NewServeMux()}),
		"nil handler":             func() { ratelimit.Middleware(l, byAddress(), ratelimit.MiddlewareOptions{})(nil) },
		"client without a policy": func() { ratelimit.ByClient(noPolicy) },
		"header Host":             func() { ratelimit.ByHeader("host") },
		"header of addresses":     func() { ratelimit.ByHeader("x-forwarded-for") },
		"empty header":            func() { ratelimit.ByHeader("") },
		"header with a colon":     func() { ratelimit.ByHeader("X-Key:") },
		"or the zero key":         func() { ratelimit.ByHeaderOr("X-Key", ratelimit.Key{}) },
		"nil function":            func() { ratelimit.ByFunc(nil) },
		"all of none":             func() { ratelimit.ByAll() },
		"all with a zero key":     func() { ratelimit.ByAll(byAddress(), ratelimit.Key{}) },
		"deny without a policy":   with(l, byAddress(), ratelimit.MiddlewareOptions{Deny: ranges(t, "10.0.0.0/8"), Client: noPolicy}),
		"allow everybody":         with(l, byAddress(), ratelimit.MiddlewareOptions{Allow: []netip.Prefix{netip.MustParsePrefix("::ffff:0.0.0.0/96")}, Client: remote}),
		"allow an odd range":      with(l, byAddress(), ratelimit.MiddlewareOptions{Allow: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")}, Client: remote}),
		"deny an invalid range":   with(l, byAddress(), ratelimit.MiddlewareOptions{Deny: []netip.Prefix{{}}, Client: remote}),
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if text, _ := recover().(string); !strings.HasPrefix(text, "ratelimit: ") {
					t.Errorf("panicked with %q", text)
				}
			}()
			f()
		})
	}
}
