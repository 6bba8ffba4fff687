package session_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/session"
)

func TestUpdate_InsideUpdateIsAnError(t *testing.T) {
	cfg := config
	cfg.CommandTimeout = 300 * time.Millisecond
	m := newNamed(t, openConfig(t, cfg), "inside", options{})
	s := stored(t, m, "x")
	done := make(chan error, 1)
	go func() {
		done <- s.Update(context.Background(), func(*cart) error { return s.Update(context.Background(), add("y")) })
	}()
	select {
	case err := <-done:
		if !errors.Is(err, session.ErrInUse) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it hangs")
	}
	must(t, s.Update(t.Context(), add("z")))
}

func TestUpdate_PanicOfTheChangeLeavesTheSessionUsable(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := stored(t, m, "x")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = s.Update(t.Context(), func(c *cart) error { c.Items = nil; c.N = 99; panic("of a test") })
	}()
	must(t, s.Update(t.Context(), add("y")))
	if c, _, err := s.Get(t.Context()); err != nil || c.N != 2 || len(c.Items) != 2 {
		t.Errorf("%+v %v", c, err)
	}
}

// A session was stored, and the error said that nothing was sent: a caller that
// tried again made another one.
func TestChange_WithoutItsCookieIsMade(t *testing.T) {
	m := newManager(t, open(t), options{})
	user := login(t, m, "alice").Token()
	for _, tc := range []struct {
		name, op, token string
		change          func(context.Context, *session.Session[cart]) error
	}{
		{"create", "create", "", func(ctx context.Context, s *session.Session[cart]) error { return s.Update(ctx, add("x")) }},
		{"login", "create", "", func(ctx context.Context, s *session.Session[cart]) error { return s.Login(ctx, "bob") }},
		{"rotate", "rotate", user, func(ctx context.Context, s *session.Session[cart]) error { return s.Rotate(ctx) }},
		{"logout", "", login(t, m, "carol").Token(), func(ctx context.Context, s *session.Session[cart]) error { return s.Logout(ctx) }},
	} {
		h := m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if tc.op == "" {
				w.WriteHeader(http.StatusOK)
			}
			m.SetHook(once(tc.op, func() { w.WriteHeader(http.StatusOK) }))
			err := tc.change(r.Context(), m.From(r.Context()))
			var e *madcrow.Error
			if !errors.Is(err, session.ErrHeadersSent) || !errors.As(err, &e) || e.Outcome != madcrow.OutcomeApplied || e.Op != "session."+tc.name {
				t.Errorf("%s: %v, %+v", tc.name, err, e)
			}
			if status := problem.From(err).Status; status != http.StatusInternalServerError {
				t.Errorf("%s: answered %d", tc.name, status)
			}
		}))
		req := httptest.NewRequest("GET", "/", nil)
		if tc.token != "" {
			req.AddCookie(&http.Cookie{Name: "__Host-session", Value: tc.token})
		}
		h.ServeHTTP(httptest.NewRecorder(), req)
	}
}

// A reply that cannot be read came after the script: it was said to be not sent.
func TestChange_UnreadableReplyHasAnUnknownOutcome(t *testing.T) {
	for _, reply := range []string{"{}", "{7}", "'x'", "{'x'}"} {
		m := newManager(t, open(t), options{})
		s := stored(t, m, "x")
		m.BreakReply(reply)
		err := s.Update(t.Context(), add("y"))
		var e *madcrow.Error
		if !errors.As(err, &e) || e.Outcome != madcrow.OutcomeUnknown || problem.From(err).Status != http.StatusServiceUnavailable {
			t.Errorf("%s: %v, %+v", reply, err, e)
		}
		if c, found, err := s.Get(t.Context()); !found || err != nil || len(c.Items) != 2 {
			t.Errorf("%s: read again: %v %v %v", reply, c, found, err)
		}
	}
}
