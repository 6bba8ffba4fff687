// Package sessiontest makes requests with a session, for tests of handlers that need
// one.
//
//	req := sessiontest.Login(t, sessions, httptest.NewRequest("GET", "/profile", nil), "ada")
//	handler.ServeHTTP(recorder, req)
//
// The session is a real one, in the Redis of the manager. This package uses what every
// program can use: the manager's Middleware, and the cookie that it sends.
package sessiontest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

// Login returns req with the cookie of a new session of user. The test ends when that
// fails. req itself does not change.
func Login[T any](t testing.TB, m *session.Manager[T], req *http.Request, user string, opts ...session.LoginOption) *http.Request {
	t.Helper()
	return With(t, m, req, func(ctx context.Context, s *session.Session[T]) error { return s.Login(ctx, user, opts...) })
}

// With calls fn with the session of req, as a handler behind the Middleware would, and
// returns req with the cookies that a browser has after that: for data of a session, a
// rotation, a logout. The test ends when fn fails. req itself does not change, and its
// body is not read.
//
//	req = sessiontest.With(t, sessions, req, func(ctx context.Context, s *session.Session[Cart]) error {
//		return s.Update(ctx, func(c *Cart) error { c.Items = 3; return nil })
//	})
func With[T any](t testing.TB, m *session.Manager[T], req *http.Request, fn func(context.Context, *session.Session[T]) error) *http.Request {
	t.Helper()
	visit := req.Clone(req.Context())
	visit.Body = http.NoBody
	w := httptest.NewRecorder()
	var err error
	m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		err = fn(r.Context(), m.From(r.Context()))
	})).ServeHTTP(w, visit)
	if err != nil {
		t.Fatalf("sessiontest: %v", err)
	}
	return withCookies(req, w.Result().Cookies())
}

// withCookies is req with the cookies that a response has set.
func withCookies(req *http.Request, set []*http.Cookie) *http.Request {
	out := req.Clone(req.Context())
	changed := map[string]bool{}
	for _, c := range set {
		changed[c.Name] = true
	}
	out.Header.Del("Cookie")
	for _, c := range req.Cookies() {
		if !changed[c.Name] {
			out.AddCookie(c)
		}
	}
	for _, c := range set {
		if c.MaxAge >= 0 && c.Value != "" {
			out.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
	return out
}
