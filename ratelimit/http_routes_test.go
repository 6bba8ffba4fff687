package ratelimit_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// Routers other than net/http's give a pattern no method, or only the beginning
// of it outside of a mounted router. The limit of a route was then silently not
// there.
func TestRoutes_HoldsWhateverTheRouterCallsItsRoutes(t *testing.T) {
	r := openAgain(t)
	base := newLimit(t, r, "base", ratelimit.PerMinute(1000), madcrow.FailClosed)
	strict := newLimit(t, r, "strict", ratelimit.PerMinute(1000), madcrow.FailClosed)
	all := newLimit(t, r, "all", ratelimit.PerMinute(1000), madcrow.FailClosed)
	limited := ratelimit.Middleware(base, byAddress(), ratelimit.MiddlewareOptions{Routes: map[string]ratelimit.Limit{
		"POST /login/:id": strict, "GET /api/{id}/x": strict, "/any": all, "GET /any": strict, "GET /v1/files/*": strict, "POST example.com/hosted": strict, "GET /end/{$}": strict,
	}})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, c := range []struct{ method, path, pattern, want string }{
		{"POST", "/login/7", "POST /login/:id", "strict"},
		{"POST", "/login/7", "/login/:id", "strict"},
		{"GET", "/login/7", "/login/:id", "base"},
		{"GET", "/login/7", "GET /login/:id", "base"},
		{"GET", "/any", "/any", "strict"},
		{"HEAD", "/any", "/any", "strict"},
		{"HEAD", "/any", "HEAD /any", "strict"},
		{"POST", "/any", "/any", "all"},
		{"POST", "/any", "POST /any", "all"},
		{"POST", "/hosted", "POST example.com/hosted", "strict"},
		{"POST", "/hosted", "example.com/hosted", "strict"},
		{"GET", "/other", "/*", "base"},
		{"GET", "/other", "GET", "base"},
		{"POST", "/login/7/8", "/*", "base"},
		{"POST", "/login", "/*", "base"},
		{"GET", "/v1/files", "/v1/*", "base"},
		{"GET", "/v1/other/a", "/v1/*", "base"},
		{"GET", "/v1/files/a/b", "/v1/files/*", "strict"},
		{"POST", "/", "POST /", "base"},
		// The route is not known here.
		{"POST", "/login/7", "", ""},
		{"GET", "/other", "", ""},
		{"POST", "/login/7", "POST", ""},
		{"POST", "/login/7", "/*", ""},
		{"POST", "/login/7", "POST /", ""},
		{"POST", "/login/7", "/login/*any", ""},
		{"GET", "/api/7/x", "/api/*", ""},
		{"HEAD", "/api/7/x", "/api/{path...}", ""},
		{"GET", "/v1/files/a/b", "/v1/*", ""},
		{"GET", "/end/", "/", ""},
		{"DELETE", "/any", "/+", ""},
	} {
		req := httptest.NewRequest(c.method, c.path, nil)
		req.Pattern = c.pattern
		w := httptest.NewRecorder()
		limited.ServeHTTP(w, req)
		got, _, _ := strings.Cut(strings.TrimPrefix(w.Header().Get("RateLimit-Policy"), `"`), `"`)
		if got != c.want || (c.want == "") != (w.Code == 500 && strings.Contains(w.Body.String(), "LIMIT_MISPLACED")) && c.method != "HEAD" {
			t.Errorf("%s %s by %q: %d by %q, want %q", c.method, c.path, c.pattern, w.Code, got, c.want)
		}
	}
}

// Where a router's patterns have no method, GET and POST shared a quota.
func TestByPath_CountsEachMethodOfARouteByItself(t *testing.T) {
	for _, c := range []struct{ method, path, pattern, want string }{
		{"GET", "/items/7", "GET /items/{id}", "GET /items/{id}"},
		{"GET", "/items/7", "/items/{id}", "GET /items/{id}"},
		{"POST", "/items/7", "/items/{id}", "POST /items/{id}"},
		{"HEAD", "/items/7", "/items/{id}", "GET /items/{id}"},
		{"HEAD", "/items/7", "HEAD /items/{id}", "GET /items/{id}"},
		{"POST", "/items/7", "", "POST /items/7"},
		{"POST", "/none", "POST", "POST"},
		{"POST", "/hosted", "example.com/", "POST example.com/"},
		// Some routers' patterns have whatever the client sent.
		{"A1", "/items/7", "A1 /items/{id}", "/items/{id}"},
		{"A1", "/items/7", "", "/items/7"},
		{"A1", "/none", "A1", "unmatched"},
		{"a1", "/none", "a1", "unmatched"},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		r.Pattern = c.pattern
		if got, err := ratelimit.ByPath().Subject(r); got != c.want || err != nil {
			t.Errorf("%s by %q: %q %v, want %q", c.method, c.pattern, got, err, c.want)
		}
	}
}

func TestWithRoute_NamesTheRouteToAMiddlewareOutsideOfTheRouter(t *testing.T) {
	r := openAgain(t)
	base := newLimit(t, r, "base", ratelimit.PerMinute(1000), madcrow.FailClosed)
	strict := newLimit(t, r, "strict", ratelimit.PerMinute(1), madcrow.FailClosed)
	w := newWeb(t, base, ratelimit.ByPath(), ratelimit.MiddlewareOptions{Routes: map[string]ratelimit.Limit{"POST /login": strict}, Route: func(r *http.Request) string {
		if strings.HasPrefix(r.URL.Path, "/none") {
			return ""
		}
		return strings.ToLower(r.URL.Path)
	}})
	w.do(httptest.NewRequest("POST", "/LOGIN", nil)).want(204, "").has("RateLimit-Policy", `"strict";q=1;w=60`)
	w.do(httptest.NewRequest("POST", "/login", nil)).want(429, "QUOTA_EXCEEDED")
	w.do(httptest.NewRequest("GET", "/login", nil)).want(204, "").has("RateLimit", `"base";r=999;t=60`)
	for _, left := range []string{"999", "998"} {
		w.do(httptest.NewRequest("GET", "/none/"+left, nil)).want(204, "").has("RateLimit", `"base";r=`+left+`;t=60`)
	}
}

// A browser's question before a call used up the quota, was refused without the
// headers of CORS, and was a 400 for the lack of a header that no browser sends
// with it: no page of another origin could call.
func TestMiddleware_PreflightsAreNeitherCountedNorRefused(t *testing.T) {
	r := openAgain(t)
	one := newLimit(t, r, "one", ratelimit.PerMinute(1), madcrow.FailClosed)
	ask := func(w *web, pairs ...string) *reply {
		req := httptest.NewRequest(http.MethodOptions, "/", nil)
		req.Header.Set("X-Api-Key", "k")
		req.RemoteAddr = "203.0.113.9:1"
		for i := 0; i < len(pairs); i += 2 {
			req.Header.Set(pairs[i], pairs[i+1])
		}
		return w.do(req)
	}
	cors := []string{"Origin", "https://shop.example", "Access-Control-Request-Method", "GET"}
	w := newWeb(t, one, byAddress())
	for range 3 {
		ask(w, cors...).want(204, "").has("RateLimit", "")
	}
	w.get().want(204, "").has("RateLimit", `"one";r=0;t=60`)
	w.get().want(429, "QUOTA_EXCEEDED")
	ask(w, cors...).want(204, "")
	for _, other := range [][]string{cors[:2], cors[2:], append(cors, "Cookie", "a=b"), append(cors, "Authorization", "Basic x")} {
		ask(w, other...).want(429, "QUOTA_EXCEEDED") // no browser asks so
	}
	w = newWeb(t, newLimit(t, r, "two", ratelimit.PerMinute(1), madcrow.FailClosed), ratelimit.ByHeader("X-Api-Key"))
	ask(w, append(cors, "X-Api-Key", "")...).want(204, "")
	w = newWeb(t, newLimit(t, r, "three", ratelimit.PerMinute(1), madcrow.FailClosed), byAddress(), ratelimit.MiddlewareOptions{CountPreflights: true})
	ask(w, cors...).want(204, "").has("RateLimit", `"three";r=0;t=60`)
	ask(w, cors...).want(429, "QUOTA_EXCEEDED")
}

// A pattern without a method matches whatever method a client makes up, and each
// had a quota of its own: a fresh one for every guess.
func TestByPath_MadeUpMethodsShareOneQuota(t *testing.T) {
	l := newLimit(t, openAgain(t), "x", ratelimit.PerMinute(1), madcrow.FailClosed)
	mux := http.NewServeMux()
	mux.Handle("/login", ratelimit.Middleware(l, ratelimit.ByAll(byAddress(), ratelimit.ByPath()), ratelimit.MiddlewareOptions{})(http.NotFoundHandler()))
	passed := map[string]bool{}
	for _, method := range []string{
		"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE",
		"A1", "A2", "A3", "get", "Post", "PROPFIND",
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(method, "/login", nil))
		passed[method] = w.Code == http.StatusNotFound
	}
	for _, method := range []string{"HEAD", "A2", "A3", "get", "Post", "PROPFIND"} {
		if passed[method] {
			t.Errorf("%s has a quota of its own", method)
		}
		delete(passed, method)
	}
	for method, ok := range passed {
		if !ok {
			t.Errorf("%s has none", method)
		}
	}
}

// Where a mux had stripped the prefix that its pattern names, the pattern's
// segments were looked for in a path without them, and the limit of the route
// inside was silently not there.
func TestRoutes_IsNotSilentlyAbsentBehindAStrippedPrefix(t *testing.T) {
	r := openAgain(t)
	base := newLimit(t, r, "base", ratelimit.PerMinute(1000), madcrow.FailClosed)
	strict := newLimit(t, r, "strict", ratelimit.PerMinute(1000), madcrow.FailClosed)
	limited := ratelimit.Middleware(base, byAddress(), ratelimit.MiddlewareOptions{Routes: map[string]ratelimit.Limit{
		"POST /login": strict, "POST /users/login": strict, "POST /b/{id}": strict,
	}})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", limited))
	mux.Handle("/api/v1/", http.StripPrefix("/api/v1", limited))
	mux.Handle("/whole/", limited)
	mux.Handle("/tenants/{id}/", limited)
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"POST", "/api/login", 500},
		{"POST", "/api/v1/users/login", 500},
		{"POST", "/api/v1/b/7", 500},
		{"GET", "/api/login", 200},
		{"POST", "/api/other", 200},
		{"POST", "/whole/login", 200}, // nothing is stripped, and no key is for this path
		{"POST", "/tenants/7/login", 200},
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || (c.status == 500) != strings.Contains(w.Body.String(), "LIMIT_MISPLACED") {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
}

// What no handler of a route is run for was a 500 where a key is spelled like it:
// everybody could cause alarms.
func TestRoutes_WhatHasNoRouteIsNoMisplacedLimit(t *testing.T) {
	r := openAgain(t)
	base := newLimit(t, r, "base", ratelimit.PerMinute(1000), madcrow.FailClosed)
	strict := newLimit(t, r, "strict", ratelimit.PerMinute(1000), madcrow.FailClosed)
	keys := map[string]ratelimit.Limit{"GET /items/{id}": strict, "/login": strict}
	for _, c := range []struct {
		path   string
		index  bool
		status int
		limit  string
	}{
		{"/items/7", false, 200, "strict"},
		{"/items/", false, 404, "base"},
		{"/items/", true, 200, "base"},
		{"/login", false, 405, "base"},
		{"/none", false, 404, "base"},
	} {
		mux := http.NewServeMux()
		ok := func(http.ResponseWriter, *http.Request) {}
		mux.HandleFunc("GET /items/{id}", ok)
		mux.HandleFunc("POST /login", ok)
		if c.index {
			mux.HandleFunc("/", ok)
		}
		route := func(r *http.Request) string { _, pattern := mux.Handler(r); return pattern }
		for name, option := range map[string]ratelimit.MiddlewareOptions{"Mux": {Routes: keys, Mux: mux}, "Route": {Routes: keys, Route: route}} {
			w := httptest.NewRecorder()
			ratelimit.Middleware(base, byAddress(), option)(mux).ServeHTTP(w, httptest.NewRequest("GET", c.path, nil))
			if got := w.Header().Get("RateLimit-Policy"); w.Code != c.status || !strings.HasPrefix(got, `"`+c.limit+`"`) {
				t.Errorf("%s, %s, index %v: %d by %s %s", name, c.path, c.index, w.Code, got, w.Body)
			}
		}
	}
}

// Two headers that anybody can send took a client past its place on the list of
// Deny, and a request that a handler inside takes for a POST past every limit.
func TestMiddleware_OnlyWhatABrowserSendsIsAPreflight(t *testing.T) {
	l := newLimit(t, openAgain(t), "x", ratelimit.PerMinute(1), madcrow.FailClosed)
	w := newWeb(t, l, byAddress(), ratelimit.MiddlewareOptions{Deny: ranges(t, "198.51.100.0/24"), Client: clientip.RemoteAddr()})
	ask := func(addr string, pairs ...string) *reply {
		req := httptest.NewRequest(http.MethodOptions, "/", nil)
		req.Header.Set("Origin", "https://shop.example")
		req.Header.Set("Access-Control-Request-Method", "POST")
		req.RemoteAddr = addr
		for i := 0; i < len(pairs); i += 2 {
			req.Header.Set(pairs[i], pairs[i+1])
		}
		return w.do(req)
	}
	ask("198.51.100.7:1").want(403, "CLIENT_DENIED")
	ask("203.0.113.9:1").want(204, "").has("RateLimit", "")
	w.get().want(204, "")
	for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		ask("203.0.113.9:1", name, "POST").want(429, "QUOTA_EXCEEDED")
	}
	ask("203.0.113.9:1").want(204, "")
}
