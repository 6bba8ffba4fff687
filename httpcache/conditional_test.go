package httpcache_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestCache_ConditionsAreAnsweredWith304(t *testing.T) {
	const changed = "Wed, 01 Jan 2020 10:00:00 GMT"
	for _, c := range []struct {
		name, response, condition string
		want                      int
	}{
		{"strong", `ETag: "a"`, `If-None-Match: "a"`, 304},
		{"weak", `ETag: W/"a"`, `If-None-Match: "a"`, 304},
		{"in a list", `ETag: "a,b"`, `If-None-Match: "x", W/"a,b"`, 304},
		{"any", `ETag: "a"`, `If-None-Match: *`, 304},
		{"another", `ETag: "a"`, `If-None-Match: "b"`, 200},
		{"not modified since", "Last-Modified: " + changed, "If-Modified-Since: " + changed, 304},
		{"modified since", "Last-Modified: " + changed, "If-Modified-Since: Wed, 01 Jan 2020 09:59:59 GMT", 200},
		{"no date", "Last-Modified: " + changed, "If-Modified-Since: yesterday", 200},
		{"by the time it was stored", "X-A: b", "If-Modified-Since: " + time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), 304},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since") != "" {
					t.Error("the handler sees the condition")
				}
				set(200, "Cache-Control: max-age=60", "Content-Language: en", c.response)(w, r)
			})
			for i := range 2 { // the one that loads, and one from the cache
				got := s.get("/", c.condition)
				if got.StatusCode != c.want || (body(t, got) == "") != (c.want == 304) {
					t.Errorf("%d: %d %v", i, got.StatusCode, got.Header)
				}
				if c.want == 304 && (got.Header.Get("Content-Type") != "" || got.Header.Get("Cache-Control") == "" || got.Header.Get("Content-Length") != "") {
					t.Errorf("%d: %v", i, got.Header)
				}
			}
			if s.runs.Load() != 1 {
				t.Errorf("%d runs", s.runs.Load())
			}
		})
	}
	s := newSite(t, open(t), httpcache.Options{}, set(200, "Cache-Control: max-age=60"))
	tag := s.get("/own").Header.Get("Etag")
	if got := s.get("/own", "If-None-Match: "+tag); got.StatusCode != 304 || !isHit(got) {
		t.Errorf("the ETag of the cache: %d", got.StatusCode)
	}
	s = newSite(t, open(t), httpcache.Options{}, set(404, "Cache-Control: max-age=60", `ETag: "a"`))
	if got := s.get("/none", `If-None-Match: "a"`); got.StatusCode != 404 {
		t.Errorf("a 404 with a condition: %d", got.StatusCode)
	}
}

func TestCache_StaleOnesAreValidated(t *testing.T) {
	s := newSite(t, open(t), tagged(httpcache.Options{StaleIfError: time.Minute}), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("X-Run", r.Header.Get("If-None-Match"))
		http.ServeContent(w, r, "a.txt", time.Time{}, strings.NewReader("content"))
	})
	s.get("/")
	expire(t, s)
	got := s.get("/", `If-None-Match: "other"`)
	if got.StatusCode != 200 || body(t, got) != "content" || got.Header.Get("X-Run") != `"v1"` {
		t.Errorf("%d %v", got.StatusCode, got.Header)
	}
	if status := got.Header.Get("Cache-Status"); !strings.HasPrefix(status, "madcrow; fwd=stale; stored; ttl=") || !strings.HasSuffix(status, "; fwd-status=304") {
		t.Errorf("%q", status)
	}
	if got := s.get("/"); !isHit(got) || body(t, got) != "content" || got.Header.Get("X-Run") != `"v1"` {
		t.Errorf("%v", got.Header)
	}
}

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
