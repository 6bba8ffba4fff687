package session_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

func fastAPILayout(t testing.TB, r *madcrow.Redis) *session.Manager[cart] {
	return newManager(t, r, options{FastAPILayout: true, IdleTimeout: time.Hour})
}

// getKey and setKey do what FastAPI Madcrow does.
func getKey(t testing.TB, r *madcrow.Redis, key string) string {
	t.Helper()
	msg, err := r.Do(t.Context(), r.B().Get().Key(key).Build()).Message()
	must(t, err)
	s, _ := msg.ToString()
	return s
}

func setKey(t testing.TB, r *madcrow.Redis, key, value string) {
	t.Helper()
	err := r.Do(t.Context(), r.B().Setex().Key(key).Seconds(100).Value(value).Build()).Err()
	must(t, err)
}

func TestFastAPILayout_ReadsAndWritesItsSessions(t *testing.T) {
	r := open(t)
	m, prefix := fastAPILayout(t, r), t.Name()+":session:"
	setKey(t, r, prefix+"abc", `{"items": ["from python"], "n": 1}`)
	s := m.Open("abc")
	must(t, s.Update(t.Context(), add("from go")))
	var c cart
	if err := json.Unmarshal([]byte(getKey(t, r, prefix+"abc")), &c); err != nil || strings.Join(c.Items, ",") != "from python,from go" {
		t.Errorf("%+v %v", c, err)
	}
	if s.Handle() != "" {
		t.Error("a handle that is the identifier would let who sees it in")
	}
	must(t, s.Logout(t.Context()))
	if getKey(t, r, prefix+"abc") != "" {
		t.Error("it lives on")
	}
}

func TestFastAPILayout_AdoptsAndRevivesNoSession(t *testing.T) {
	r := open(t)
	m := fastAPILayout(t, r)
	s := m.Open("chosen-by-the-client")
	must(t, s.Update(t.Context(), add("x")))
	if s.Token() == "chosen-by-the-client" {
		t.Fatal("adopted")
	}
	late := loaded(t, m, s.Token())
	must(t, m.Open(s.Token()).Logout(t.Context()))
	if err := late.Update(t.Context(), add("y")); !errors.Is(err, session.ErrEnded) || alive(t, m, s.Token()) {
		t.Errorf("revived: %v", err)
	}
	for _, bad := range []string{"a b", "a\x00b", "ü", strings.Repeat("x", 256)} {
		if tok := m.Open(bad).Token(); tok != "" {
			t.Errorf("%.20q was taken", bad)
		}
	}
}

func TestFastAPILayout_RotateKeepsTheSessionWhateverHappens(t *testing.T) {
	r := open(t)
	m := fastAPILayout(t, r)
	s := stored(t, m, "x")
	old := s.Token()
	must(t, s.Rotate(t.Context()))
	if alive(t, m, old) || !alive(t, m, s.Token()) {
		t.Error("not rotated")
	}
	big, err := session.New(r, "web", session.Options[map[string]string]{FastAPILayout: true})
	must(t, err)
	bs := big.Open("")
	must(t, bs.Update(t.Context(), func(d *map[string]string) error { *d = map[string]string{"a": "b"}; return nil }))
	token := bs.Token()
	if err := bs.Update(t.Context(), func(d *map[string]string) error { *d = nil; return nil }); err == nil {
		t.Error("null is no object")
	}
	if d, found, err := bs.Get(t.Context()); !found || err != nil || d["a"] != "b" || bs.Token() != token {
		t.Errorf("%v %v %v", d, found, err)
	}
}

// The old session was ended before the new cookie was set: a client that did not
// get it was logged out.
func TestFastAPILayout_RotateWithoutItsCookieKeepsTheOldSession(t *testing.T) {
	m := fastAPILayout(t, open(t))
	old := stored(t, m, "x").Token()
	h := m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.From(r.Context())
		m.SetHook(once("rotate", func() { w.WriteHeader(http.StatusOK) }))
		if err := s.Rotate(r.Context()); !errors.Is(err, session.ErrHeadersSent) {
			t.Error(err)
		}
		if !alive(t, m, old) {
			t.Error("the client has no session left")
		}
		_ = s.Logout(r.Context())
		if alive(t, m, old) || alive(t, m, s.Token()) {
			t.Error("logged out, and alive")
		}
	}))
	req := httptest.NewRequest("GET", "/", nil)
	req.AddCookie(&http.Cookie{Name: "__Host-session", Value: old})
	h.ServeHTTP(httptest.NewRecorder(), req)
	s := stored(t, m, "x")
	old = s.Token()
	m.SetHook(refuse("destroy", 1))
	if err := s.Rotate(t.Context()); !errors.Is(err, session.ErrOldSessionActive) || s.Token() == old || !alive(t, m, s.Token()) || !alive(t, m, old) {
		t.Error(err)
	}
	must(t, s.Logout(t.Context()))
	if alive(t, m, old) {
		t.Error("the old session lives on")
	}
}

func TestFastAPILayout_RefusesUnsupportedOperations(t *testing.T) {
	m := fastAPILayout(t, open(t))
	s := stored(t, m, "x")
	for name, err := range map[string]error{
		"Login":        s.Login(t.Context(), "alice"),
		"AddFlash":     s.AddFlash(t.Context(), "info", "lost otherwise"),
		"List":         second(m.List(t.Context(), "alice")),
		"Revoke":       second(m.Revoke(t.Context(), "alice", "x")),
		"RevokeAll":    second(m.RevokeAll(t.Context(), "alice")),
		"RevokeOthers": second(s.RevokeOthers(t.Context())),
	} {
		if !errors.Is(err, session.ErrFastAPILayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, opt := range []options{{EncryptionKeys: [][]byte{key(1)}}, {MaxPerUser: 1}, {WaitReplicas: 1}} {
		opt.FastAPILayout = true
		if _, err := session.New(open(t), "web", opt); err == nil {
			t.Errorf("%+v was accepted, and would do nothing", opt)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestFastAPILayout_AFailedReadIsNotOverwritten(t *testing.T) {
	r := open(t)
	m := fastAPILayout(t, r)
	token := stored(t, m, "x").Token()
	key := t.Name() + ":session:" + token
	// The copy is older than what is in Redis by the time it can be written.
	if found, err := copyWith(t, m, token, nil); !found || err != nil {
		t.Fatal(found, err)
	}
	err := r.Do(t.Context(), r.B().Del().Key(key).Build()).Err()
	must(t, err)
	err = r.Do(t.Context(), r.B().Lpush().Key(key).Element("x").Build()).Err()
	must(t, err)
	found, err := copyWith(t, m, token, func(s *session.Session[cart]) {
		must(t, second(r.Do(t.Context(), r.B().Del().Key(key).Build()).Message()))
		if err := s.Rotate(t.Context()); err == nil || s.Token() != token {
			t.Errorf("a copy was rotated: %v", err)
		}
	})
	if !found || err != nil {
		t.Errorf("%v %v", found, err)
	}
}

// copyWith is copyOf with something more to do.
func copyWith(t testing.TB, m *session.Manager[cart], token string, then func(*session.Session[cart])) (found bool, err error) {
	t.Helper()
	h := m.Middleware(madcrow.FailStale)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := m.From(r.Context())
		_, found, err = s.Get(r.Context())
		if then != nil {
			then(s)
		}
	}))
	req := httptest.NewRequest("GET", "/", nil)
	req.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
	h.ServeHTTP(httptest.NewRecorder(), req)
	return found, err
}
