package httpcache_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

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
	testkit.Eventually(t, "that it is removed, and a new one stored", func() bool {
		got := s.get("/")
		if body(t, got) == "body 1" {
			t.Fatalf("the old one: %v", got.Header)
		}
		return isHit(got)
	})
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
