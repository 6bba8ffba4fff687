package httpcache_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func httpDate(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }

// storable is what a second request finds of the first one's response.
var storable = []struct {
	name     string
	status   int
	response []string
	request  []string
	opt      httpcache.Options
	want     bool
}{
	{"max-age", 200, []string{"Cache-Control: max-age=60"}, nil, httpcache.Options{}, true},
	{"max-age, quoted, among others", 200, []string{`Cache-Control: x="a,max-age=0",  MAX-AGE="60" `}, nil, httpcache.Options{}, true},
	{"max-age in a second line", 200, []string{"Cache-Control: public", "Cache-Control: max-age=60"}, nil, httpcache.Options{}, true},
	{"max-age=0", 200, []string{"Cache-Control: max-age=0"}, nil, httpcache.Options{DefaultTTL: time.Minute, MinTTL: time.Minute}, false},
	{"max-age that is no number", 200, []string{"Cache-Control: max-age=much"}, nil, httpcache.Options{DefaultTTL: time.Minute}, false},
	{"negative max-age", 200, []string{"Cache-Control: max-age=-1"}, nil, httpcache.Options{}, false},
	{"very large max-age", 200, []string{"Cache-Control: max-age=99999999999999999999999"}, nil, httpcache.Options{}, true},
	{"two max-ages", 200, []string{"Cache-Control: max-age=60, max-age=0"}, nil, httpcache.Options{}, false},
	{"s-maxage over max-age", 200, []string{"Cache-Control: max-age=0, s-maxage=60"}, nil, httpcache.Options{}, true},
	{"s-maxage=0 over max-age", 200, []string{"Cache-Control: max-age=60, s-maxage=0"}, nil, httpcache.Options{}, false},
	{"Expires", 200, []string{"Expires: " + httpDate(time.Minute)}, nil, httpcache.Options{}, true},
	{"Expires in the past", 200, []string{"Expires: " + httpDate(-time.Minute)}, nil, httpcache.Options{DefaultTTL: time.Minute}, false},
	{"Expires: 0", 200, []string{"Expires: 0"}, nil, httpcache.Options{DefaultTTL: time.Minute}, false},
	{"max-age over Expires", 200, []string{"Expires: 0", "Cache-Control: max-age=60"}, nil, httpcache.Options{}, true},
	{"Expires by Date", 200, []string{"Date: " + httpDate(0), "Expires: " + httpDate(time.Minute)}, nil, httpcache.Options{}, true},
	{"too old already", 200, []string{"Age: 61", "Cache-Control: max-age=60"}, nil, httpcache.Options{}, false},
	{"too old already, by Date", 200, []string{"Date: " + httpDate(-time.Hour), "Cache-Control: max-age=60"}, nil, httpcache.Options{}, false},
	{"public alone", 200, []string{"Cache-Control: public"}, nil, httpcache.Options{}, false},
	{"nothing said", 200, nil, nil, httpcache.Options{}, false},
	{"nothing said, with a default", 200, nil, nil, httpcache.Options{DefaultTTL: time.Minute}, true},
	{"nothing said, 404, with a default", 404, nil, nil, httpcache.Options{DefaultTTL: time.Minute}, true},
	{"nothing said, 302, with a default", 302, nil, nil, httpcache.Options{DefaultTTL: time.Minute}, false},
	{"302 with max-age", 302, []string{"Cache-Control: max-age=60", "Location: /x"}, nil, httpcache.Options{}, true},
	{"204 with max-age", 204, []string{"Cache-Control: max-age=60"}, nil, httpcache.Options{}, true},
	{"206", 206, []string{"Cache-Control: max-age=60"}, nil, httpcache.Options{}, false},
	{"304 unasked", 304, []string{"Cache-Control: max-age=60"}, nil, httpcache.Options{}, false},
	{"500 with max-age", 500, []string{"Cache-Control: max-age=60"}, nil, httpcache.Options{DefaultTTL: time.Minute}, false},
	{"501 with max-age", 501, []string{"Cache-Control: max-age=60"}, nil, httpcache.Options{DefaultTTL: time.Minute}, false},
	{"no-store", 200, []string{"Cache-Control: no-store, public, max-age=60"}, nil, httpcache.Options{}, false},
	{"no-store, must-understand", 200, []string{"Cache-Control: max-age=60, no-store, must-understand"}, nil, httpcache.Options{}, false},
	{"private", 200, []string{"Cache-Control: private, max-age=60"}, nil, httpcache.Options{}, false},
	{"private, of a header", 200, []string{`Cache-Control: private="x-a", max-age=60`}, nil, httpcache.Options{}, false},
	{"no-cache", 200, []string{"Cache-Control: no-cache, max-age=60"}, nil, httpcache.Options{}, false},
	{"Pragma", 200, []string{"Pragma: no-cache"}, nil, httpcache.Options{DefaultTTL: time.Minute}, false},
	{"must-revalidate", 200, []string{"Cache-Control: must-revalidate, max-age=60"}, nil, httpcache.Options{}, true},
	{"Set-Cookie", 200, []string{"Cache-Control: public, max-age=60", "Set-Cookie: a=b"}, nil, httpcache.Options{}, false},
	{"Vary: *", 200, []string{"Cache-Control: public, max-age=60", "Vary: Accept, *"}, nil, httpcache.Options{}, false},
	{"too many in Vary", 200, []string{"Cache-Control: max-age=60", "Vary: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q"}, nil, httpcache.Options{}, false},
	{"event stream", 200, []string{"Cache-Control: max-age=60", "Content-Type: Text/Event-Stream; charset=utf-8"}, nil, httpcache.Options{}, false},
	{"trailers", 200, []string{"Cache-Control: max-age=60", "Trailer: X-Sum"}, nil, httpcache.Options{}, false},
	{"a wrong Content-Length", 200, []string{"Cache-Control: max-age=60", "Content-Length: 7"}, nil, httpcache.Options{}, false},
	{"a tag that is none", 200, []string{"Cache-Control: max-age=60", "Surrogate-Key: " + strings.Repeat("x", 300)}, nil, httpcache.Options{}, false},
	{"stale at once, but allowed", 200, []string{"Cache-Control: max-age=0, stale-while-revalidate=60"}, nil, httpcache.Options{}, true},

	{"Authorization", 200, []string{"Cache-Control: max-age=60"}, []string{"Authorization: Bearer x"}, httpcache.Options{}, false},
	{"Authorization, public", 200, []string{"Cache-Control: public, max-age=60"}, []string{"Authorization: Bearer x"}, httpcache.Options{}, true},
	{"Authorization, s-maxage", 200, []string{"Cache-Control: s-maxage=60"}, []string{"Authorization: Bearer x"}, httpcache.Options{}, true},
	{"Authorization, must-revalidate", 200, []string{"Cache-Control: must-revalidate, max-age=60"}, []string{"Authorization: Bearer x"}, httpcache.Options{}, true},
	{"Authorization, proxy-revalidate", 200, []string{"Cache-Control: proxy-revalidate, max-age=60"}, []string{"Authorization: Bearer x"}, httpcache.Options{}, false},
	{"Cookie", 200, []string{"Cache-Control: max-age=60"}, []string{"Cookie: a=b"}, httpcache.Options{DefaultTTL: time.Minute}, false},
	{"Cookie, public", 200, []string{"Cache-Control: public, max-age=60"}, []string{"Cookie: a=b"}, httpcache.Options{}, true},
	{"Cookie, must-revalidate", 200, []string{"Cache-Control: must-revalidate, max-age=60"}, []string{"Cookie: a=b"}, httpcache.Options{}, false},
	{"Cookie that does not matter", 200, []string{"Cache-Control: max-age=60"}, []string{"Cookie: _ga=b; _gb=c"}, httpcache.Options{Cookie: func(n string) bool { return n[0] != '_' }}, true},
	{"one Cookie that matters", 200, []string{"Cache-Control: max-age=60"}, []string{"Cookie: _ga=b; id=c"}, httpcache.Options{Cookie: func(n string) bool { return n[0] != '_' }}, false},
	{"credentials of the options", 200, []string{"Cache-Control: max-age=60"}, []string{"X-Ticket: k"}, httpcache.Options{Credentials: []string{"x-ticket"}}, false},
	{"a Range", 200, []string{"Cache-Control: max-age=60"}, []string{"Range: bytes=0-1"}, httpcache.Options{}, false},
	{"another method by header", 200, []string{"Cache-Control: max-age=60"}, []string{"X-HTTP-Method-Override: POST"}, httpcache.Options{}, false},
	{"no-cache of the client", 200, []string{"Cache-Control: max-age=60"}, []string{"Cache-Control: no-cache", "Pragma: no-cache"}, httpcache.Options{}, true},
	{"bypassed", 200, []string{"Cache-Control: max-age=60"}, nil, httpcache.Options{Bypass: func(r *http.Request) bool { return r.URL.Path == "/" }}, false},
}

func TestCache_WhatMayBeStored(t *testing.T) {
	for _, c := range storable {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, open(t), c.opt, set(c.status, c.response...))
			first, second := s.get("/", c.request...), s.get("/", c.request...)
			if isHit(second) != c.want || (s.runs.Load() == 1) != c.want {
				t.Errorf("%d runs, first %v, second %v", s.runs.Load(), first.Header["Cache-Status"], second.Header["Cache-Status"])
			}
			if first.StatusCode != c.status || second.StatusCode != c.status {
				t.Errorf("status %d, then %d", first.StatusCode, second.StatusCode)
			}
			if stored := strings.Contains(first.Header.Get("Cache-Status"), "; stored"); stored != c.want {
				t.Errorf("the first says %v", first.Header["Cache-Status"])
			}
		})
	}
}

func TestCache_BoundsOfLives(t *testing.T) {
	opt := httpcache.Options{MinTTL: 20 * time.Second, MaxTTL: 100 * time.Second, DefaultTTL: 50 * time.Second}
	for response, want := range map[string]string{
		"Cache-Control: max-age=1":                "19",
		"Cache-Control: max-age=1000":             "9",
		"X-A: b":                                  "4",
		"Age: 30\nCache-Control: max-age=60":      "2",
		"Expires: Fri, 01 Jan 2100 00:00:00 GMT":  "9",
		"Cache-Control: max-age=60, s-maxage=40 ": "3",
	} {
		s := newSite(t, open(t), opt, set(200, strings.Split(response, "\n")...))
		url := "/" + want + fmt.Sprint(len(response))
		s.get(url)
		got := s.get(url).Header
		if status := got.Get("Cache-Status"); !strings.HasPrefix(status, "madcrow; hit; ttl="+want) {
			t.Errorf("%q: %q", response, status)
		}
		if strings.HasPrefix(response, "Age") && got.Get("Age") != "30" {
			t.Errorf("%q: Age %q", response, got.Get("Age"))
		}
	}
}

// A client who wants no stale page got it all the same, where the handler had
// refused another one and the page was kept meanwhile.
func TestCache_ClientsAreListenedToAfterARefusalToo(t *testing.T) {
	t.Parallel()
	var now atomic.Value
	now.Store(set(200, "Cache-Control: max-age=60, stale-while-revalidate=600"))
	s := newSite(t, open(t), tagged(httpcache.Options{ObeyRequest: true}), func(w http.ResponseWriter, r *http.Request) { now.Load().(http.HandlerFunc)(w, r) })
	s.get("/")
	expire(t, s)
	now.Store(set(403, "Cache-Control: private"))
	testkit.Eventually(t, "the refusal", func() bool { s.get("/"); return s.runs.Load() == 2 })
	for _, wait := range []time.Duration{10 * time.Millisecond, 1100 * time.Millisecond} { // known, then to be tried again
		time.Sleep(wait)
		for _, line := range []string{"Cache-Control: no-cache", "Pragma: no-cache", "Cache-Control: max-age=0", "Cache-Control: min-fresh=1"} {
			if got := s.get("/", line); line != "Cache-Control: max-age=0" || wait > time.Second {
				if got.StatusCode != 403 || got.Header.Get("Cache-Status") != "madcrow; fwd=request" {
					t.Errorf("%s after %v: %d %v", line, wait, got.StatusCode, got.Header)
				}
			}
			if got := s.get("/"); got.StatusCode != 200 || !isHit(got) {
				t.Errorf("%s after %v, then the others: %d %v", line, wait, got.StatusCode, got.Header)
			}
		}
		if got := s.get("/", "Cache-Control: only-if-cached"); got.StatusCode != 200 || !isHit(got) {
			t.Errorf("only-if-cached: %d %v", got.StatusCode, got.Header)
		}
		if got := s.get("/", "Cache-Control: only-if-cached, no-cache"); got.StatusCode != 504 {
			t.Errorf("only-if-cached, no-cache: %d %v", got.StatusCode, got.Header)
		}
	}
	now.Store(set(200, "Cache-Control: max-age=60", "X-New: 1"))
	testkit.Eventually(t, "the new page", func() bool {
		got := s.get("/", "Cache-Control: no-cache")
		return got.StatusCode == 200 && got.Header.Get("X-New") == "1"
	})
}

func TestCache_ClientsAreListenedToByOption(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{ObeyRequest: true}, set(200, "Cache-Control: max-age=60, stale-if-error=60"))
	ask := func(control string) (status int, hit bool) {
		got := s.get("/", "Cache-Control: "+control)
		return got.StatusCode, isHit(got)
	}
	if status, _ := ask("only-if-cached"); status != 504 || s.runs.Load() != 0 {
		t.Errorf("only-if-cached of nothing: %d, %d runs", status, s.runs.Load())
	}
	if _, hit := ask("no-store"); hit {
		t.Error("no-store hits")
	}
	if status, _ := ask("only-if-cached"); status != 504 {
		t.Error("the response to no-store was stored")
	}
	s.get("/")
	for control, want := range map[string]bool{
		"max-age=30": true, "min-fresh=30": true, "min-fresh=61": false, "no-cache": false, "only-if-cached": true, "no-store": false, "max-stale": true,
	} {
		if _, hit := ask(control); hit != want {
			t.Errorf("%s: hit %v", control, hit)
		}
	}
	for _, pragma := range []string{"Pragma: no-cache", "Pragma: x, No-Cache"} { // directives have no case
		if got := s.get("/", pragma); isHit(got) {
			t.Error(pragma, "hits")
		}
	}
	before := body(t, s.get("/"))
	s.get("/", "Cache-Control: no-cache")
	if after := s.get("/"); !isHit(after) || body(t, after) == before {
		t.Error("what no-cache brought is not what is stored")
	}
	if err := s.ExpireTag(t.Context(), "none"); err != nil {
		t.Error(err)
	}
	if _, hit := ask("max-age=0"); !hit { // age 0 is not over 0
		time.Sleep(1100 * time.Millisecond)
	}
	time.Sleep(1100 * time.Millisecond)
	if _, hit := ask("max-age=0"); hit {
		t.Error("max-age=0 hits")
	}
}

func TestCache_ChangesRemoveTheURL(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{NearCacheBytes: near}, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == "GET":
			set(200, "Cache-Control: public, max-age=60", "Vary: X-Mode")(w, r)
		case r.URL.Query().Get("fail") != "":
			w.WriteHeader(409)
		default:
			w.WriteHeader(204)
		}
	})
	modes := []string{"X-Mode: a", "X-Mode: b"}
	load := func() {
		for _, m := range modes {
			s.get("/a?x=1", m)
			s.get("/a?x=1", m, "Cookie: a=b")
		}
	}
	hits := func() (n int) {
		for _, m := range modes {
			for _, got := range []*http.Response{s.get("/a?x=1", m), s.get("/a?x=1", m, "Cookie: a=b")} {
				if isHit(got) {
					n++
				}
			}
		}
		return n
	}
	for name, change := range map[string]func(){
		"POST":   func() { s.do("POST", "/a?x=1") },
		"DELETE": func() { s.do("DELETE", "/a?x=1") },
		"Delete": func() {
			if err := s.Delete(t.Context(), request("GET", "/a?x=1")); err != nil {
				t.Error(err)
			}
		},
		"Delete of a client's request": func() {
			r := &http.Request{URL: &url.URL{Scheme: "http", Host: "example.com", Path: "/a", RawQuery: "x=1"}}
			if err := s.Delete(t.Context(), r); err != nil {
				t.Error(err)
			}
		},
	} {
		load()
		if n := hits(); n != 4 {
			t.Fatalf("%s: %d hits before", name, n)
		}
		change()
		if n := hits(); n != 0 {
			t.Errorf("%s: %d hits after", name, n)
		}
	}
	load()
	s.do("POST", "/a?x=1&fail=1")
	s.do("OPTIONS", "/a?x=1")
	if n := hits(); n != 4 {
		t.Errorf("%d hits after what changed nothing", n)
	}
}

func TestCache_NoOnePoisonsByWhatIsNotInTheKey(t *testing.T) {
	reflect := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if origin := r.Header.Get("Origin"); origin != "" {
			w.Header().Set("Access-Control-Allow-Origin", origin)
		}
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
		}
		_, _ = fmt.Fprint(w, r.Host, r.RequestURI, r.URL, r.Header["Forwarded"], r.Header["X-Forwarded-Host"], r.Header["X-Original-Url"], r.Header["X-Tenant"], r.Cookies())
	}
	opt := httpcache.Options{
		KeyHeaders: []string{"X-Tenant"},
		Query:      func(name string) bool { return !strings.HasPrefix(name, "utm_") },
		Cookie:     func(name string) bool { return name != "ad" },
	}
	s := newSite(t, open(t), opt, reflect)
	want := body(t, s.get("/p?a=1"))
	for _, e := range [][]string{
		{"/p?a=1", "X-Forwarded-Host: evil"},
		{"/p?a=1", "X-Original-URL: /evil"},
		{"/p?a=1", "Forwarded: for=1.2.3.4;host=evil"},
		{"/p?a=1", `Forwarded: for="[::1];host=a";proto=evil`},
		{"/p?a=1", "X-Tenant: evil"},
		{"/p?a=1", "Origin: evil"},
		{"/p?a=1", "Accept-Encoding: gzip"},
		{"/p?a=1&utm_x=evil"},
		{"/p?a=1&utm%5Fx=evil"},
		{"/p?utm_x=evil&a=1", "Cookie: ad=evil"},
		{"http://evil/p?a=1"},
		{"/p?a=1&a=evil"},
		{"/p?a=1;a=evil"},
		{"/%70?a=1"},
		{"//p?a=1"},
	} {
		if err := s.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := request("GET", e[0], e[1:]...)
		if strings.Contains(e[0], "//evil") { // in absolute form, with another Host
			r.Host = "example.com"
		}
		s.ServeHTTP(httptest.NewRecorder(), r)
		if got := s.get("/p?a=1"); body(t, got) != want || got.Header.Get("Access-Control-Allow-Origin")+got.Header.Get("Content-Encoding") != "" {
			t.Errorf("after %q the others get %v", e, got.Header)
		}
	}
	if err := s.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.get("/p?a=1")
	for _, e := range [][]string{{"/p?a=1&utm_x=y"}, {"/p?utm_x=y&a=1", "Cookie: ad=evil"}, {"/p?a=1", "X-Forwarded-For: 1.2.3.4"}} {
		if got := s.get(e[0], e[1:]...); !isHit(got) {
			t.Errorf("%q does not hit", e)
		}
	}
	s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/fat", strings.NewReader("a=evil")))
	if isHit(s.get("/fat")) {
		t.Error("a GET with a body was stored")
	}
}

func TestCache_EntriesOfTheKnownAreApart(t *testing.T) {
	s := newSite(t, open(t), httpcache.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		_, _ = fmt.Fprint(w, "for ", len(r.Header["Cookie"])+len(r.Header["Authorization"]))
	})
	known := request("GET", "/")
	known.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
	for range 2 {
		for _, c := range []struct {
			want    string
			request *http.Request
		}{
			{"for 0", request("GET", "/")},
			{"for 1", request("GET", "/", "Cookie: a=b")},
			{"for 1", request("GET", "/", "Authorization: Basic x")},
			{"for 0", known},
		} {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, c.request)
			if w.Body.String() != c.want {
				t.Errorf("%v: %q", c.request.Header, w.Body)
			}
		}
	}
	if s.runs.Load() != 3 {
		t.Errorf("%d runs", s.runs.Load())
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
