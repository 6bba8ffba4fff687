package ratelimit_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/ratelimit"
)

// Routers other than net/http's give a pattern no method, or only the beginning
// of it outside of a mounted router. The limit of a route was then silently not
// there.
func TestPerRoute_HoldsWhateverTheRouterCallsItsRoutes(t *testing.T) {
	r := openAnew(t)
	base := newLimit(t, r, "base", ratelimit.PerMinute(1000), ratelimit.FailClosed)
	strict := newLimit(t, r, "strict", ratelimit.PerMinute(1000), ratelimit.FailClosed)
	all := newLimit(t, r, "all", ratelimit.PerMinute(1000), ratelimit.FailClosed)
	limited := ratelimit.Middleware(base, byAddress(), ratelimit.PerRoute(map[string]ratelimit.Limit{
		"POST /login/:id": strict, "GET /api/{id}/x": strict, "/any": all, "GET /any": strict, "GET /v1/files/*": strict, "POST example.com/hosted": strict, "GET /end/{$}": strict,
	}))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
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
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		r.Pattern = c.pattern
		if got, err := ratelimit.ByPath().Subject(r); got != c.want || err != nil {
			t.Errorf("%s by %q: %q %v, want %q", c.method, c.pattern, got, err, c.want)
		}
	}
}

func TestWithRoute_NamesTheRouteToAMiddlewareOutsideOfTheRouter(t *testing.T) {
	r := openAnew(t)
	base := newLimit(t, r, "base", ratelimit.PerMinute(1000), ratelimit.FailClosed)
	strict := newLimit(t, r, "strict", ratelimit.PerMinute(1), ratelimit.FailClosed)
	w := newWeb(t, base, ratelimit.ByPath(), ratelimit.PerRoute(map[string]ratelimit.Limit{"POST /login": strict}),
		ratelimit.WithRoute(func(r *http.Request) string {
			if strings.HasPrefix(r.URL.Path, "/none") {
				return ""
			}
			return strings.ToLower(r.URL.Path)
		}))
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
	r := openAnew(t)
	one := newLimit(t, r, "one", ratelimit.PerMinute(1), ratelimit.FailClosed)
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
	w = newWeb(t, newLimit(t, r, "two", ratelimit.PerMinute(1), ratelimit.FailClosed), ratelimit.ByHeader("X-Api-Key"))
	ask(w, append(cors, "X-Api-Key", "")...).want(204, "")
	w = newWeb(t, newLimit(t, r, "three", ratelimit.PerMinute(1), ratelimit.FailClosed), byAddress(), ratelimit.WithPreflights())
	ask(w, cors...).want(204, "").has("RateLimit", `"three";r=0;t=60`)
	ask(w, cors...).want(429, "QUOTA_EXCEEDED")
}
