package session_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

func TestInspect_DoesNotUseTheSession(t *testing.T) {
	r := open(t)
	secret := []byte("a secret of 24 bytes, ok")
	m := newManager(t, r, options{IdleTimeout: 10 * time.Second, RememberIdleTimeout: 20 * time.Second, Secret: secret})
	s := m.Open("")
	if err := s.Login(t.Context(), "alice", session.Remember()); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), add("apple")); err != nil {
		t.Fatal(err)
	}
	if err := s.AddFlash(t.Context(), "info", "hello"); err != nil {
		t.Fatal(err)
	}
	// One that knows nothing of the type.
	raw, err := session.New(r, "web", session.Options[any]{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	first, found, err := raw.Inspect(t.Context(), "alice", s.Handle())
	if err != nil || !found || string(first.Data) != `{"items":["apple"],"n":1}` || first.Flashes != 1 || first.Changes != 3 || !first.Remember || first.Sealed ||
		first.Size < 40 || first.Left > 20*time.Second || first.Left < 10*time.Second || first.Handle != s.Handle() || first.Ends.Before(first.Created.Add(time.Hour)) {
		t.Errorf("%+v %s %v %v", first, first.Data, found, err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		d, found, err := raw.Inspect(t.Context(), "alice", s.Handle())
		if err != nil || !found || d.Left > first.Left || time.Now().After(end) {
			t.Fatalf("%+v %v %v", d, found, err)
		}
		if first.Left-d.Left > 2100*time.Millisecond { // more than a tenth of the idle time: a use would have put it back
			break
		}
	}

	for name, ask := range map[string][2]string{
		"of another user": {"bob", s.Handle()}, "that is none": {"alice", strings.Repeat("A", 43)}, "that cannot be": {"alice", "*"},
	} {
		if _, found, err := raw.Inspect(t.Context(), ask[0], ask[1]); found || err != nil {
			t.Errorf("a handle %s: %v %v", name, found, err)
		}
	}
	var invalid *madcrow.ArgumentError
	if _, _, err := raw.Inspect(t.Context(), "", s.Handle()); !errors.As(err, &invalid) {
		t.Error(err)
	}
	if err := s.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, found, err := raw.Inspect(t.Context(), "alice", s.Handle()); found || err != nil {
		t.Errorf("after the logout: %v %v", found, err)
	}
}

func TestInspect_EncryptedDataNeedsItsKey(t *testing.T) {
	r := open(t)
	key := make([]byte, 32)
	m := newManager(t, r, options{EncryptionKeys: [][]byte{key}})
	s := m.Open("")
	if err := s.Login(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), add("apple")); err != nil {
		t.Fatal(err)
	}
	if d, found, err := m.Inspect(t.Context(), "alice", s.Handle()); err != nil || !found || !d.Sealed || !strings.Contains(string(d.Data), "apple") {
		t.Errorf("with the key: %+v %v %v", d, found, err)
	}
	for _, keys := range [][][]byte{nil, {append(make([]byte, 31), 1)}} {
		if d, found, err := newManager(t, r, options{EncryptionKeys: keys}).Inspect(t.Context(), "alice", s.Handle()); err != nil || !found || !d.Sealed || d.Data != nil || d.Size == 0 {
			t.Errorf("without the key: %+v %v %v", d, found, err)
		}
	}
}

func TestInspect_FastAPILayout(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{FastAPILayout: true, IdleTimeout: time.Hour})
	s := m.Open("")
	if err := s.Update(t.Context(), add("apple")); err != nil {
		t.Fatal(err)
	}
	if d, found, err := m.Inspect(t.Context(), "", s.Token()); err != nil || !found || string(d.Data) != `{"items":["apple"],"n":1}` || d.Left > time.Hour || d.Left < 59*time.Minute {
		t.Errorf("%+v %v %v", d, found, err)
	}
	for _, id := range []string{"", "x", "a b", strings.Repeat("x", 256)} {
		if _, found, err := m.Inspect(t.Context(), "", id); found || err != nil {
			t.Errorf("%q: %v %v", id, found, err)
		}
	}
	if _, _, err := m.Inspect(t.Context(), "alice", s.Token()); !errors.Is(err, session.ErrFastAPILayout) {
		t.Error(err)
	}
}
