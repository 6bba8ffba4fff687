package sessiontest_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/madcrowtest/sessiontest"
	"github.com/madcrow-go/madcrow/session"
)

type cart struct{ Items int }

// shop answers who is logged in, and how much is in the cart.
func shop(t *testing.T) (*madcrowtest.Server, *session.Manager[cart], func(*http.Request) (string, int)) {
	t.Helper()
	s := madcrowtest.StartRedis(t)
	m, err := session.New(madcrowtest.Open(t, s.Config()), "web", session.Options[cart]{IdleTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	h := m.Middleware(madcrow.FailClosed)(m.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := m.From(r.Context()).User(r.Context())
		if err != nil {
			t.Error(err)
		}
		data, _, err := m.From(r.Context()).Get(r.Context())
		if err != nil {
			t.Error(err)
		}
		_, _ = io.Copy(w, r.Body)
		_, _ = io.WriteString(w, user+strings.Repeat("+", data.Items))
	})))
	return s, m, func(r *http.Request) (string, int) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Body.String(), w.Code
	}
}

func TestLogin_MakesARequestOfAUser(t *testing.T) {
	_, m, ask := shop(t)
	visitor := httptest.NewRequest("POST", "/", strings.NewReader("body "))
	visitor.AddCookie(&http.Cookie{Name: "other", Value: "kept"})
	req := sessiontest.Login(t, m, visitor, "ada")
	if text, code := ask(req); code != 200 || text != "body ada" {
		t.Errorf("%d %q", code, text)
	}
	if c, err := req.Cookie("other"); err != nil || c.Value != "kept" {
		t.Errorf("%v %v", c, err)
	}
	if _, code := ask(httptest.NewRequest("GET", "/", nil)); code != 401 {
		t.Errorf("a visitor is answered %d", code)
	}
}

func TestWith_ChangesTheSessionOfARequest(t *testing.T) {
	_, m, ask := shop(t)
	first := sessiontest.Login(t, m, httptest.NewRequest("GET", "/", nil), "ada")
	req := sessiontest.With(t, m, first, func(ctx context.Context, s *session.Session[cart]) error {
		return s.Update(ctx, func(c *cart) error { c.Items = 3; return nil })
	})
	if text, code := ask(req); code != 200 || text != "ada+++" {
		t.Errorf("%d %q", code, text)
	}
	req = sessiontest.With(t, m, req, func(ctx context.Context, s *session.Session[cart]) error { return s.Logout(ctx) })
	if n := len(req.Cookies()); n != 0 {
		t.Errorf("after the logout there are %d cookies", n)
	}
	if _, code := ask(first); code != 401 {
		t.Errorf("after the logout: %d", code)
	}
}

// An idle session ends without a wait of an hour.
func TestLogin_SessionEndsAfterItsIdleTimeout(t *testing.T) {
	s, m, ask := shop(t)
	req := sessiontest.Login(t, m, httptest.NewRequest("GET", "/", nil), "ada")
	if _, code := ask(req); code != 200 {
		t.Fatal(code)
	}
	s.Advance(t, time.Hour)
	madcrowtest.Eventually(t, "the session has ended", func() bool { _, code := ask(req); return code == 401 })
}
