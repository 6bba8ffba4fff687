package session_test

import (
	"errors"
	"testing"

	"github.com/madcrow-go/madcrow/session"
)

// A late request under the first identifier, after two changes of it within the
// grace, found none and began a session: its cookie took the place of the right
// one, and the browser was logged out.
func TestRotate_RepeatedInTheGraceTheFirstIdentifierStartsNoSession(t *testing.T) {
	m := newManager(t, open(t), session.Options{})
	rotate := func(s *session.Session[cart]) { must(t, s.Rotate(t.Context())) }
	again := func(s *session.Session[cart]) { must(t, s.Login(t.Context(), "alice")) }
	others := func(s *session.Session[cart]) { must(t, second(s.RevokeOthers(t.Context()))) }
	everywhere := func(s *session.Session[cart]) {
		must(t, second(m.RevokeAll(t.Context(), "alice")))
		// The same browser logs in again.
		must(t, m.Open(s.Token()).Login(t.Context(), "alice"))
	}
	logout := func(s *session.Session[cart]) { must(t, s.Logout(t.Context())) }
	for name, steps := range map[string][]func(*session.Session[cart]){
		"rotated two times":                    {rotate, rotate},
		"three times":                          {rotate, rotate, rotate},
		"two times, and the others ended":      {rotate, rotate, others},
		"in between":                           {rotate, others, rotate},
		"a login after it":                     {rotate, again},
		"a login before it":                    {again, rotate},
		"two logins":                           {again, again},
		"all ended, and a login":               {rotate, everywhere},
		"logged out after it":                  {rotate, logout},
		"logged out after two, and again":      {rotate, rotate, logout, again},
		"logged out after a login":             {again, logout},
		"rotated two times, the others, login": {rotate, rotate, others, again},
	} {
		t.Run(name, func(t *testing.T) {
			s := login(t, m, "alice")
			first := s.Token()
			for _, step := range steps {
				step(s)
			}
			late := m.Open(first)
			if _, found, err := late.Get(t.Context()); found || err != nil {
				t.Errorf("it reads: %v %v", found, err)
			}
			if err := late.Update(t.Context(), add("late")); !errors.Is(err, session.ErrRotated) || late.Token() != "" {
				t.Errorf("a late write: %v, new identifier %v", err, late.Token() != "")
			}
			if err := late.AddFlash(t.Context(), "info", "late"); !errors.Is(err, session.ErrRotated) {
				t.Errorf("a late message: %v", err)
			}
			if err := late.Rotate(t.Context()); err != nil || late.Token() != "" {
				t.Errorf("a late rotation: %v", err)
			}
			if n, err := late.RevokeOthers(t.Context()); !errors.Is(err, session.ErrNoUser) || n != 0 {
				t.Errorf("a late revocation: %d %v", n, err)
			}
			if ended := s.Token() == ""; !ended && !alive(t, m, s.Token()) && name != "all ended, and a login" {
				t.Error("the right one has ended")
			}
		})
	}
}

// A login whose session was rotated and ended meanwhile took its data along, and
// was said to be made where a revocation had ended what it made, too.
func TestLogin_RevivesNoDataOfARotatedAndEndedSession(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*session.Manager[cart], *session.Session[cart]) error
		when string
		want error
	}{
		"logged out": {func(_ *session.Manager[cart], s *session.Session[cart]) error { return s.Logout(t.Context()) }, "create", nil},
		"all were ended": {func(m *session.Manager[cart], _ *session.Session[cart]) error {
			return second(m.RevokeAll(t.Context(), "alice"))
		}, "create", nil},
		"this one was ended": {func(m *session.Manager[cart], s *session.Session[cart]) error {
			return second(m.Revoke(t.Context(), "alice", s.Handle()))
		}, "destroy", nil},
		"all, the new one too": {
			func(m *session.Manager[cart], _ *session.Session[cart]) error {
				return second(m.RevokeAll(t.Context(), "alice"))
			},
			"destroy", session.ErrEnded,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t)
			m, others := newManager(t, r, session.Options{}), newManager(t, r, session.Options{})
			s := login(t, others, "alice")
			must(t, s.Update(t.Context(), add("x")))
			first := s.Token()
			late := loaded(t, m, first)
			m.SetHook(once(c.when, func() {
				must(t, s.Rotate(t.Context()))
				must(t, c.end(others, s))
			}))
			err := late.Login(t.Context(), "alice")
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err == nil {
				if c, found, err := others.Open(late.Token()).Get(t.Context()); !found || err != nil || c.N != 0 {
					t.Errorf("%+v %v %v", c, found, err)
				}
			}
			// The note under the first identifier stays.
			if err := others.Open(first).Update(t.Context(), add("late")); !errors.Is(err, session.ErrRotated) {
				t.Errorf("a late write: %v", err)
			}
		})
	}
}
