package session_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/session"
)

// site is a small program with logins, over TLS.
type site struct {
	t   testing.TB
	m   *session.Manager[cart]
	srv *httptest.Server
}

func newSite(t testing.TB, m *session.Manager[cart], more func(*http.ServeMux)) *site {
	t.Helper()
	mux := http.NewServeMux()
	handle := func(path string, f func(s *session.Session[cart], w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if err := f(m.From(r.Context()), w, r); err != nil {
				problem.Write(w, r, nil, err)
			}
		})
	}
	handle("/add", func(s *session.Session[cart], _ http.ResponseWriter, r *http.Request) error {
		return s.Update(r.Context(), add(r.FormValue("item")))
	})
	handle("/login", func(s *session.Session[cart], _ http.ResponseWriter, r *http.Request) error {
		if r.FormValue("remember") != "" {
			return s.Login(r.Context(), r.FormValue("user"), session.Remember())
		}
		return s.Login(r.Context(), r.FormValue("user"))
	})
	handle("/rotate", func(s *session.Session[cart], _ http.ResponseWriter, r *http.Request) error {
		return s.Rotate(r.Context())
	})
	handle("/logout", func(s *session.Session[cart], w http.ResponseWriter, r *http.Request) error {
		session.ClearSiteData(w.Header())
		return s.Logout(r.Context())
	})
	handle("/everywhere", func(_ *session.Session[cart], _ http.ResponseWriter, r *http.Request) error {
		return second(m.RevokeAll(r.Context(), r.FormValue("user")))
	})
	handle("/others", func(s *session.Session[cart], _ http.ResponseWriter, r *http.Request) error {
		return second(s.RevokeOthers(r.Context()))
	})
	handle("/me", func(s *session.Session[cart], w http.ResponseWriter, r *http.Request) error {
		user, err := s.User(r.Context())
		if err != nil {
			return err
		}
		c, found, err := s.Get(r.Context())
		if err == nil {
			_, err = fmt.Fprintf(w, "%s %v %s", user, found, strings.Join(c.Items, ","))
		}
		return err
	})
	mux.Handle("/private", m.Require(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "private") })))
	if more != nil {
		more(mux)
	}
	srv := httptest.NewTLSServer(m.Middleware(madcrow.FailClosed)(mux))
	t.Cleanup(srv.Close)
	return &site{t, m, srv}
}

// browser has a cookie jar of its own.
type browser struct {
	*site
	client *http.Client
}

func (s *site) browser() *browser {
	transport := s.srv.Client().Transport.(*http.Transport).Clone()
	s.t.Cleanup(transport.CloseIdleConnections)
	jar, _ := cookiejar.New(nil)
	return &browser{s, &http.Client{Transport: transport, Jar: jar}}
}

func (b *browser) get(path string) (*http.Response, string) {
	b.t.Helper()
	res, err := b.client.Get(b.srv.URL + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res, string(text)
}

// want gets a page that must be that, and have that status.
func (b *browser) want(path string, status int, body string) {
	b.t.Helper()
	if res, text := b.get(path); res.StatusCode != status || body != "" && text != body {
		b.t.Errorf("%s: %d %q, want %d %q", path, res.StatusCode, text, status, body)
	}
}

func (b *browser) url() *url.URL { u, _ := url.Parse(b.srv.URL); return u }

// token is what the browser shows.
func (b *browser) token() string {
	for _, c := range b.client.Jar.Cookies(b.url()) {
		if c.Name == "__Host-session" {
			return c.Value
		}
	}
	return ""
}

// plant has the browser show an identifier.
func (b *browser) plant(token string) *browser {
	b.client.Jar.SetCookies(b.url(), []*http.Cookie{{Name: "__Host-session", Value: token, Path: "/", Secure: true}})
	return b
}

func TestHTTP_FixationGivesTheAttackerNoSession(t *testing.T) {
	s := newSite(t, newManager(t, open(t), options{}), nil)
	attacker, victim := s.browser(), s.browser()
	attacker.want("/add?item=bait", 200, "")
	victim.plant(attacker.token())
	victim.want("/login?user=alice", 200, "")
	victim.want("/me", 200, "alice true bait")
	victim.want("/private", 200, "private")
	if victim.token() == attacker.token() {
		t.Fatal("the identifier is still the attacker's")
	}
	attacker.want("/me", 200, " false ")
	attacker.want("/private", 401, "")
	if res, _ := attacker.get("/add?item=late"); res.StatusCode != 401 || len(res.Cookies()) != 0 {
		t.Errorf("a write under the old identifier: %d %v", res.StatusCode, res.Cookies())
	}
	victim.want("/me", 200, "alice true bait")
}

func TestHTTP_UnknownIdentifierIsNotAdopted(t *testing.T) {
	s := newSite(t, newManager(t, open(t), options{}), nil)
	known := s.browser()
	known.want("/add?item=x", 200, "")
	chosen := known.token()
	known.want("/logout", 200, "")
	for _, token := range []string{chosen, chosen[:55], chosen + "A", "x", strings.Repeat("A", 56), "'%00-DROP"} {
		b := s.browser().plant(token)
		b.want("/me", 200, " false ")
		b.want("/private", 401, "")
		b.want("/add?item=y", 200, "")
		if b.token() == token || b.token() == "" {
			t.Errorf("%q was adopted", token)
		}
		b.want("/me", 200, " true y")
	}
}

func TestHTTP_StolenIdentifierAfterRotation(t *testing.T) {
	s := newSite(t, newManager(t, open(t), options{RotationGrace: 300 * time.Millisecond}), nil)
	owner := s.browser()
	owner.want("/login?user=alice", 200, "")
	thief := s.browser().plant(owner.token())
	thief.want("/private", 200, "private")
	owner.want("/rotate", 200, "")
	owner.want("/add?item=new", 200, "")
	thief.want("/me", 200, "alice true ") // in the grace: what was, not what is
	thief.want("/add?item=evil", 401, "")
	thief.want("/others", 401, "")
	thief.want("/rotate", 401, "")
	thief.want("/login?user=mallory", 401, "")
	owner.want("/me", 200, "alice true new")
	time.Sleep(350 * time.Millisecond)
	thief.want("/private", 401, "")
	owner.want("/private", 200, "private")
}

func TestHTTP_LogoutEverywhereFromAnotherDevice(t *testing.T) {
	clients := clientip.RemoteAddr()
	s := newSite(t, newManager(t, open(t), options{Client: clients}), nil)
	phone, laptop, tablet, bob := s.browser(), s.browser(), s.browser(), s.browser()
	for _, b := range []*browser{phone, laptop, tablet} {
		b.want("/login?user=alice", 200, "")
	}
	bob.want("/login?user=bob", 200, "")
	list, err := s.m.List(t.Context(), "alice")
	if err != nil || len(list) != 3 || list[0].Device.Address != "127.0.0.1" || !strings.HasPrefix(list[0].Device.UserAgent, "Go-http-client") {
		t.Errorf("%+v %v", list, err)
	}
	tablet.want("/others", 200, "")
	phone.want("/private", 401, "")
	laptop.want("/private", 401, "")
	tablet.want("/private", 200, "private")
	phone.want("/login?user=alice", 200, "")
	tablet.want("/everywhere?user=alice", 200, "")
	for _, b := range []*browser{phone, tablet} {
		b.want("/private", 401, "")
	}
	bob.want("/private", 200, "private")
}

func TestHTTP_LogoutClearsCookieAndSession(t *testing.T) {
	s := newSite(t, newManager(t, open(t), options{}), nil)
	b := s.browser()
	if res, _ := b.get("/logout"); len(res.Cookies()) != 0 {
		t.Errorf("nothing to clear, and %v", res.Cookies())
	}
	b.want("/login?user=alice", 200, "")
	token := b.token()
	res, _ := b.get("/logout")
	if c := res.Cookies(); len(c) != 1 || c[0].MaxAge != -1 || c[0].Name != "__Host-session" || c[0].Path != "/" || !c[0].Secure {
		t.Errorf("%v", c)
	}
	if res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Clear-Site-Data") == "" {
		t.Errorf("%v", res.Header)
	}
	if b.token() != "" {
		t.Error("the browser kept it")
	}
	b.plant(token).want("/private", 401, "")
}

func TestHTTP_RememberedOutlivesTheBrowser(t *testing.T) {
	s := newSite(t, newManager(t, open(t), options{}), nil)
	b := s.browser()
	for path, want := range map[string]int{"/login?user=alice&remember=1": 90 * 86400, "/rotate": 90 * 86400} {
		if path == "/rotate" {
			b.want("/login?user=alice&remember=1", 200, "")
		}
		res, _ := b.get(path)
		if c := res.Cookies(); len(c) != 1 || c[0].MaxAge < want-5 || c[0].MaxAge > want {
			t.Errorf("%s: %v", path, c)
		}
	}
	res, _ := b.get("/login?user=alice")
	if c := res.Cookies(); len(c) != 1 || c[0].MaxAge != 0 || !c[0].Expires.IsZero() {
		t.Errorf("a login without it: %v", c)
	}
}

func TestHTTP_ParallelRequestsOfOneBrowserLoseNoChange(t *testing.T) {
	s := newSite(t, newManager(t, open(t), options{}), nil)
	b := s.browser()
	b.want("/login?user=alice", 200, "")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			res, err := b.client.Get(fmt.Sprintf("%s/add?item=%d", s.srv.URL, i))
			if err != nil || res.StatusCode != 200 {
				t.Errorf("%v %v", res, err)
				return
			}
			_ = res.Body.Close()
		})
	}
	wg.Wait()
	_, text := b.get("/me")
	items := strings.Split(strings.TrimPrefix(text, "alice true "), ",")
	slices.Sort(items)
	if len(slices.Compact(items)) != 16 {
		t.Errorf("%s", text)
	}
}

func TestRequire_SaysWhyNot(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := newSite(t, m, nil)
	b := s.browser()
	res, text := b.get("/private")
	var p problem.Problem
	if err := json.Unmarshal([]byte(text), &p); err != nil || res.StatusCode != 401 || p.Code != "SESSION_ENDED" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %s", res.StatusCode, text)
	}
	b.want("/add?item=x", 200, "") // a session without user is not enough
	b.want("/private", 401, "")
	b.want("/login?user=alice", 200, "")
	b.want("/private", 200, "private")
	w := httptest.NewRecorder()
	m.Require(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 500 {
		t.Errorf("outside of Middleware: %d", w.Code)
	}
}

func TestMiddleware_InsecureCookieForDevelopment(t *testing.T) {
	m := newManager(t, open(t), options{InsecureCookie: true, SameSite: http.SameSiteStrictMode})
	w := httptest.NewRecorder()
	m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		must(t, m.From(r.Context()).Update(r.Context(), add("x")))
	})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	c := w.Result().Cookies()
	if len(c) != 1 || c[0].Name != "session" || c[0].Secure || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode {
		t.Errorf("%v", c)
	}
}

// The user agent is bounded, and cannot break the list.
func TestDevice_AnyBytes(t *testing.T) {
	m := newManager(t, open(t), options{})
	for i, agent := range []string{strings.Repeat("\xff", 1000), strings.Repeat("ü", 300), `"},{"a":"`, "\u2028\x00", ""} {
		user := fmt.Sprint(i)
		req := httptest.NewRequest("GET", "/", nil)
		req.Header.Set("User-Agent", agent)
		m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			must(t, m.From(r.Context()).Login(r.Context(), user))
		})).ServeHTTP(httptest.NewRecorder(), req)
		list, err := m.List(t.Context(), user)
		if err != nil || len(list) != 1 || list[0].Device.Address != "" || len(bytes.Runes([]byte(list[0].Device.UserAgent))) > 256 {
			t.Errorf("%.20q: %+v %v", agent, list, err)
		}
	}
}

func TestMiddleware_InnerFailureHoldsAfterAnOuterLoad(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	m := newManager(t, openConfig(t, srv.Config()), options{})
	token := login(t, m, "alice").Token()
	srv.Kill()
	var outer, inner, after error
	strict := m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _, inner = m.From(r.Context()).Get(r.Context())
	}))
	h := m.Middleware(madcrow.FailOpen)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.From(r.Context())
		_, _, outer = s.Get(r.Context())
		strict.ServeHTTP(w, r)
		_, _, after = s.Get(r.Context())
	}))
	req := httptest.NewRequest("GET", "/", nil)
	req.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
	h.ServeHTTP(httptest.NewRecorder(), req)
	if outer != nil || !errors.Is(inner, madcrow.ErrUnavailable) || after != nil {
		t.Errorf("outer %v, inner %v, after %v", outer, inner, after)
	}
}
