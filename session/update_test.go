package session_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/session"
)

func TestUpdate_InsideUpdateIsAnError(t *testing.T) {
	cfg := config
	cfg.CommandTimeout = 300 * time.Millisecond
	m := newManager(t, openConfig(t, cfg), session.Options{Name: "inside"})
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
	m := newManager(t, open(t), session.Options{})
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
