package httpcache_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/internal/testkit"
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
			testkit.Eventually(t, "a new page", func() bool {
				got, err := get(t.Context())
				if !strings.HasSuffix(got, "/own") {
					t.Fatalf("%q %v", got, err)
				}
				return name != "a stale page" || got == "body 2/own"
			})
		})
	}
}
