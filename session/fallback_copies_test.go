package session_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/session"
)

// copyOf reads a session by the copy of this process.
func copyOf(t testing.TB, m *session.Manager[cart], token string) (found bool, err error) {
	t.Helper()
	h := m.Middleware(madcrow.FailStale)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, found, err = m.From(r.Context()).Get(r.Context())
	}))
	req := httptest.NewRequest("GET", "/", nil)
	req.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
	h.ServeHTTP(httptest.NewRecorder(), req)
	return found, err
}

func TestFailStale_DropsSessionsThatThisProcessEnded(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	r := openConfig(t, srv.Config())
	m := newManager(t, r, options{MaxPerUser: 1})
	rival := newManager(t, r, options{})
	copied := func(user string) *session.Session[cart] {
		s := login(t, rival, user)
		if found, err := copyOf(t, m, s.Token()); !found || err != nil {
			t.Fatal(found, err)
		}
		return s
	}
	gone := map[string]string{}
	s := copied("logout")
	gone["logout"] = s.Token()
	must(t, m.Open(s.Token()).Logout(t.Context()))

	s = copied("revoke")
	gone["revoke"] = s.Token()
	_, err := m.Revoke(t.Context(), "revoke", s.Handle())
	must(t, err)

	s = copied("all")
	gone["all"] = s.Token()
	_, err = m.RevokeAll(t.Context(), "all")
	must(t, err)

	s = copied("rotate")
	gone["rotate"] = s.Token()
	must(t, m.Open(s.Token()).Rotate(t.Context()))
	if found, err := copyOf(t, m, s.Token()); !found || err != nil { // in the grace
		t.Fatal(found, err)
	}

	s = copied("evicted")
	gone["evicted"] = s.Token()
	must(t, m.Open("").Login(t.Context(), "evicted"))

	// The reply of a load that began before the logout comes after it.
	s = login(t, rival, "late")
	gone["late"] = s.Token()
	late := newManager(t, r, options{})
	if _, err := copyOf(t, late, ""); err != nil {
		t.Fatal(err)
	}
	late.SetHook(once("destroy", func() {
		if _, err := copyOf(t, late, s.Token()); err != nil {
			t.Error(err)
		}
	}))
	must(t, late.Open(s.Token()).Logout(t.Context()))

	// After those that drop all copies.
	for _, way := range []string{"logout by the old one", "revoke by the old one"} {
		s = login(t, rival, way)
		token, handle := s.Token(), s.Handle()
		must(t, s.Rotate(t.Context()))
		if found, err := copyOf(t, m, s.Token()); !found || err != nil {
			t.Fatal(found, err)
		}
		gone[way] = s.Token()
		if way == "logout by the old one" {
			must(t, m.Open(token).Logout(t.Context()))
		} else if ok, err := m.Revoke(t.Context(), way, handle); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}

	kept := copied("kept").Token()
	srv.Kill()
	for name, token := range gone {
		of := m
		if name == "late" {
			of = late
		}
		if found, err := copyOf(t, of, token); found || err == nil {
			t.Errorf("%s: found %v, %v", name, found, err)
		}
	}
	if found, err := copyOf(t, m, kept); !found || err != nil {
		t.Errorf("the one that was not ended: %v, %v", found, err)
	}
}
