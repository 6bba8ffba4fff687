package ratelimit_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// Three requests an hour for each client, behind one proxy.
func ExampleMiddleware() {
	cfg := config // of a Redis that the tests started
	cfg.KeyPrefix, cfg.Require = "ExampleMiddleware:", true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = r.Close(context.Background()) }()
	api, err := ratelimit.New(r, "api", ratelimit.Options{Rate: ratelimit.PerHour(3), FailPolicy: madcrow.FailOpen})
	if err != nil {
		fmt.Println(err)
		return
	}
	proxied, err := clientip.TrustedProxies(1)
	if err != nil {
		fmt.Println(err)
		return
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) {
		d, _ := ratelimit.DecisionFrom(r.Context())
		_, _ = fmt.Fprintf(w, "%d left", d.Remaining)
	})
	handler := ratelimit.Middleware(api, ratelimit.ByClient(proxied), ratelimit.MiddlewareOptions{})(mux)

	for range 4 {
		req := httptest.NewRequest(http.MethodGet, "/hello", nil)
		req.Header.Set("X-Forwarded-For", "203.0.113.9")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		if w.Code == http.StatusOK {
			fmt.Println(w.Code, w.Body, w.Header().Get("RateLimit"))
		} else {
			fmt.Println(w.Code, w.Header().Get("Content-Type"), w.Header().Get("Retry-After") != "")
		}
	}
	// Output:
	// 200 2 left "api";r=2;t=2400
	// 200 1 left "api";r=1;t=1200
	// 200 0 left "api";r=0;t=1200
	// 429 application/problem+json true
}

// A stricter limit for one route, and none for the machines of the operator.
func ExampleMiddlewareOptions() {
	cfg := config // of a Redis that the tests started
	cfg.KeyPrefix, cfg.Require = "ExampleMiddlewareOptions:", true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = r.Close(context.Background()) }()
	api, err := ratelimit.New(r, "api", ratelimit.Options{Rate: ratelimit.PerMinute(100), FailPolicy: madcrow.FailOpen})
	if err != nil {
		fmt.Println(err)
		return
	}
	login, err := ratelimit.New(r, "login", ratelimit.Options{Rate: ratelimit.PerMinute(5), FailPolicy: madcrow.FailClosed})
	if err != nil {
		fmt.Println(err)
		return
	}
	ours, err := clientip.ParseRanges("10.0.0.0/8")
	if err != nil {
		fmt.Println(err)
		return
	}

	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /hello", func(http.ResponseWriter, *http.Request) {})
	direct := clientip.RemoteAddr()
	handler := ratelimit.Middleware(api, ratelimit.ByClient(direct), ratelimit.MiddlewareOptions{Routes: map[string]ratelimit.Limit{"POST /login": login}, Mux: mux, Allow: ours, Client: direct})(mux)

	for _, c := range [][3]string{{"GET", "/hello", "203.0.113.9:1"}, {"POST", "/login", "203.0.113.9:1"}, {"POST", "/login", "10.0.0.1:1"}} {
		req := httptest.NewRequest(c[0], c[1], nil)
		req.RemoteAddr = c[2]
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		fmt.Printf("%s %q\n", c[1], w.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// /hello "\"api\";q=100;w=60"
	// /login "\"login\";q=5;w=60"
	// /login ""
}
