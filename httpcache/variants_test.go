package httpcache_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// Anybody could have a page stored under as many keys as he liked.
func TestCache_VariantsOfAURLAreBounded(t *testing.T) {
	r := open(t)
	s := newSite(t, r, httpcache.Options{MaxVariants: 8}, set(200, "Cache-Control: max-age=60", "Vary: Accept-Language"))
	s.get("/")
	ways := func(i int) []string { return []string{fmt.Sprint("X-Host: h", i), fmt.Sprint("Accept-Language: l", i)} }
	for i := range 60 {
		s.get("/", ways(i)[i%2])
	}
	hits := 0
	for i := range 60 {
		r := request("GET", "/", ways(i)[i%2])
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if isHit(w.Result()) {
			hits++
		}
	}
	if hits > 16 { // some took the place of others meanwhile
		t.Errorf("%d of 60 variants are stored", hits)
	}
	if got := s.get("/"); !isHit(got) {
		t.Errorf("the plain one: %v", got.Header)
	}
	// One that comes all the time gets in.
	testkit.Eventually(t, "a new one", func() bool { return isHit(s.get("/", "Accept-Language: new")) })
}

// Each list of codings was a variant.
func TestCache_FewVariantsByAcceptEncoding(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "Accept-Encoding")
		if e := r.Header.Get("Accept-Encoding"); strings.Contains(e, "gzip") && !strings.Contains(e, "gzip;q=0") {
			w.Header().Set("Content-Encoding", "gzip")
		}
		_, _ = io.WriteString(w, "page")
	})
	for _, e := range []string{
		"gzip, deflate, br, zstd", "gzip, deflate, br", "gzip", "deflate, gzip", "br;q=1.0, gzip;q=0.8, *;q=0", "x-gzip", "gzip,x-made-up",
		"identity", "", "br", "gzip;q=0", "deflate",
	} {
		got := s.get("/", "Accept-Encoding: "+e)
		want := strings.Contains(e, "gzip") && !strings.Contains(e, "gzip;q=0")
		if (got.Header.Get("Content-Encoding") == "gzip") != want {
			t.Errorf("%q: %v", e, got.Header)
		}
	}
	if n := s.runs.Load(); n > 3 { // identity may be forbidden in one
		t.Errorf("%d runs", n)
	}
}

// A proxy flushes after each piece of a body without length: nothing that came
// through one was stored.
func TestCache_ChunkedAnswersOfAProxyAreStored(t *testing.T) {
	var runs atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, strings.Repeat("a", 2048))
		_, _ = io.WriteString(w, strings.Repeat("b", 2048))
		if r.URL.Path == "/cut" {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	defer up.Close()
	u, err := url.Parse(up.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, open(t), httpcache.Options{}, httputil.NewSingleHostReverseProxy(u).ServeHTTP)
	server := httptest.NewServer(s)
	defer server.Close()
	get := func(path string) (*http.Response, string, error) {
		res, err := http.Get(server.URL + path)
		if err != nil {
			return nil, "", err
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		return res, string(b), err
	}
	for i := range 3 {
		if res, b, err := get("/"); err != nil || len(b) != 4096 || isHit(res) != (i > 0) {
			t.Errorf("%d: %d bytes, %v", i, len(b), err)
		}
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("%d runs", n)
	}
	for range 2 {
		if res, b, err := get("/cut"); err == nil {
			t.Errorf("half an answer passes for a whole one: %d bytes, %v", len(b), res.Header)
		}
	}
}

// A refusal took the place of the stale page, which was then not there when the
// handler failed.
func TestCache_RefusalsDoNotDestroyWhatMayBeServed(t *testing.T) {
	for name, refuse := range map[string]http.HandlerFunc{
		"429": set(429, "Retry-After: 1"), "403": set(403), "404": set(404), "401": set(401),
		"a cookie": set(200, "Set-Cookie: a=b"), "private": set(200, "Cache-Control: private"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := set(200, "Cache-Control: max-age=60, stale-if-error=600")
			s := newSite(t, open(t), tagged(httpcache.Options{}), func(w http.ResponseWriter, r *http.Request) { now(w, r) })
			s.get("/")
			expire(t, s)
			now = refuse
			want := httptest.NewRecorder()
			refuse(want, nil)
			if got := s.get("/"); got.StatusCode != want.Code || isHit(got) {
				t.Errorf("%d %v", got.StatusCode, got.Header)
			}
			now = set(503)
			if got := s.get("/"); got.StatusCode != 200 || body(t, got) != "body 1" {
				t.Errorf("then: %d %v", got.StatusCode, got.Header)
			}
			now = set(404, "Cache-Control: max-age=60") // a definite answer
			testkit.Eventually(t, "it", func() bool { got := s.get("/"); return got.StatusCode == 404 && isHit(got) })
		})
	}
	t.Run("while it is revalidated", func(t *testing.T) {
		t.Parallel()
		now := set(200, "Cache-Control: max-age=60, stale-while-revalidate=600")
		s := newSite(t, open(t), tagged(httpcache.Options{}), func(w http.ResponseWriter, r *http.Request) { now(w, r) })
		s.get("/")
		expire(t, s)
		now = set(429)
		for range 5 {
			if got := s.get("/"); got.StatusCode != 200 || body(t, got) != "body 1" {
				t.Errorf("%d %v", got.StatusCode, got.Header)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if n := s.runs.Load(); n > 3 {
			t.Errorf("%d runs", n)
		}
		if err := s.Delete(t.Context(), request("GET", "/")); err != nil {
			t.Fatal(err)
		}
		if got := s.get("/"); got.StatusCode != 429 {
			t.Errorf("after its removal: %d %v", got.StatusCode, got.Header)
		}
	})
	t.Run("a page that is gone", func(t *testing.T) {
		t.Parallel()
		now := set(200, "Cache-Control: max-age=60, stale-while-revalidate=600, stale-if-error=600")
		s := newSite(t, open(t), tagged(httpcache.Options{}), func(w http.ResponseWriter, r *http.Request) { now(w, r) })
		s.get("/")
		expire(t, s)
		now = set(404)
		testkit.Eventually(t, "the 404", func() bool { return s.get("/").StatusCode == 404 })
		now = set(503)
		if got := s.get("/"); got.StatusCode != 200 || body(t, got) != "body 1" {
			t.Errorf("then: %d %v", got.StatusCode, got.Header)
		}
	})
}

// A page with as many tags as there may be was never stored, once it varied by
// more than was known.
func TestCache_VaryGrowsWithEveryTagThatThereMayBe(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/", "/%61?b=1"} {
		tags := make([]string, 63)
		for i := range tags {
			tags[i] = fmt.Sprint("tag-", i)
		}
		s := newSite(t, open(t), httpcache.Options{Tags: func(*http.Request) []string { return tags }}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Vary", "X-A")
			if r.Header.Get("X-A") == "2" {
				w.Header().Set("Vary", "X-A, X-B")
			}
			_, _ = fmt.Fprint(w, r.Header.Get("X-B"))
		})
		page := func() *http.Response {
			r := request("GET", path, "X-A: 2", "X-B: b")
			r.RequestURI = "/outer" + r.RequestURI // two tags more
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			return w.Result()
		}
		r := request("GET", path, "X-A: 1")
		r.RequestURI = "/outer" + r.RequestURI
		s.ServeHTTP(httptest.NewRecorder(), r)
		for range 3 {
			page()
		}
		if got := page(); !isHit(got) {
			t.Errorf("%s: %v", path, got.Header)
		}
		if err := s.DeleteTag(t.Context(), tags[62]); err != nil {
			t.Fatal(err)
		}
		if got := page(); isHit(got) {
			t.Errorf("%s: %v after the removal of a tag", path, got.Header)
		}
	}
}

// The quota and the trace of one client were sent to others.
func TestCache_HeadersOfOneClientAreNotReplayed(t *testing.T) {
	names := []string{"RateLimit", "RateLimit-Policy", "X-RateLimit-Remaining", "Retry-After", "X-Request-Id", "Traceparent", "Server-Timing"}
	lines := []string{"Cache-Control: max-age=60", "X-Page: a"}
	for _, name := range names {
		lines = append(lines, name+": 1")
	}
	s := newSite(t, open(t), httpcache.Options{}, set(200, lines...))
	first, second := s.get("/"), s.get("/")
	if !isHit(second) || second.Header.Get("X-Page") != "a" {
		t.Errorf("%v", second.Header)
	}
	for _, name := range names {
		if first.Header.Get(name) != "1" || second.Header.Get(name) != "" {
			t.Errorf("%s: %q, then %q", name, first.Header.Get(name), second.Header.Get(name))
		}
	}
	for _, name := range []string{"WWW-Authenticate", "Authentication-Info", "Clear-Site-Data", "X-Auth-Token"} {
		s := newSite(t, open(t), httpcache.Options{}, set(200, "Cache-Control: max-age=60", name+": x"))
		s.get("/")
		if got := s.get("/"); isHit(got) {
			t.Errorf("%s: %v", name, got.Header)
		}
	}
}

// What a handler forbids caches by a field of their own was stored.
func TestCache_TargetedFieldsForbid(t *testing.T) {
	for _, line := range []string{"CDN-Cache-Control: no-store", "CDN-Cache-Control: private", "Surrogate-Control: no-store", "CDN-Cache-Control: max-age=0"} {
		s := newSite(t, open(t), httpcache.Options{}, set(200, "Cache-Control: max-age=60", line))
		s.get("/")
		if got := s.get("/"); isHit(got) {
			t.Errorf("%s: %v", line, got.Header)
		}
	}
	s := newSite(t, open(t), httpcache.Options{}, set(200, "Cache-Control: no-store", "CDN-Cache-Control: max-age=60"))
	s.get("/")
	if got := s.get("/"); isHit(got) {
		t.Errorf("%v", got.Header)
	}
}

// A load that waited while a page was removed does not bring the other variants
// of it back.
func TestCache_VariantsStayRemoved(t *testing.T) {
	t.Parallel()
	var version sync.Map
	version.Store("v", "old")
	running, block := make(chan struct{}), make(chan struct{})
	s := newSite(t, openConfig(t, madcrowtest.StartRedis(t).Config()), httpcache.Options{MaxLoads: 1}, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			version.Store("v", "new")
			return
		case r.URL.Path == "/slow":
			close(running)
			<-block
			return
		}
		w.Header().Set("Vary", "X-Mode")
		w.Header().Set("Cache-Control", map[string]string{"a": "max-age=1, stale-if-error=60", "b": "max-age=60"}[r.Header.Get("X-Mode")])
		v, _ := version.Load("v")
		_, _ = fmt.Fprint(w, v)
	})
	s.get("/", "X-Mode: a")
	s.get("/", "X-Mode: b")
	if got := s.get("/", "X-Mode: b"); !isHit(got) {
		t.Fatalf("%v", got.Header)
	}
	time.Sleep(1100 * time.Millisecond)
	var wg sync.WaitGroup
	wg.Go(func() { s.get("/slow") })
	<-running
	wg.Go(func() { s.get("/", "X-Mode: a") })
	time.Sleep(100 * time.Millisecond)
	s.do("POST", "/")
	close(block)
	wg.Wait()
	if got := s.get("/", "X-Mode: b"); body(t, got) != "new" {
		t.Errorf("%v", got.Header)
	}
}
