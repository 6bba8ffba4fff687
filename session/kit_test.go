package session_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

// login opens a session of a user.
func login(t testing.TB, m *session.Manager[cart], user string, opts ...session.LoginOption) *session.Session[cart] {
	t.Helper()
	s := m.Open("")
	if err := s.Login(t.Context(), user, opts...); err != nil {
		t.Fatal(err)
	}
	return s
}

// stored makes a session without user.
func stored(t testing.TB, m *session.Manager[cart], item string) *session.Session[cart] {
	t.Helper()
	s := m.Open("")
	if err := s.Update(t.Context(), add(item)); err != nil {
		t.Fatal(err)
	}
	return s
}

// loaded opens an identifier once more, and reads it.
func loaded(t testing.TB, m *session.Manager[cart], token string) *session.Session[cart] {
	t.Helper()
	s := m.Open(token)
	if _, found, err := s.Get(t.Context()); !found || err != nil {
		t.Fatalf("found %v, %v", found, err)
	}
	return s
}

// alive says whether an identifier can be read.
func alive(t testing.TB, m *session.Manager[cart], token string) bool {
	t.Helper()
	_, found, err := m.Open(token).Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// once calls f before the first operation of that name.
func once(name string, f func()) session.Hook {
	var first sync.Once
	return func(op string) error {
		if op == name {
			first.Do(f)
		}
		return nil
	}
}

// refuse makes the operation of that name fail, n times.
func refuse(name string, n int) session.Hook {
	return func(op string) error {
		if op == name && n > 0 {
			n--
			return &madcrow.Error{Op: name, Kind: madcrow.KindServer, Outcome: madcrow.OutcomeNotApplied, Err: errors.New("refused for a test")}
		}
		return nil
	}
}
