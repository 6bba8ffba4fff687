package session_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/madcrow-go/madcrow/session"
)

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// An old cookie of the name with another domain, or path, stays in the browser
// beside the one that a login sets. Two counted as none, so that no one could log in
// there any more.
func TestHTTP_AnOldCookieOfTheNameLocksNoOneOut(t *testing.T) {
	r := open(t)
	unknown := login(t, newNamed(t, r, "other", options{}), "x").Token()
	for name, opt := range map[string]options{
		"a name of one's own": {Cookie: "sid", InsecureCookie: true},
		"the default name":    {InsecureCookie: true},
		"secure":              {Cookie: "__Secure-sid"},
	} {
		for _, old := range []http.Cookie{
			{Value: "old", Domain: "app.test", Path: "/"},
			{Value: unknown, Domain: "app.test", Path: "/"},
			{Value: unknown, Path: "/a"},
		} {
			t.Run(name+" "+old.Domain+old.Path, func(t *testing.T) {
				var log lines
				opt := opt
				opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
				s := newSite(t, newManager(t, r, opt), nil)
				cookie := opt.Cookie
				if cookie == "" {
					cookie = "session"
				}
				b := s.browser()
				app := mustURL("https://www.app.test/")
				old.Name = cookie
				b.client.Jar.SetCookies(mustURL("https://www.app.test/a/x"), []*http.Cookie{&old})
				get := func(path string) string {
					t.Helper()
					return s.ask(b.client.Jar, app, path)
				}
				if got := get("/login?user=alice"); got != "200 " {
					t.Fatal(got)
				}
				for range 2 {
					if got := get("/me"); !strings.HasPrefix(got, "200 alice true ") {
						t.Errorf("after the login: %q", got)
					}
					if got := get("/private"); got != "200 private" {
						t.Errorf("what is for users: %q", got)
					}
					if got := get("/add?item=x"); got != "200 " {
						t.Errorf("a change: %q", got)
					}
				}
				if got := get("/rotate") + get("/me"); got != "200 200 alice true x,x" {
					t.Errorf("after a rotation: %q", got)
				}
				if got := get("/logout") + get("/me"); got != "200 200  false " {
					t.Errorf("after a logout: %q", got)
				}
				if got := get("/login?user=bob") + get("/me"); got != "200 200 bob true " {
					t.Errorf("after another login: %q", got)
				}
				if n := log.count("several cookies"); n != 1 || log.count("cookie="+cookie) != 1 || log.count("__Host-") != 1 {
					t.Errorf("logged %d times: %s", n, log.text.String())
				}
			})
		}
	}
}

func mustURL(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return u
}

// ask serves a path as the browser with this jar asks for it at that address,
// under /a, where all kinds of cookies are sent.
func (s *site) ask(jar http.CookieJar, at *url.URL, path string) string {
	target := at.ResolveReference(mustURL(path))
	r := httptest.NewRequest("GET", target.String(), nil)
	sent := *target
	sent.Path = "/a" + target.Path
	for _, c := range jar.Cookies(&sent) {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	s.srv.Config.Handler.ServeHTTP(w, r)
	jar.SetCookies(at, w.Result().Cookies())
	return strconv.Itoa(w.Code) + " " + w.Body.String()
}

// An attacker may put a cookie there that is valid: his own. No one knows then
// which of them is the client's: neither is believed, the login ends both, and
// after it the new one alone counts.
func TestHTTP_OfTwoValidCookiesNoneIsBelieved(t *testing.T) {
	m := newManager(t, open(t), options{Cookie: "sid", InsecureCookie: true})
	s := newSite(t, m, nil)
	for _, path := range []string{"/login?user=alice", "/add?item=new", "/logout"} {
		for name, planted := range map[string]*session.Session[cart]{"a user": login(t, m, "mallory"), "no user": stored(t, m, "planted")} {
			t.Run(path+" beside that of "+name, func(t *testing.T) {
				own := login(t, m, "alice").Token()
				jar := s.browser().client.Jar
				app := mustURL("http://www.app.test/")
				jar.SetCookies(app, []*http.Cookie{{Name: "sid", Value: planted.Token(), Domain: "app.test", Path: "/"}, {Name: "sid", Value: own, Path: "/"}})
				if got := s.ask(jar, app, "/me"); got != "200  false " {
					t.Errorf("one of them is believed: %q", got)
				}
				if got := s.ask(jar, app, "/private"); !strings.HasPrefix(got, "401") {
					t.Errorf("one of them is believed: %q", got)
				}
				if got := s.ask(jar, app, path); got != "200 " {
					t.Fatal(got)
				}
				if alive(t, m, planted.Token()) || alive(t, m, own) {
					t.Error("they live on")
				}
				want := map[string]string{"/login?user=alice": "200 alice true ", "/add?item=new": "200  true new", "/logout": "200  false "}[path]
				if got := s.ask(jar, app, "/me"); got != want {
					t.Errorf("afterwards: %q", got)
				}
			})
		}
	}
}

// What it costs: nothing with one cookie, one pipeline with several.
func TestHTTP_SeveralCookiesAreAskedForInOnePipeline(t *testing.T) {
	r, calls := counted(t)
	m := newManager(t, r, options{Cookie: "sid", InsecureCookie: true})
	s := newSite(t, m, nil)
	own := login(t, m, "alice").Token()
	strangers := strings.Repeat("sid=nonsense; ", 100)
	for range 20 {
		gone := stored(t, m, "x")
		strangers += "sid=" + gone.Token() + "; "
		must(t, gone.Logout(t.Context()))
	}
	for line, want := range map[string]int{
		"sid=" + own: 1,
		"sid=" + own + "; sid=" + own + "; sid=x":         1,
		strangers + "sid=" + own:                          2,
		"sid=" + strings.Repeat("A", 56) + "; sid=" + own: 2,
	} {
		r := httptest.NewRequest("GET", "/private", nil)
		r.Header.Set("Cookie", line)
		w := httptest.NewRecorder()
		calls.took()
		s.srv.Config.Handler.ServeHTTP(w, r)
		if n, what := calls.took(); w.Code != 200 || n != want {
			t.Errorf("%.80s: %d after %s, want %d", line, w.Code, what, want)
		}
	}
}

// A late request may show the one from before a rotation, beside an old one.
func TestHTTP_ALateRequestWithSeveralCookiesStartsNoSession(t *testing.T) {
	m := newManager(t, open(t), options{Cookie: "sid", InsecureCookie: true})
	s := newSite(t, m, nil)
	own := login(t, m, "alice")
	before := own.Token()
	must(t, own.Rotate(t.Context()))
	r := httptest.NewRequest("GET", "/add?item=x", nil)
	r.Header.Set("Cookie", "sid="+strings.Repeat("A", 56)+"; sid="+before)
	w := httptest.NewRecorder()
	s.srv.Config.Handler.ServeHTTP(w, r)
	if w.Code != 401 || len(w.Result().Cookies()) != 0 {
		t.Errorf("%d %v", w.Code, w.Result().Cookies())
	}
}

// Sessions of the FastAPI layout have no user.
func TestFastAPILayout_AnOldCookieOfTheNameLocksNoOneOut(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{FastAPILayout: true, Cookie: "session_id", InsecureCookie: true})
	s := newSite(t, m, nil)
	setKey(t, r, t.Name()+":session:abc", `{"items": ["from python"], "n": 1}`)
	req := httptest.NewRequest("GET", "/me", nil)
	req.Header.Set("Cookie", "session_id=gone; session_id=abc")
	w := httptest.NewRecorder()
	s.srv.Config.Handler.ServeHTTP(w, req)
	if w.Body.String() != " true from python" {
		t.Errorf("%d %q", w.Code, w.Body.String())
	}
}

// A partitioned cookie may come together with an older one of the same host.
func TestHTTP_APartitionedCookieBesideAnOlderOneCounts(t *testing.T) {
	m := newManager(t, open(t), options{Partitioned: true})
	s := newSite(t, m, nil)
	r := httptest.NewRequest("GET", "/private", nil)
	r.Header.Set("Cookie", "__Host-session="+strings.Repeat("A", 56)+"; __Host-session="+login(t, m, "alice").Token())
	w := httptest.NewRecorder()
	s.srv.Config.Handler.ServeHTTP(w, r)
	if w.Code != 200 {
		t.Errorf("%d", w.Code)
	}
}

// A value that net/http does not parse was counted, and the valid cookie beside it
// discarded: no one could log in, and a logout ended no session.
func TestHTTP_AMalformedCookieLocksNoOneOut(t *testing.T) {
	for name, opt := range map[string]options{"sid": {Cookie: "sid", InsecureCookie: true}, "__Host-session": {}} {
		for i, other := range []string{`{"a":1}`, `a\b`, "\xff", ""} {
			for _, first := range []bool{true, false} {
				t.Run(fmt.Sprint(name, i, first), func(t *testing.T) {
					var log lines
					opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
					m := newManager(t, open(t), opt)
					s := newSite(t, m, nil)
					own := login(t, m, "alice").Token()
					line := name + "=" + own + "; " + name + "=" + other
					if first {
						line = name + "=" + other + "; " + name + "=" + own
					}
					get := func(path string) *httptest.ResponseRecorder {
						r := httptest.NewRequest("GET", path, nil)
						r.Header["Cookie"] = []string{line}
						w := httptest.NewRecorder()
						s.srv.Config.Handler.ServeHTTP(w, r)
						return w
					}
					// Two of a __Host- name are none; a logout ends both all the same.
					want := map[string]int{"sid": 200, "__Host-session": 401}[name]
					if w := get("/private"); w.Code != want {
						t.Errorf("%d, want %d", w.Code, want)
					}
					if log.count("several cookies") != 1 {
						t.Error("nothing was said of several cookies")
					}
					if w := get("/logout"); w.Code != 200 || alive(t, m, own) {
						t.Errorf("%d, and it lives on", w.Code)
					}
				})
			}
		}
	}
}
