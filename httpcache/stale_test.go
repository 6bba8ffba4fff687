package httpcache_test

import (
	"context"
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

	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func expire(t testing.TB, s *site) {
	t.Helper()
	if err := s.ExpireTag(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
}

func tagged(opt httpcache.Options) httpcache.Options {
	opt.Tags = func(*http.Request) []string { return []string{"t"} }
	return opt
}

func TestCache_StaleWhileRevalidate(t *testing.T) {
	for name, c := range map[string]struct {
		control string
		opt     httpcache.Options
		want    bool
	}{
		"said":                        {"max-age=60, stale-while-revalidate=60", httpcache.Options{}, true},
		"of the options":              {"max-age=60", httpcache.Options{StaleWhileRevalidate: time.Minute}, true},
		"not said":                    {"max-age=60", httpcache.Options{}, false},
		"said to be none":             {"max-age=60, stale-while-revalidate=0", httpcache.Options{StaleWhileRevalidate: time.Minute}, false},
		"must-revalidate":             {"max-age=60, must-revalidate, stale-while-revalidate=60", httpcache.Options{}, false},
		"proxy-revalidate":            {"max-age=60, proxy-revalidate", httpcache.Options{StaleWhileRevalidate: time.Minute}, false},
		"s-maxage":                    {"s-maxage=60", httpcache.Options{StaleWhileRevalidate: time.Minute}, false},
		"s-maxage, said all the same": {"s-maxage=60, stale-while-revalidate=60", httpcache.Options{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			goOn := make(chan struct{}, 9)
			s := newSite(t, open(t), tagged(c.opt), nil)
			next := set(200, "Cache-Control: "+c.control)
			s.Handler = s.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if s.runs.Add(1) == 2 {
					<-goOn
				}
				next(w, r)
			}))
			s.get("/")
			expire(t, s)
			if !c.want {
				close(goOn)
				if got := s.get("/"); body(t, got) != "body 2" || !strings.Contains(got.Header.Get("Cache-Status"), "fwd=stale") && !strings.Contains(got.Header.Get("Cache-Status"), "fwd=uri-miss") {
					t.Errorf("%v", got.Header)
				}
				return
			}
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if got := s.get("/"); body(t, got) != "body 1" || !isHit(got) {
						t.Errorf("%v", got.Header)
					}
				})
			}
			wg.Wait()
			close(goOn)
			testkit.Eventually(t, "the new one", func() bool { return body(t, s.get("/")) == "body 2" })
			if n := s.runs.Load(); n != 2 {
				t.Errorf("%d runs", n)
			}
		})
	}
}

func TestCache_StaleByTime(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{NearCacheBytes: near}, set(200, "Cache-Control: max-age=1, stale-while-revalidate=60"))
	gone := newSite(t, open(t), httpcache.Options{NearCacheBytes: near}, set(200, "Cache-Control: max-age=1"))
	s.get("/a")
	gone.get("/b")
	time.Sleep(2100 * time.Millisecond)
	got := s.get("/a")
	if body(t, got) != "body 1" || got.Header.Get("Cache-Status") != "madcrow; hit; ttl=-1" || got.Header.Get("Age") != "2" {
		t.Errorf("%v", got.Header)
	}
	testkit.Eventually(t, "the new one", func() bool { return body(t, s.get("/a")) == "body 2" })
	if got := gone.get("/b"); body(t, got) != "body 2" {
		t.Errorf("%v", got.Header)
	}
}

func TestCache_StaleIfError(t *testing.T) {
	for name, c := range map[string]struct {
		control string
		fail    http.HandlerFunc
		want    string // of the stale one; "" is the error
	}{
		"500":             {"max-age=60, stale-if-error=60", set(500), "madcrow; fwd=stale; fwd-status=500; ttl=0"},
		"503, no-store":   {"max-age=60, stale-if-error=60", set(503, "Cache-Control: no-store"), "madcrow; fwd=stale; fwd-status=503; ttl=0"},
		"501":             {"max-age=60, stale-if-error=60", set(501), ""},
		"404":             {"max-age=60, stale-if-error=60", set(404), ""},
		"a panic":         {"max-age=60, stale-if-error=60", func(http.ResponseWriter, *http.Request) { panic("oh") }, "madcrow; fwd=stale; ttl=0"},
		"too slow":        {"max-age=60, stale-if-error=60", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "madcrow; fwd=stale; ttl=0"},
		"not said":        {"max-age=60, stale-while-revalidate=0", set(500), ""},
		"must-revalidate": {"max-age=60, must-revalidate, stale-if-error=60", set(500), ""},
	} {
		t.Run(name, func(t *testing.T) {
			fails := false
			good := set(200, "Cache-Control: "+c.control)
			s := newSite(t, open(t), tagged(httpcache.Options{LoadTimeout: 300 * time.Millisecond}), func(w http.ResponseWriter, r *http.Request) {
				if fails {
					c.fail(w, r)
				} else {
					good(w, r)
				}
			})
			s.get("/")
			expire(t, s)
			fails = true
			got := s.get("/")
			if c.want == "" {
				if got.StatusCode < 400 || isHit(got) || body(t, got) != "body 1" {
					t.Errorf("%d %v", got.StatusCode, got.Header)
				}
				return
			}
			if got.StatusCode != 200 || body(t, got) != "body 1" || got.Header.Get("Cache-Status") != c.want {
				t.Errorf("%d %v", got.StatusCode, got.Header)
			}
			// The handler is left alone for a moment.
			if got := s.get("/"); got.StatusCode != 200 || !isHit(got) || s.runs.Load() != 2 {
				t.Errorf("%d %v, %d runs", got.StatusCode, got.Header, s.runs.Load())
			}
			fails = false
			testkit.Eventually(t, "the new one", func() bool { return body(t, s.get("/")) == "body 2" })
		})
	}
}

// A failure that was flushed, as proxies do, went to the client after a moment,
// without its beginning, in the place of the stale page.
func TestCache_StaleIfErrorOfAFailureThatIsFlushed(t *testing.T) {
	t.Parallel()
	fail := func(length string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "first ")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(150 * time.Millisecond)
			_, _ = io.WriteString(w, "second")
		}
	}
	upstream := httptest.NewServer(fail(""))
	t.Cleanup(upstream.Close) // after the parallel ones
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		fail    http.HandlerFunc
		refused bool // another client was, before
	}{
		"flushed":                  {fail(""), false},
		"flushed, with a length":   {fail("12"), false},
		"flushed, after a refusal": {fail(""), true},
		"of a proxy":               {(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}).ServeHTTP, false},
		"under Unwrap": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w.(interface{ Unwrap() http.ResponseWriter }).Unwrap(), "first")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := set(200, "Cache-Control: max-age=60, stale-if-error=600")
			s := newSite(t, open(t), tagged(httpcache.Options{}), func(w http.ResponseWriter, r *http.Request) { now(w, r) })
			server := httptest.NewServer(s)
			defer server.Close()
			get := func() (*http.Response, string) {
				res, err := http.Get(server.URL)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = res.Body.Close() }()
				b, err := io.ReadAll(res.Body)
				if err != nil {
					t.Errorf("%d %v: %v", res.StatusCode, res.Header, err)
				}
				return res, string(b)
			}
			get()
			expire(t, s)
			if c.refused {
				now = set(403, "Cache-Control: private")
				get()
			}
			now = c.fail
			if res, b := get(); res.StatusCode != 200 || b != "body 1" {
				t.Errorf("%d %q %v", res.StatusCode, b, res.Header)
			}
		})
	}
}

func TestCache_TagsRemovePagesAndObjects(t *testing.T) {
	r := open(t)
	objects, err := cache.New(r, "c", cache.Options[string]{NearCacheBytes: near})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = objects.Close(context.Background()) })
	s := newSite(t, r, httpcache.Options{
		NearCacheBytes: near, Tags: func(r *http.Request) []string { return []string{"page:" + strings.TrimPrefix(r.URL.Path, "/")} },
	}, set(200, "Cache-Control: max-age=60"))
	fill := func() {
		if err := objects.Set(t.Context(), "o", "v", cache.WithTags("page:a")); err != nil {
			t.Fatal(err)
		}
		s.get("/a")
		s.get("/b")
		if !isHit(s.get("/a")) || !isHit(s.get("/b")) {
			t.Fatal("not stored")
		}
	}
	for name, remove := range map[string]func() error{
		"by the objects": func() error { return objects.DeleteTag(t.Context(), "page:a") },
		"by the pages":   func() error { return s.DeleteTag(t.Context(), "page:a") },
	} {
		fill()
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		if isHit(s.get("/a")) || !isHit(s.get("/b")) {
			t.Errorf("%s: pages", name)
		}
		if _, found, _ := objects.Get(t.Context(), "o"); found {
			t.Errorf("%s: objects", name)
		}
	}
}

func TestCache_TagsOfTheHeader(t *testing.T) {
	var version atomic.Int64
	tags := "Surrogate-Key: article-7  front"
	s := newSite(t, open(t), httpcache.Options{NearCacheBytes: near}, func(w http.ResponseWriter, r *http.Request) {
		set(200, "Cache-Control: max-age=60", "Cache-Tag: x y,z", tags)(w, r)
		_, _ = fmt.Fprint(w, version.Load())
	})
	if got := s.get("/"); strings.Contains(got.Header.Get("Cache-Status"), "stored") {
		t.Errorf("the first, whose tags were not known: %v", got.Header)
	}
	for _, tag := range []string{"article-7", "front", "x y", "z"} {
		s.get("/")
		if got := s.get("/"); !isHit(got) || got.Header.Get("Surrogate-Key") == "" {
			t.Fatalf("not stored: %v", got.Header)
		}
		version.Add(1)
		if err := s.DeleteTag(t.Context(), tag); err != nil {
			t.Fatal(err)
		}
		if got := body(t, s.get("/")); got != fmt.Sprint("body 1", version.Load()) {
			t.Errorf("after the removal of %q: %q", tag, got)
		}
	}
	if n := s.runs.Load(); n > 6 {
		t.Errorf("%d runs", n)
	}
	tags = "Surrogate-Key: new"
	if err := s.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.get("/")
	if isHit(s.get("/")) {
		t.Error("stored with a tag that was not known before")
	}
	if !isHit(s.get("/")) {
		t.Error("not stored when it was")
	}
}

func TestCache_TagRemovedDuringARunIsNotMissed(t *testing.T) {
	for name, byHeader := range map[string]bool{"by request": false, "by header": true} {
		t.Run(name, func(t *testing.T) {
			running, goOn := make(chan struct{}), make(chan struct{})
			var version, blocked atomic.Int64
			opt := httpcache.Options{NearCacheBytes: near}
			if !byHeader {
				opt = tagged(opt)
			}
			s := newSite(t, open(t), opt, func(w http.ResponseWriter, _ *http.Request) {
				v := version.Load()
				if blocked.CompareAndSwap(1, 0) {
					running <- struct{}{}
					<-goOn
				}
				w.Header().Set("Cache-Control", "max-age=60")
				if byHeader {
					w.Header().Set("Surrogate-Key", "t")
				}
				_, _ = fmt.Fprint(w, v)
			})
			for range 2 { // the tags of the header are known the second time
				blocked.Store(1)
				done := make(chan struct{})
				go func() {
					defer close(done)
					s.get("/")
				}()
				<-running
				v := version.Add(1)
				if err := s.DeleteTag(t.Context(), "t"); err != nil {
					t.Fatal(err)
				}
				after := make(chan string)
				go func() { after <- body(t, s.get("/")) }()
				time.Sleep(50 * time.Millisecond) // it may wait for the run, and must not take its response
				goOn <- struct{}{}
				if got := <-after; got != fmt.Sprint(v) {
					t.Errorf("during the run: %q, want %d", got, v)
				}
				<-done
				if got := body(t, s.get("/")); got != fmt.Sprint(v) {
					t.Errorf("after the run: %q, want %d", got, v)
				}
				if err := s.DeleteTag(t.Context(), "t"); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestCache_WithoutRedis(t *testing.T) {
	for name, stop := range map[string]func(*madcrowtest.Server){
		"killed": (*madcrowtest.Server).Kill,
		"frozen": (*madcrowtest.Server).Pause,
	} {
		t.Run(name, func(t *testing.T) {
			server := madcrowtest.StartRedis(t)
			r := openConfig(t, server.Config())
			var fails atomic.Bool
			s := newSite(t, r, httpcache.Options{NearCacheBytes: near}, func(w http.ResponseWriter, r *http.Request) {
				if fails.Load() {
					w.WriteHeader(503)
					return
				}
				time.Sleep(20 * time.Millisecond)
				set(200, "Cache-Control: max-age=60, stale-if-error=60")(w, r)
			})
			s.get("/")
			s.get("/") // near
			stop(server)
			begin := time.Now()
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					if got := s.get(fmt.Sprint("/", i%2)); got.StatusCode != 200 || body(t, got) != "body 1" {
						t.Errorf("%d %v", got.StatusCode, got.Header)
					}
				})
			}
			wg.Wait()
			if n, d := s.runs.Load(), time.Since(begin); n > 5 || d > 5*time.Second {
				t.Errorf("%d runs, %v", n, d)
			}
			if got := s.do("POST", "/"); got.StatusCode != 200 {
				t.Errorf("POST: %d", got.StatusCode)
			}
			fails.Store(true)
			if got := s.get("/other"); got.StatusCode != 503 {
				t.Errorf("an error of the handler: %d", got.StatusCode)
			}
		})
	}
}

func TestCache_NearCopyForAHandlerThatFailsWithoutRedis(t *testing.T) {
	server := madcrowtest.StartRedis(t)
	var fails atomic.Bool
	handler := func(w http.ResponseWriter, r *http.Request) {
		if fails.Load() {
			w.WriteHeader(503)
			return
		}
		set(200, "Cache-Control: max-age=60, stale-if-error=60")(w, r)
	}
	// What another process has stored is near from the first reading on; of one's
	// own storing, Redis may still have to notify.
	newSite(t, openConfig(t, server.Config()), httpcache.Options{}, handler).get("/")
	s := newSite(t, openConfig(t, server.Config()), httpcache.Options{NearCacheBytes: near}, handler)
	if got := s.get("/"); !isHit(got) {
		t.Fatalf("%v", got.Header)
	}
	server.Kill()
	fails.Store(true)
	testkit.Eventually(t, "that the near copy is doubted", func() bool { return s.get("/").StatusCode != 200 || s.runs.Load() > 0 })
	if got := s.get("/"); got.StatusCode != 200 || body(t, got) != "body 1" {
		t.Errorf("%d %v", got.StatusCode, got.Header)
	}
}

func TestCache_ClosedLetsEverythingPass(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{}, set(200, "Cache-Control: max-age=60"))
	s.get("/")
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, request("GET", "/"))
	if w.Code != 200 || w.Body.String() != "body 2" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

// Readers and writers at random, on pages with and without variants, whose tags
// are known from the request, from the header, or that are changed by a POST:
// no one gets what was replaced before he asked.
func TestCache_NothingOldAfterAChange(t *testing.T) {
	var versions, changed [6]atomic.Int64
	page := func(r *http.Request) int { return int(r.URL.Path[1] - '0') }
	tags := func(r *http.Request) []string { return []string{fmt.Sprint("page-", page(r))}[:1-min(1, page(r)/2)] }
	s := newSite(t, open(t), httpcache.Options{NearCacheBytes: near, Tags: tags}, func(w http.ResponseWriter, r *http.Request) {
		i := page(r)
		if r.Method == http.MethodPost {
			versions[i].Add(1)
			return
		}
		v := versions[i].Load()
		time.Sleep(time.Duration(v%3) * time.Millisecond)
		w.Header().Set("Cache-Control", "max-age=60, stale-while-revalidate=60, stale-if-error=60")
		if i%2 == 1 {
			w.Header().Set("Vary", "Accept-Language")
		}
		if i/2 == 1 {
			w.Header().Set("Surrogate-Key", fmt.Sprint("page-", i))
		}
		_, _ = fmt.Fprint(w, v)
	})
	change := func(i int) {
		if i/2 == 2 {
			s.do("POST", fmt.Sprint("/", i))
		} else {
			versions[i].Add(1)
			if err := s.DeleteTag(t.Context(), fmt.Sprint("page-", i)); err != nil {
				t.Error(err)
			}
		}
		changed[i].Store(versions[i].Load())
	}
	end := time.Now().Add(2 * time.Second)
	var reads, hits atomic.Int64
	var wg sync.WaitGroup
	for n := range 12 {
		wg.Go(func() {
			for k := n; time.Now().Before(end); k++ {
				i := k % len(versions)
				if n == 0 { // the writer
					time.Sleep(2 * time.Millisecond)
					change(i)
					continue
				}
				least := changed[i].Load()
				got := s.get(fmt.Sprint("/", i), fmt.Sprint("Accept-Language: ", n%3))
				var v int64
				if _, err := fmt.Sscan(body(t, got), &v); err != nil || v < least {
					t.Errorf("page %d: version %d, wanted %d, %v", i, v, least, got.Header)
				}
				if reads.Add(1); isHit(got) {
					hits.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if t.Logf("%d reads, %d hits, %d runs", reads.Load(), hits.Load(), s.runs.Load()); hits.Load() == 0 {
		t.Error("not one hit")
	}
}

func TestCache_LeavesNothingBehind(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := newSite(t, open(t), httpcache.Options{NearCacheBytes: near}, set(200, "Cache-Control: max-age=60, stale-while-revalidate=60"))
	s.get("/")
	if err := s.ExpireTag(t.Context(), "none"); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		s.get(fmt.Sprint("/", i), "Cookie: a=b")
	}
}
