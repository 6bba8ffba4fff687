package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/session"
)

var config madcrow.Config

func TestMain(m *testing.M) {
	madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { config = s.Config() })
}

type cart struct {
	Items []string `json:"items"`
	N     int      `json:"n"`
}

// open connects to the server of the package, under a key prefix of the test's
// own.
func open(t testing.TB) *madcrow.Redis {
	t.Helper()
	cfg := config
	cfg.KeyPrefix = t.Name() + ":"
	return openConfig(t, cfg)
}

func openConfig(t testing.TB, cfg madcrow.Config) *madcrow.Redis {
	t.Helper()
	cfg.Require = true
	if cfg.CommandTimeout == 0 {
		cfg.CommandTimeout = 10 * time.Second // the machine may be busy
	}
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

type options = session.Options[cart]

func newManager(t testing.TB, r *madcrow.Redis, opt options) *session.Manager[cart] {
	t.Helper()
	return newNamed(t, r, "web", opt)
}

func newNamed(t testing.TB, r *madcrow.Redis, name string, opt options) *session.Manager[cart] {
	t.Helper()
	m, err := session.New(r, name, opt)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func add(item string) func(*cart) error {
	return func(c *cart) error { c.Items = append(c.Items, item); c.N++; return nil }
}

func TestSession_IsCreatedByTheFirstWrite(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{})
	s := m.Open("")
	if _, found, err := s.Get(t.Context()); found || err != nil || s.Token() != "" {
		t.Fatalf("%v %v %q", found, err, s.Token())
	}
	if err := s.Update(t.Context(), add("a")); err != nil {
		t.Fatal(err)
	}
	again := m.Open(s.Token())
	if c, found, err := again.Get(t.Context()); !found || err != nil || c.N != 1 {
		t.Fatalf("%+v %v %v", c, found, err)
	}
	for _, token := range []string{"x", s.Token()[:40], s.Token() + "A", "AAAA" + s.Token()[4:]} {
		other := m.Open(token)
		if _, found, err := other.Get(t.Context()); found || err != nil {
			t.Errorf("%q: %v %v", token, found, err)
		}
		if err := other.Update(t.Context(), add("b")); err != nil || other.Token() == token {
			t.Errorf("an unknown identifier was adopted: %v", err)
		}
	}
}

func TestUpdate_KeepsChangesOfParallelRequests(t *testing.T) {
	m := newManager(t, open(t), options{EncryptionKeys: [][]byte{make([]byte, 32)}})
	s := m.Open("")
	if err := s.Update(t.Context(), add("first")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := m.Open(s.Token()).Update(t.Context(), add(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if c, _, err := m.Open(s.Token()).Get(t.Context()); err != nil || c.N != 21 || len(c.Items) != 21 {
		t.Errorf("%+v %v", c, err)
	}
}

func TestSession_LateWriteRevivesNoSession(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := m.Open("")
	if err := s.Login(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	late := m.Open(s.Token())
	if _, _, err := late.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := late.Update(t.Context(), add("x")); !errors.Is(err, session.ErrEnded) {
		t.Errorf("late write: %v", err)
	}
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

func TestLogin_NewIdentifierAndTheOldIsInvalid(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := m.Open("")
	if err := s.Update(t.Context(), add("a")); err != nil {
		t.Fatal(err)
	}
	old := s.Token()
	if err := s.Login(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if s.Token() == old {
		t.Fatal("the identifier is the same")
	}
	if _, found, err := m.Open(old).Get(t.Context()); found || err != nil {
		t.Errorf("the old one: %v %v", found, err)
	}
	now := m.Open(s.Token())
	if c, found, err := now.Get(t.Context()); !found || err != nil || c.N != 1 {
		t.Errorf("the new one: %+v %v %v", c, found, err)
	}
	if user, err := now.User(t.Context()); user != "alice" || err != nil {
		t.Errorf("%q %v", user, err)
	}
}

func TestRotate_OldReadsWhatWasAndNoMore(t *testing.T) {
	m := newManager(t, open(t), options{RotationGrace: 500 * time.Millisecond})
	s := m.Open("")
	if err := s.Login(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), add("before")); err != nil {
		t.Fatal(err)
	}
	old := s.Token()
	if err := s.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), add("after")); err != nil {
		t.Fatal(err)
	}
	if c, found, err := m.Open(old).Get(t.Context()); !found || err != nil || c.N != 1 {
		t.Errorf("in the grace: %+v %v %v", c, found, err)
	}
	if err := m.Open(old).Update(t.Context(), add("x")); !errors.Is(err, session.ErrRotated) {
		t.Errorf("write in the grace: %v", err)
	}
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 1 || list[0].Handle != s.Handle() {
		t.Errorf("%v %v", list, err)
	}
	if err := s.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, found, err := m.Open(old).Get(t.Context()); found || err != nil {
		t.Errorf("after logout: %v %v", found, err)
	}
}

func TestRevoke_OneOthersAll(t *testing.T) {
	m := newManager(t, open(t), options{})
	var tokens []string
	for range 4 {
		s := m.Open("")
		if err := s.Login(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, s.Token())
	}
	alive := func() (n int) {
		t.Helper()
		for _, token := range tokens {
			if _, found, err := m.Open(token).Get(t.Context()); err != nil {
				t.Fatal(err)
			} else if found {
				n++
			}
		}
		return n
	}
	if ok, err := m.Revoke(t.Context(), "alice", m.Open(tokens[0]).Handle()); !ok || err != nil || alive() != 3 {
		t.Errorf("one: %v %v, %d alive", ok, err, alive())
	}
	if n, err := m.Open(tokens[1]).RevokeOthers(t.Context()); n != 2 || err != nil || alive() != 1 {
		t.Errorf("others: %d %v, %d alive", n, err, alive())
	}
	if err := m.Open(tokens[1]).Update(t.Context(), add("x")); err != nil {
		t.Errorf("the one that was kept: %v", err)
	}
	if n, err := m.RevokeAll(t.Context(), "alice"); n != 1 || err != nil || alive() != 0 {
		t.Errorf("all: %d %v, %d alive", n, err, alive())
	}
	s := m.Open("")
	if err := s.Login(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if _, found, err := m.Open(s.Token()).Get(t.Context()); !found || err != nil || alive() != 0 {
		t.Errorf("a new login: %v %v, %d old ones alive", found, err, alive())
	}
}

func TestLogin_MaxPerUserEndsTheOldest(t *testing.T) {
	m := newManager(t, open(t), options{MaxPerUser: 2})
	var tokens []string
	for range 3 {
		s := m.Open("")
		if err := s.Login(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, s.Token())
		time.Sleep(2 * time.Millisecond)
	}
	for i, token := range tokens {
		if _, found, err := m.Open(token).Get(t.Context()); found != (i > 0) || err != nil {
			t.Errorf("%d: %v %v", i, found, err)
		}
	}
}

func TestMiddleware_CookieAndLaziness(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{})
	mux := http.NewServeMux()
	mux.HandleFunc("/nothing", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		c, found, err := m.From(r.Context()).Get(r.Context())
		fmt.Fprint(w, c.N, found, err)
	})
	mux.HandleFunc("/add", func(w http.ResponseWriter, r *http.Request) {
		if err := m.From(r.Context()).Update(r.Context(), add("x")); err != nil {
			http.Error(w, err.Error(), 500)
		}
	})
	mux.HandleFunc("/late", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		fmt.Fprint(w, errors.Is(m.From(r.Context()).Update(r.Context(), add("x")), session.ErrHeadersSent))
	})
	srv := httptest.NewTLSServer(m.Middleware(madcrow.FailClosed)(mux))
	defer srv.Close()
	client := srv.Client()
	client.Jar, _ = cookiejar.New(nil)
	get := func(path string) (*http.Response, string) {
		t.Helper()
		res, err := client.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var b [512]byte
		n, _ := res.Body.Read(b[:])
		return res, string(b[:n])
	}
	if _, body := get("/late"); body != "true" {
		t.Errorf("late: %s", body)
	}
	for _, path := range []string{"/nothing", "/read"} {
		if res, _ := get(path); len(res.Cookies()) != 0 {
			t.Errorf("%s set %v", path, res.Cookies())
		}
	}
	res, _ := get("/add")
	if len(res.Cookies()) != 1 || res.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%v", res.Header)
	}
	c := res.Cookies()[0]
	if c.Name != "__Host-session" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 0 {
		t.Errorf("%+v", c)
	}
	if res, body := get("/read"); body != "1 true <nil>" || len(res.Cookies()) != 0 {
		t.Errorf("%s %v", body, res.Cookies())
	}
}

func TestSession_WithoutRedis(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	m := newManager(t, openConfig(t, srv.Config()), options{})
	m.Middleware(madcrow.FailStale) // from now on there are copies
	s := m.Open("")
	if err := s.Login(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	token := s.Token()
	if _, _, err := m.Open(token).Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	srv.Kill()
	if _, found, err := m.Open(token).Get(t.Context()); found || !errors.Is(err, madcrow.ErrUnavailable) {
		t.Errorf("closed: %v %v", found, err)
	}
	for failure, want := range map[madcrow.FailPolicy]bool{madcrow.FailOpen: false, madcrow.FailStale: true} {
		var found bool
		var err, write, degraded error
		h := m.Middleware(failure)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s := m.From(r.Context())
			_, found, err = s.Get(r.Context())
			write = s.Update(r.Context(), add("x"))
			degraded = s.Degraded()
		}))
		req := httptest.NewRequest("GET", "/", nil)
		req.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
		h.ServeHTTP(httptest.NewRecorder(), req)
		if found != want || err != nil || degraded == nil || !errors.Is(write, madcrow.ErrUnavailable) {
			t.Errorf("%d: found %v, %v, degraded %v, write %v", failure, found, err, degraded, write)
		}
	}
}

func TestSession_WaitsNoLongerThanItsContext(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	m := newManager(t, openConfig(t, srv.Config()), options{})
	s := m.Open(login(t, m, "alice").Token())
	srv.Pause()
	defer srv.Resume()
	go func() { _, _, _ = s.Get(context.Background()) }()
	time.Sleep(20 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, _, err := s.Get(ctx)
	if d := time.Since(start); d > 250*time.Millisecond || !errors.Is(err, madcrow.ErrTimeout) {
		t.Errorf("%v after %v, with 50 ms to go", err, d)
	}
	_ = s.Token() // does not wait
	if d := time.Since(start); d > 300*time.Millisecond {
		t.Errorf("Token took %v", d)
	}
}
