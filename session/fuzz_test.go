package session_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

// What is not exactly what this package made is nothing.
func FuzzParseIdent(f *testing.F) {
	good := strings.Repeat("Az09-_", 9) + "AA"
	for _, token := range []string{"", good, good[:55], good + "A", good + "=", "{}", strings.Repeat("\x00", 56), strings.Repeat("ü", 28), good[:54] + "\r\n", strings.Repeat("=", 56)} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		again, member, ok := session.ParseIdent(token)
		raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
		// The decoder skips line ends; we do not.
		want := err == nil && len(raw) == 42 && len(token) == 56
		if ok != want {
			t.Fatalf("%q: %v, want %v", token, ok, want)
		}
		if ok && (again != token || len(member) != 43 || strings.Contains(member, token)) {
			t.Fatalf("%q became %q, %q", token, again, member)
		}
	})
}

// Whatever a client sends for a cookie: it never panics, is never adopted, and
// the answer has at most one cookie of ours.
func FuzzCookie(f *testing.F) {
	cfg := config
	cfg.KeyPrefix = "fuzz:"
	m := newManager(f, openConfig(f, cfg), options{})
	h := m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.From(r.Context())
		shown := s.Token()
		if _, found, err := s.Get(r.Context()); found || err != nil {
			panic("found")
		}
		if err := s.Update(r.Context(), add("x")); err != nil {
			panic(err)
		}
		if s.Token() == shown || s.Token() == "" {
			panic("adopted")
		}
		if err := s.Logout(r.Context()); err != nil {
			panic(err)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	token := strings.Repeat("Az09-_", 9) + "AA"
	for _, line := range []string{
		"", "__Host-session=" + token, "__Host-session=" + token + "; __Host-session=" + token, `__Host-session="` + token + `"`,
		"__Host-session", "__Host-session=;=;;", "__host-session=" + token, "\x00=\xff", "__Host-session=" + strings.Repeat("A", 8000),
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Cookie"] = []string{line}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if n := len(w.Result().Cookies()); n != 1 {
			t.Fatalf("%d cookies", n)
		}
	})
}

// Whatever users are called, and whatever handles strangers send.
func FuzzUserAndHandle(f *testing.F) {
	cfg := config
	cfg.KeyPrefix = "fuzzuser:"
	m := newManager(f, openConfig(f, cfg), options{})
	alice := login(f, m, "alice")
	for _, user := range []string{"a", "{}", "\x00", "\xff", strings.Repeat("x", 512), strings.Repeat("x", 513), ""} {
		f.Add(user, alice.Handle())
	}
	f.Fuzz(func(t *testing.T, user, handle string) {
		s := m.Open("")
		if err := s.Login(t.Context(), user); (err != nil) != (user == "" || len(user) > 512) {
			t.Fatal(err)
		} else if err != nil {
			return
		}
		if got, err := m.Open(s.Token()).User(t.Context()); got != user || err != nil {
			t.Fatalf("%q %v", got, err)
		}
		if ok, err := m.Revoke(t.Context(), user, handle); ok || err != nil {
			t.Fatalf("%q: %v %v", handle, ok, err)
		}
		if n, err := m.RevokeAll(t.Context(), user); n != 1 || err != nil || alive(t, m, s.Token()) {
			t.Fatalf("%d %v", n, err)
		}
	})
}
