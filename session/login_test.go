package session_test

import (
	"errors"
	"testing"

	"github.com/madcrow-go/madcrow/session"
)

// A late request under the first identifier, after two changes of it within the
// grace, found none and began a session: its cookie took the place of the right
// one, and the browser was logged out.
func TestRotate_TwiceInTheGraceTheFirstIdentifierBeginsNothing(t *testing.T) {
	m := newManager(t, open(t), session.Options{})
	rotate := func(s *session.Session[cart]) { must(t, s.Rotate(t.Context())) }
	again := func(s *session.Session[cart]) { must(t, s.Login(t.Context(), "alice")) }
	others := func(s *session.Session[cart]) { must(t, second(s.RevokeOthers(t.Context()))) }
	everywhere := func(s *session.Session[cart]) {
		must(t, second(m.RevokeAll(t.Context(), "alice")))
		// The same browser logs in anew.
		must(t, m.Open(s.Token()).Login(t.Context(), "alice"))
	}
	logout := func(s *session.Session[cart]) { must(t, s.Logout(t.Context())) }
	for name, steps := range map[string][]func(*session.Session[cart]){
		"rotated twice":                    {rotate, rotate},
		"three times":                      {rotate, rotate, rotate},
		"twice, and the others ended":      {rotate, rotate, others},
		"in between":                       {rotate, others, rotate},
		"a login after it":                 {rotate, again},
		"a login before it":                {again, rotate},
		"two logins":                       {again, again},
		"all ended, and a login":           {rotate, everywhere},
		"logged out after it":              {rotate, logout},
		"logged out after two, and anew":   {rotate, rotate, logout, again},
		"logged out after a login":         {again, logout},
		"rotated twice, the others, login": {rotate, rotate, others, again},
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
