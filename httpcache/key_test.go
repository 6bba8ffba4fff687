package httpcache_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// versions is a handler whose pages show how often their path was changed, and
// whatever says what was asked for.
func versions() http.HandlerFunc {
	var mu sync.Mutex
	of := map[string]int{}
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method != http.MethodGet {
			of[r.URL.Path]++
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Cache-Control", "public, max-age=60")
		_, _ = fmt.Fprint(w, "version ", of[r.URL.Path], r.Header["X-Forwarded-Server"])
	}
}

// What names only the way was part of the key: each proxy had a cache of its
// own, and a change through one left the pages of the others.
func TestCache_TheWayIsNoPartOfTheKey(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{}, versions())
	s.get("/way", "X-Forwarded-Server: t1", "Via: 1.1 a", "X-Forwarded-By: p1", "Forwarded: by=p1;for=1.2.3.4", "X-Original-Forwarded-For: 1.2.3.4")
	got := s.get("/way", "X-Forwarded-Server: t2", "Via: 1.1 b", "X-Forwarded-By: p2", "Forwarded: by=p2;for=1.2.3.5", "X-Original-Forwarded-For: 1.2.3.5")
	if b := body(t, got); !isHit(got) || b != "version 0 []" {
		t.Errorf("%q %v", b, got.Header)
	}
}

// A change removed the variant alone that its own headers named.
func TestCache_AChangeRemovesAllVariants(t *testing.T) {
	ways := [][]string{
		nil,
		{"X-Forwarded-Host: shop.example"},
		{"Forwarded: host=a.example;proto=https"},
		{"X-Rewrite-Url: /x"},
		{"X-Forwarded-Proto: https", "X-Forwarded-Prefix: /shop"},
		{"Cookie: a=b"},
		{"Accept-Language: de"},
		{"Accept-Language: en"},
		{"X-Forwarded-Uri: /a?utm=1"},
	}
	r := open(t)
	s := newSite(t, r, httpcache.Options{KeyHeaders: []string{"Accept-Language"}, NearCacheBytes: near}, versions())
	other := newSite(t, r, httpcache.Options{}, versions())
	for name, change := range map[string]func(){
		"plain":              func() { s.do("PUT", "/a/b?x=1&y=2") },
		"a proxy":            func() { s.do("POST", "/a/b?x=1&y=2", "X-Forwarded-Host: other.example", "X-Rewrite-Url: /y") },
		"a language":         func() { s.do("PATCH", "/a/b?x=1&y=2", "Accept-Language: fr") },
		"escapes":            func() { s.do("DELETE", "/%61/%62?%78=1&y=2") },
		"the order":          func() { s.do("PUT", "/a/b?y=2&x=1&") },
		"a port, a dot":      func() { s.do("PUT", "http://example.com:80/a/./b/?x=1&y=2") },
		"https":              func() { s.do("PUT", "https://example.com/a/b?x=1&y=2") },
		"another process":    func() { other.do("PUT", "/a/b?x=1&y=2") },
		"Delete":             func() { mustDelete(t, s, "/a/b?x=1&y=2") },
		"Delete, a full URL": func() { mustDelete(t, s, "http://shop.example/a/b?x=1&y=2") },
	} {
		for range 2 {
			for _, way := range ways {
				s.get("/a/b?x=1&y=2", way...)
			}
		}
		for _, way := range ways {
			if got := s.get("/a/b?x=1&y=2", way...); !isHit(got) {
				t.Fatalf("%s: %v before: %v", name, way, got.Header)
			}
		}
		s.get("/a")
		change()
		for _, way := range ways {
			if got := s.get("/a/b?x=1&y=2", way...); isHit(got) {
				t.Errorf("after %s: %v hits", name, way)
			}
		}
		if got := s.get("/a"); !isHit(got) {
			t.Errorf("after %s: the page of another path is gone", name)
		}
	}
}

func mustDelete(t *testing.T, s *site, url string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err == nil {
		err = s.Delete(t.Context(), r)
	}
	if err != nil {
		t.Error(err)
	}
}

// Of a 201 with Location the absence of the new page stayed.
func TestCache_AChangeRemovesWhatItsResponseNames(t *testing.T) {
	for name, c := range map[string]struct {
		header, value string
		want          bool // that it is removed
	}{
		"Location":            {"Location", "/items/5", true},
		"Content-Location":    {"Content-Location", "/items/5?", true},
		"relative":            {"Location", "items/5", true},
		"the same host":       {"Location", "http://EXAMPLE.com:80/items/5", true},
		"that of the proxy":   {"Location", "https://shop.example/items/5", true},
		"with its prefix":     {"Location", "https://shop.example/shop/items/5", true},
		"another host":        {"Location", "http://elsewhere.example/items/5", false},
		"a page of its own":   {"Location", "/items/6", false},
		"what is no URL":      {"Location", "http://[::1/items/5", false},
		"with no path at all": {"Location", "mailto:a@example.com", false},
	} {
		t.Run(name, func(t *testing.T) {
			there := false
			s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				switch {
				case r.Method == http.MethodPost:
					there = true
					w.Header().Set(c.header, c.value)
					w.WriteHeader(http.StatusCreated)
				case !there:
					w.WriteHeader(http.StatusNotFound)
				}
			})
			s.get("/items/5")
			s.do("POST", "/items", "X-Forwarded-Host: shop.example", "X-Forwarded-Prefix: /shop")
			if got := s.get("/items/5"); isHit(got) == c.want {
				t.Errorf("%d %v", got.StatusCode, got.Header)
			}
		})
	}
}

// A removal while Redis is away holds for this process at once, and is sent.
func TestCache_ChangesAreQueued(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{NearCacheBytes: near}, versions())
	s.get("/", "X-Forwarded-Host: a")
	s.get("/", "X-Forwarded-Host: a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Delete(ctx, request("GET", "/")); err == nil {
		t.Fatal("no error")
	}
	if got := s.get("/", "X-Forwarded-Host: a"); isHit(got) {
		t.Errorf("%v", got.Header)
	}
	testkit.Eventually(t, "a new one", func() bool { return isHit(s.get("/", "X-Forwarded-Host: a")) })
}

// Headers that say what was asked for, and were not known as such, let one
// client have a page stored for others that was made by his header.
func TestCache_NoOnePoisonsByAHeaderThatSaysWhatWasAskedFor(t *testing.T) {
	names := strings.Fields(`X-Forwarded-Uri X-Forwarded-Path X-Forwarded-Url X-Forwarded-Method X-Forwarded-Hostname X-Forwarded-Domain
		X-Forwarded-Host X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Proto X-Forwarded-Made-Up X-Forwarded-Ssl
		X-Scheme X-Envoy-Original-Path X-Envoy-Original-Host X-Replaced-Path X-MS-Original-URL CloudFront-Forwarded-Proto
		CF-Visitor X-Arr-SSL X-Original-URL X-Original-Uri X-Rewrite-URL X-Host X-Original-Host Forwarded`)
	s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		for _, name := range names {
			_, _ = fmt.Fprint(w, r.Header.Values(name))
		}
	})
	for i, name := range names {
		url := fmt.Sprint("/", i)
		s.get(url, name+": evil=evil")
		if got := body(t, s.get(url)); strings.Contains(got, "evil") {
			t.Errorf("%s: %q", name, got)
		}
		if got := s.get(url, name+": evil=evil"); !isHit(got) {
			t.Errorf("%s: %v", name, got.Header)
		}
	}
}

// By what a proxy says of the client he is known, as by a cookie: of those that
// send no cookie one client got the page of another.
func TestCache_ClientsThatAProxyKnowsAreKnown(t *testing.T) {
	names := strings.Fields(`X-Auth-Request-User X-Auth-Request-Groups Remote-User Remote-Email Remote-Groups Remote-Name X-Forwarded-User
		Cf-Access-Jwt-Assertion Cf-Access-Authenticated-User-Email Tailscale-User-Login Tailscale-User-Name
		X-Consumer-Id X-Consumer-Username X-Consumer-Custom-Id X-Credential-Identifier X-Authenticated-Userid X-Userinfo
		Ssl-Client-Subject-Dn Ssl-Client-Cert X-Ssl-Client-Dn X-Client-Cert-Hash Client-Cert X-Amzn-Mtls-Clientcert-Subject
		X-Amzn-Oidc-Accesstoken X-Apigateway-Api-Userinfo X-Endpoint-Api-Userinfo X-Serverless-Authorization
		X-Goog-Authenticated-User-Id X-Ms-Client-Principal-Name X-Ms-Token-Aad-Id-Token
		X-Pomerium-Jwt-Assertion X-Pomerium-Claim-Email X-Authentik-Username X-Vouch-User X-Webauth-Email
		X-Api-Key Apikey`)
	s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = fmt.Fprint(w, "for ", r.Header.Get(r.URL.Path[1:]))
	})
	for _, name := range names {
		s.get("/"+name, name+": alice")
		if got := body(t, s.get("/"+name, name+": bob")); got != "for bob" {
			t.Errorf("%s: %q", name, got)
		}
		if got := body(t, s.get("/"+name)); got != "for " {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, name := range strings.Fields(`Remote-Addr X-Remote-Ip X-Real-Ip X-Request-Id X-Amzn-Trace-Id X-Client-Ip Cf-Connecting-Ip Cf-Ray Sec-Fetch-Site
		X-Client-Data X-Consumed Tailscale X-Goog-Request-Params`) {
		s.get("/other/"+name, name+": a")
		if got := s.get("/other/"+name, name+": b"); !isHit(got) {
			t.Errorf("%s: %v, though it is of no client", name, got.Header)
		}
	}
}

// Parameters that do not matter made entries of their own where a proxy repeats
// the URL in a header.
func TestCache_QueryHoldsForURLsInHeaders(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{Query: func(name string) bool { return !strings.HasPrefix(name, "utm_") }}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = fmt.Fprint(w, r.Header["X-Original-Uri"], r.Header["X-Original-Url"])
	})
	for i, e := range []string{"/a?q=1&p=2&utm_x=0", "/a?utm_x=1&p=2&q=1", "/a?q=1&p=2"} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, request("GET", "/a", "X-Original-Uri: "+e, "X-Original-Url: http://example.com"+e))
		if got := w.Result(); isHit(got) != (i > 0) || w.Body.String() != "[/a?q=1&p=2] [http://example.com/a?q=1&p=2]" {
			t.Errorf("%s: %q %v", e, w.Body, got.Header)
		}
	}
	if n := s.runs.Load(); n != 1 {
		t.Errorf("%d runs", n)
	}
}
