package httpcache_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// recycler is a router that uses what belongs to a request for the next one.
type recycler struct {
	next http.Handler
	pool sync.Pool
}

type recycled struct{ id string }

type recycledKey struct{}

func (h *recycler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, _ := h.pool.Get().(*recycled)
	if c == nil {
		c = new(recycled)
	}
	c.id = r.URL.Path
	h.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), recycledKey{}, c)))
	c.id = "somebody else's"
	h.pool.Put(c)
}

// A handler never runs beyond its request, whose values a router may use again.
func TestCache_InsideARouterThatRecyclesRequests(t *testing.T) {
	t.Parallel()
	for name, control := range map[string]string{"a client that leaves": "max-age=60", "a stale page": "max-age=60, stale-while-revalidate=60"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun, goOn := make(chan struct{}, 9), make(chan struct{}, 9)
			page := set(200, "Cache-Control: "+control)
			goOn <- struct{}{}
			s := newSiteInside(t, openConfig(t, madcrowtest.StartRedis(t).Config()), tagged(httpcache.Options{}), func(w http.ResponseWriter, r *http.Request) {
				begun <- struct{}{}
				<-goOn
				c, _ := r.Context().Value(recycledKey{}).(*recycled)
				page(w, r)
				_, _ = io.WriteString(w, c.id)
			})
			srv := httptest.NewServer(&recycler{next: s.Handler})
			defer srv.Close()
			get := func(ctx context.Context) (string, error) {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/own", nil)
				res, err := srv.Client().Do(req)
				if err != nil {
					return "", err
				}
				defer func() { _ = res.Body.Close() }()
				text, err := io.ReadAll(res.Body)
				return string(text), err
			}
			if name == "a stale page" {
				if _, err := get(t.Context()); err != nil {
					t.Fatal(err)
				}
				<-begun
				expire(t, s)
				// It is whole for the client while the handler runs.
				if got, err := get(t.Context()); err != nil || got != "body 1/own" {
					t.Fatalf("%q %v", got, err)
				}
				<-begun
			} else {
				ctx, cancel := context.WithCancel(t.Context())
				go func() { <-begun; cancel() }()
				<-goOn
				_, _ = get(ctx)
			}
			time.Sleep(50 * time.Millisecond) // the request would have ended
			goOn <- struct{}{}
			goOn <- struct{}{}
			eventually(t, "a new page", func() bool {
				got, err := get(t.Context())
				if !strings.HasSuffix(got, "/own") {
					t.Fatalf("%q %v", got, err)
				}
				return name != "a stale page" || got == "body 2/own"
			})
		})
	}
}

func TestCache_QueuedDelete(t *testing.T) {
	t.Parallel()
	s := newSite(t, openConfig(t, madcrowtest.StartRedis(t).Config()), httpcache.Options{}, set(200, "Cache-Control: max-age=60"))
	s.get("/")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Delete(ctx, request("GET", "/")); !errors.Is(err, cache.ErrQueued) {
		t.Fatal(err)
	}
	if got := s.get("/"); isHit(got) {
		t.Errorf("at once: %v", got.Header)
	}
	eventually(t, "that it is removed, and a new one stored", func() bool {
		got := s.get("/")
		if body(t, got) == "body 1" {
			t.Fatalf("the old one: %v", got.Header)
		}
		return isHit(got)
	})
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

// breaking is a client's writer whose header cannot be written.
type breaking struct{ http.ResponseWriter }

func (breaking) WriteHeader(int) { panic("no header") }

func TestCache_WriterThatPanicsHangsNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t, openConfig(t, madcrowtest.StartRedis(t).Config()), httpcache.Options{LoadTimeout: 200 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done() // until it is the client's alone
		_, _ = io.WriteString(w, "x")
	})
	ended := make(chan any)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	go func() {
		defer func() { ended <- recover() }()
		s.ServeHTTP(breaking{httptest.NewRecorder()}, request("GET", "/").WithContext(ctx))
	}()
	select {
	case <-ended:
	case <-time.After(15 * time.Second):
		t.Error("it hangs")
	}
}

func TestCache_StrippedPrefixesAreApart(t *testing.T) {
	t.Parallel()
	s := newSite(t, openConfig(t, madcrowtest.StartRedis(t).Config()), httpcache.Options{Query: func(name string) bool { return name == "q" }}, nil)
	mux := http.NewServeMux()
	for _, name := range []string{"/a", "/b"} {
		mux.Handle(name+"/", http.StripPrefix(name, s.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			_, _ = io.WriteString(w, name+" as "+r.RequestURI)
		}))))
	}
	s.Handler = mux
	for _, url := range []string{"/a/x", "/b/x", "/a/x?q=1", "/b/x?q=1"} {
		for range 2 {
			if got := body(t, s.get(url)); got != url[:2]+" as "+url {
				t.Errorf("%s: %q", url, got)
			}
		}
		if got := s.get(url); !isHit(got) {
			t.Errorf("%s: %v", url, got.Header)
		}
	}
	if got := body(t, s.get("/a/x?q=1&utm=2")); got != "/a as /a/x?q=1" {
		t.Errorf("%q", got)
	}
	gone := request("GET", "/x")
	gone.RequestURI = "/a/x"
	if err := s.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if isHit(s.get("/a/x")) || !isHit(s.get("/b/x")) {
		t.Error("Delete")
	}
}

// A header whose name is spelt so that the rules do not see it is seen by
// clients.
func TestCache_OddlySpeltHeadersAreNotShared(t *testing.T) {
	t.Parallel()
	s := newSite(t, openConfig(t, madcrowtest.StartRedis(t).Config()), httpcache.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header()["set-cookie"] = []string{"sid=secret"}
	})
	s.get("/")
	if got := s.get("/"); isHit(got) {
		t.Errorf("%v", got.Header)
	}
}
