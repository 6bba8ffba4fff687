package httpcache_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// userPage answers with what the header says of the user.
func userPage(header string, response []string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		status, size, flushes := 200, 10, false
		for _, line := range response {
			switch name, value, _ := strings.Cut(line, ": "); name {
			case "Status":
				status = 500
			case "Flush":
				flushes = true
			case "Large":
				size = 5000
			default:
				w.Header().Add(name, value)
			}
		}
		time.Sleep(20 * time.Millisecond)
		w.WriteHeader(status)
		if flushes { // long before the end
			w.(http.Flusher).Flush()
			time.Sleep(200 * time.Millisecond)
		}
		for _, b := range []byte(r.Header.Get(header)) {
			_, _ = w.Write([]byte{b})
		}
		_, _ = io.WriteString(w, strings.Repeat("!", size))
	}
}

// Each of many users who ask at once, in two processes, gets the page that was
// made for him, however it says that it is his.
func TestCache_NoOneGetsThePageOfAnother(t *testing.T) {
	public := "Cache-Control: public, max-age=60"
	for name, c := range map[string]struct {
		user     string // the header that says who asks
		response []string
	}{
		"private":                 {"X-User", []string{"Cache-Control: private, max-age=60"}},
		"no-store":                {"X-User", []string{"Cache-Control: no-store"}},
		"no-cache":                {"X-User", []string{"Cache-Control: no-cache, max-age=60"}},
		"nothing said":            {"X-User", nil},
		"Set-Cookie":              {"X-User", []string{public, "Set-Cookie: session=1"}},
		"Vary: *":                 {"X-User", []string{public, "Vary: *"}},
		"Vary":                    {"X-User", []string{public, "Vary: X-User"}},
		"Cookie":                  {"Cookie", []string{"Cache-Control: max-age=60"}},
		"Cookie, must-revalidate": {"Cookie", []string{"Cache-Control: max-age=60, must-revalidate"}},
		"Cookie, public, Vary":    {"Cookie", []string{public, "Vary: Cookie"}},
		"Authorization":           {"Authorization", []string{"Cache-Control: max-age=60"}},
		"Authorization, Vary":     {"Authorization", []string{public, "Vary: Authorization"}},
		"an API key":              {"X-Api-Key", []string{"Cache-Control: max-age=60"}},
		"an error":                {"X-User", []string{"Status: 500", public}},
		"a stream":                {"X-User", []string{"Flush: 1", public}},
		"large":                   {"X-User", []string{"Large: 1", public}},
		"a tag of the header":     {"X-User", []string{"Cache-Control: private", "Surrogate-Key: x"}},
	} {
		t.Run(name, func(t *testing.T) {
			handler := userPage(c.user, c.response)
			opt := httpcache.Options{NearCacheBytes: near, MaxBody: 1000, Credentials: []string{"X-Api-Key"}, DefaultTTL: time.Minute}
			if name == "nothing said" {
				opt.DefaultTTL = 0
			}
			cfg := ownConfig(t)
			sites := []*site{newSite(t, openConfig(t, cfg), opt, handler), newSite(t, openConfig(t, cfg), opt, handler)}
			for round := range 2 {
				var wg sync.WaitGroup
				for i := range 50 {
					wg.Go(func() {
						user := fmt.Sprintf("user=%d", i)
						got := sites[i%2].get("/", c.user+": "+user)
						if b := body(t, got); strings.TrimRight(b, "!") != user {
							t.Errorf("round %d: %s got %.20q, %v", round, user, b, got.Header)
						}
					})
				}
				wg.Wait()
			}
		})
	}
}

// Requests for what is not shareable do not wait for one another.
func TestCache_WhatIsNotSharedIsNotSerialized(t *testing.T) {
	const each = 50 * time.Millisecond
	var n atomic.Int64
	for name, response := range map[string]string{
		"private": "Cache-Control: private", "an error": "Status: 500", "tags that are new each time": "Cache-Control: max-age=60",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(each)
				if response == "Status: 500" {
					w.WriteHeader(500)
					return
				}
				if response == "Cache-Control: max-age=60" {
					w.Header().Set("Surrogate-Key", fmt.Sprint("t", n.Add(1)))
				}
				set(200, response)(w, r)
			})
			begin := time.Now()
			for range 3 {
				var wg sync.WaitGroup
				for range 30 {
					wg.Go(func() { s.get("/") })
				}
				wg.Wait()
			}
			// The first wait for one, and for themselves; the others do not.
			if d := time.Since(begin); d > 30*each {
				t.Errorf("3 rounds took %v", d)
			}
			if n := s.runs.Load(); n != 90 {
				t.Errorf("%d runs", n)
			}
		})
	}
}

func TestCache_PassIsTriedAgain(t *testing.T) {
	var public atomic.Bool
	s := newSite(t, open(t), httpcache.Options{NearCacheBytes: near}, func(w http.ResponseWriter, r *http.Request) {
		if public.Load() {
			set(200, "Cache-Control: max-age=60")(w, r)
		} else {
			set(200, "Cache-Control: private")(w, r)
		}
	})
	s.get("/")
	if got := s.get("/"); got.Header.Get("Cache-Status") != "madcrow; fwd=miss; detail=pass" {
		t.Errorf("%v", got.Header)
	}
	public.Store(true)
	begin := time.Now()
	testkit.Eventually(t, "a hit", func() bool { return isHit(s.get("/")) })
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("after %v: as long as PassTTL", d)
	}
}

func TestCache_HeadersOfOthersAreNotStored(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{}, set(200, "Cache-Control: max-age=60", "Vary: X-A", "Cache-Status: origin; hit", "X-Both: inner"))
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", r.URL.Query().Get("utm_user"))
		w.Header().Set("Vary", "Origin")
		w.Header().Set("X-Both", "outer")
		s.Handler.ServeHTTP(w, r)
	})
	for _, user := range []string{"a", "b"} {
		for _, url := range []string{"/", "/private"} {
			r := request("GET", url)
			r.URL.RawQuery = ""
			w := httptest.NewRecorder()
			w.Header().Set("Set-Cookie", user)
			outer(w, r)
			h := w.Header()
			if len(h["Set-Cookie"]) != 1 || strings.Join(h["Vary"], ",") != "Origin,X-A" || h.Get("X-Both") != "inner" || len(h["Cache-Status"]) != 2 || h["Cache-Status"][0] != "origin; hit" {
				t.Errorf("%s %s: %v", user, url, h)
			}
		}
	}
	if got := s.get("/"); !isHit2(got) || got.Header.Get("Set-Cookie") != "" {
		t.Errorf("%v", got.Header)
	}
}

func isHit2(r *http.Response) bool {
	return strings.Contains(strings.Join(r.Header["Cache-Status"], ", "), "madcrow; hit")
}
