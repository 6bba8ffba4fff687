package httpcache_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/httpcache"
)

// site is a handler behind a cache, which counts how often it runs.
type site struct {
	*httpcache.Cache
	http.Handler
	runs atomic.Int64
}

// newSite is outside of every router.
func newSite(t testing.TB, r *madcrow.Redis, opt httpcache.Options, handler http.HandlerFunc) *site {
	t.Helper()
	opt.Detached = true
	return newSiteInside(t, r, opt, handler)
}

func newSiteInside(t testing.TB, r *madcrow.Redis, opt httpcache.Options, handler http.HandlerFunc) *site {
	t.Helper()
	c, err := httpcache.New(r, "pages", opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	s := &site{Cache: c}
	s.Handler = c.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.runs.Add(1)
		handler(w, r)
	}))
	return s
}

func request(method, url string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, url, nil)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func (s *site) do(method, url string, headers ...string) *http.Response {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, request(method, url, headers...))
	return w.Result()
}

func (s *site) get(url string, headers ...string) *http.Response {
	return s.do(http.MethodGet, url, headers...)
}

func body(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func isHit(r *http.Response) bool {
	return strings.HasPrefix(r.Header.Get("Cache-Status"), "madcrow; hit")
}

// set is a handler that answers with these header lines and a counter.
func set(status int, lines ...string) http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			w.Header().Add(name, value)
		}
		w.WriteHeader(status)
		if status != http.StatusNoContent && status != http.StatusNotModified {
			_, _ = fmt.Fprintf(w, "body %d", n.Add(1))
		}
	}
}

func TestCache_ServesWhatItStored(t *testing.T) {
	for name, opt := range map[string]httpcache.Options{"near": {NearCacheBytes: near}, "far": {}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, open(t), opt, set(200, "Cache-Control: max-age=60", "X-Two: a", "X-Two: b", "Connection: X-Hop", "X-Hop: 1", "Keep-Alive: 5"))
			first := s.get("/page?b=2&a=1")
			if got := first.Header.Get("Cache-Status"); !strings.HasPrefix(got, "madcrow; fwd=uri-miss; stored; ttl=5") {
				t.Errorf("Cache-Status %q", got)
			}
			if first.Header.Get("Age") != "" || first.Header.Get("X-Hop") != "" {
				t.Errorf("the first: %v", first.Header)
			}
			for range 3 {
				hit := s.get("/page?a=1&b=2")
				if hit.StatusCode != 200 || body(t, hit) != "body 1" || !isHit(hit) {
					t.Fatalf("%d %v", hit.StatusCode, hit.Header)
				}
				h := hit.Header
				if h.Get("Age") != "0" || h.Get("Date") == "" || h.Get("Content-Length") != "6" || len(h["X-Two"]) != 2 ||
					h.Get("Content-Type") != "text/plain; charset=utf-8" || h["X-Hop"] != nil || h["Connection"] != nil || h["Keep-Alive"] != nil {
					t.Errorf("%v", h)
				}
				if h.Get("Etag") == "" || h.Get("Etag") != first.Header.Get("Etag") {
					t.Errorf("ETag %q, first %q", h.Get("Etag"), first.Header.Get("Etag"))
				}
			}
			if n := s.runs.Load(); n != 1 {
				t.Errorf("%d runs", n)
			}
			if isHit(s.get("/page?a=2&b=2")) || isHit(s.get("/page")) || isHit(s.get("http://other.example/page?a=1&b=2")) {
				t.Error("another URL hits")
			}
			if got := s.get("https://example.com/page?a=1&b=2"); isHit(got) {
				t.Error("another scheme hits")
			}
		})
	}
}

func TestCache_HeadIsServedFromAStoredGet(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{}, set(200, "Cache-Control: max-age=60"))
	for range 2 {
		if got := s.do("HEAD", "/"); isHit(got) || got.Header.Get("Etag") != "" {
			t.Errorf("a HEAD alone: %v", got.Header)
		}
	}
	s.get("/")
	got := s.do("HEAD", "/")
	if !isHit(got) || body(t, got) != "" || got.Header.Get("Content-Length") != "6" || got.Header.Get("Etag") == "" {
		t.Errorf("%v", got.Header)
	}
	if got := s.do("HEAD", "/", "If-None-Match: "+got.Header.Get("Etag")); got.StatusCode != 304 {
		t.Errorf("conditional HEAD: %d", got.StatusCode)
	}
}

func TestCache_VariantsByVary(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{NearCacheBytes: near}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Add("Vary", "accept-language,  X-Mode")
		w.Header().Add("Vary", "Accept-Encoding")
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Header.Get("Accept-Language"), r.Header.Get("X-Mode"), r.Header.Get("Accept-Encoding"))
	})
	variants := [][]string{
		{"Accept-Language: de", "Accept-Encoding: gzip, br"},
		{"Accept-Language: en", "Accept-Encoding: gzip, br"},
		{"Accept-Language: en", "X-Mode: dark", "Accept-Encoding: gzip, br"},
		{"X-Mode: "},
		{},
	}
	for round := range 3 {
		for i, v := range variants {
			got := s.get("/", v...)
			if isHit(got) != (round > 0) {
				t.Errorf("round %d, variant %d: %v", round, i, got.Header["Cache-Status"])
			}
			r := request("GET", "/", v...)
			want := fmt.Sprintf("%s %s %s", r.Header.Get("Accept-Language"), r.Header.Get("X-Mode"), r.Header.Get("Accept-Encoding"))
			if b := body(t, got); b != want {
				t.Errorf("round %d, variant %d: got %q, want %q", round, i, b, want)
			}
		}
	}
	if n := s.runs.Load(); n != int64(len(variants)) {
		t.Errorf("%d runs for %d variants", n, len(variants))
	}
	if got := s.get("/", "Accept-Language: DE", "Accept-Encoding:  br,gzip"); !isHit(got) {
		t.Errorf("a variant that differs in nothing: %v", got.Header["Cache-Status"])
	}
	if got := s.get("/", "Accept-Language: fr"); got.Header.Get("Cache-Status") == "" || !strings.Contains(got.Header.Get("Cache-Status"), "fwd=vary-miss") {
		t.Errorf("a new variant: %v", got.Header["Cache-Status"])
	}
}

func TestCache_VaryThatGrowsIsNotMixedUp(t *testing.T) {
	// The response varies by more where X-A is 2.
	s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "X-A")
		if r.Header.Get("X-A") == "2" {
			w.Header().Set("Vary", "X-A, X-B")
		}
		_, _ = fmt.Fprint(w, r.Header.Get("X-A"), r.Header.Get("X-B"))
	})
	for range 4 {
		for _, v := range []string{"1 ", "2 a", "2 b", "2 c"} {
			a, b, _ := strings.Cut(v, " ")
			if got := body(t, s.get("/", "X-A: "+a, "X-B: "+b)); got != a+b {
				t.Errorf("%q: got %q", v, got)
			}
		}
	}
	if n := s.runs.Load(); n > 8 {
		t.Errorf("%d runs for 4 variants", n)
	}
}

func TestCache_OneRunForAllWhoWait(t *testing.T) {
	cfg := ownConfig(t)
	var runs, collapsed atomic.Int64
	handler := func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		time.Sleep(100 * time.Millisecond)
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "Accept-Language")
		_, _ = fmt.Fprint(w, "in ", r.Header.Get("Accept-Language"))
	}
	var processes []*site
	for range 3 {
		processes = append(processes, newSite(t, openConfig(t, cfg), httpcache.Options{NearCacheBytes: near}, handler))
	}
	var wg sync.WaitGroup
	for _, s := range processes {
		for i := range 32 {
			lang := []string{"de", "en"}[i%2]
			wg.Go(func() {
				got := s.get("/", "Accept-Language: "+lang)
				if b := body(t, got); b != "in "+lang {
					t.Errorf("%s: %q", lang, b)
				}
				if strings.Contains(got.Header.Get("Cache-Status"), "; collapsed") {
					collapsed.Add(1)
				}
			})
		}
	}
	wg.Wait()
	if n := runs.Load(); n != 2 || collapsed.Load() == 0 {
		t.Errorf("%d runs for 2 variants, %d collapsed", n, collapsed.Load())
	}
}

func TestCache_ClientThatGoesDoesNotEndTheRun(t *testing.T) {
	running, goOn := make(chan struct{}), make(chan struct{})
	s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
		close(running)
		<-goOn
		if err := r.Context().Err(); err != nil {
			t.Errorf("the handler's context: %v", err)
		}
		set(200, "Cache-Control: max-age=60")(w, r)
	})
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeHTTP(httptest.NewRecorder(), request("GET", "/").WithContext(ctx))
	}()
	<-running
	leave()
	<-done
	close(goOn)
	if got := s.get("/"); body(t, got) != "body 1" {
		t.Error("the run was lost")
	}
	if s.runs.Load() != 1 {
		t.Errorf("%d runs", s.runs.Load())
	}
}
