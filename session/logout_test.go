package session_test

import (
	"errors"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

func TestLogout_WithTheOldIdentifierEndsTheRotatedSession(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := login(t, m, "alice")
	old := s.Token()
	must(t, s.Rotate(t.Context()))
	must(t, m.Open(old).Logout(t.Context()))
	if alive(t, m, s.Token()) || alive(t, m, old) {
		t.Error("logged out with the identifier from before a rotation, and the session lives on")
	}
}

func TestLogout_CanBeRepeatedAfterAFailure(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{})
	s := login(t, m, "alice")
	m.SetHook(refuse("destroy", 1))
	if err := s.Logout(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if _, found, err := s.Get(t.Context()); found || err != nil {
		t.Errorf("after a logout that failed: %v %v", found, err)
	}
	must(t, s.Logout(t.Context()))
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 0 {
		t.Errorf("a repeated logout returned nil, and the session lives on: %v %v", list, err)
	}
}

func TestLogout_OutsideOfMiddlewareIsAnError(t *testing.T) {
	m := newManager(t, open(t), options{})
	if err := m.From(t.Context()).Logout(t.Context()); !errors.Is(err, session.ErrNoMiddleware) {
		t.Error(err)
	}
}

func TestLogout_EndsWhatCannotBeDecoded(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{})
	s := login(t, m, "alice")
	other, err := session.New(r, "web", session.Options[int]{})
	must(t, err)
	late := other.Open(s.Token())
	if _, found, err := late.Get(t.Context()); found || err != nil {
		t.Fatal(found, err)
	}
	must(t, late.Logout(t.Context()))
	if alive(t, m, s.Token()) {
		t.Error("logged out, and alive")
	}
}

// Of two sessions one was ended and the other one was not, and the error said that
// Redis was not changed.
func TestLogout_OfWhichAPartFailedHasAnUnknownOutcome(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := stored(t, m, "x")
	m.SetHook(refuse("destroy", 1))
	if err := s.Login(t.Context(), "alice"); !errors.Is(err, session.ErrOldSessionActive) {
		t.Fatal(err)
	}
	m.SetHook(refuse("destroy", 1))
	var e *madcrow.Error
	if err := s.Logout(t.Context()); !errors.As(err, &e) || e.Outcome != madcrow.OutcomeUnknown || e.Kind != madcrow.KindServer {
		t.Errorf("a part: %v", err)
	}
	m.SetHook(refuse("destroy", 1))
	if err := s.Logout(t.Context()); !errors.As(err, &e) || e.Outcome != madcrow.OutcomeNotApplied {
		t.Errorf("nothing: %v", err)
	}
	must(t, s.Logout(t.Context()))
}
