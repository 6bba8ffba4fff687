package httpcache_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// The condition with which a stale page is validated is not the client's.
func TestCache_NotModifiedIsNotHandedOn(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(http.ResponseWriter){
		"flushed": func(w http.ResponseWriter) {
			w.WriteHeader(304)
			_ = http.NewResponseController(w).Flush()
		},
		"after early hints": func(w http.ResponseWriter) {
			w.WriteHeader(103)
			w.WriteHeader(304)
		},
		"late": func(w http.ResponseWriter) {
			time.Sleep(300 * time.Millisecond)
			w.WriteHeader(304)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, openConfig(t, madcrowtest.StartRedis(t).Config()), tagged(httpcache.Options{LoadTimeout: 200 * time.Millisecond, LeaseTTL: time.Second}), func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("ETag", `"a"`)
				if r.Header.Get("If-None-Match") == `"a"` {
					say(w)
					return
				}
				_, _ = io.WriteString(w, "page")
			})
			srv := httptest.NewServer(s.Handler)
			defer srv.Close()
			for range 2 {
				res, err := srv.Client().Get(srv.URL)
				if err != nil {
					t.Fatal(err)
				}
				if got := body(t, res); res.StatusCode != 200 || got != "page" {
					t.Errorf("%d %q %v", res.StatusCode, got, res.Header)
				}
				expire(t, s)
			}
		})
	}
}
