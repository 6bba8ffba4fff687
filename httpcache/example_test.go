package httpcache_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/httpcache"
)

// Pages are stored for a minute, for everybody; what a client sees when he is
// logged in is not. An article that changes takes its pages with it.
func Example() {
	cfg := config // of a Redis that the tests started
	cfg.KeyPrefix, cfg.Require = "Example:", true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = r.Close(context.Background()) }()
	pages, err := httpcache.New(r, "pages", httpcache.Options{
		NearCacheBytes: 16 << 20, Detached: true,
		Tags: func(r *http.Request) []string { return []string{"article:" + r.URL.Query().Get("id")} },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = pages.Close(context.Background()) }()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /article", func(w http.ResponseWriter, r *http.Request) {
		if user, err := r.Cookie("user"); err == nil {
			w.Header().Set("Cache-Control", "private")
			_, _ = fmt.Fprintf(w, "hello %s", user.Value)
			return
		}
		w.Header().Set("Cache-Control", "max-age=60, stale-while-revalidate=30, stale-if-error=600")
		_, _ = fmt.Fprintf(w, "article %s", r.FormValue("id"))
	})
	handler := pages.Middleware(mux)

	get := func(headers ...string) {
		req := httptest.NewRequest(http.MethodGet, "/article?id=7", nil)
		for _, line := range headers {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		how, _, _ := strings.Cut(w.Header().Get("Cache-Status"), "; ttl=")
		fmt.Println(w.Code, w.Body, "|", how)
	}
	get()
	get()
	get("Cookie: user=ann")
	get("Cookie: user=bob")
	if err := pages.DeleteTag(context.Background(), "article:7"); err != nil {
		fmt.Println(err)
	}
	get()
	// Output:
	// 200 article 7 | madcrow; fwd=uri-miss; stored
	// 200 article 7 | madcrow; hit
	// 200 hello ann | madcrow; fwd=uri-miss
	// 200 hello bob | madcrow; fwd=miss; detail=pass
	// 200 article 7 | madcrow; fwd=uri-miss; stored
}
