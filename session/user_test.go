package session_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/session"
)

func TestRevoke_ByTheOldHandleEndsTheRotatedSession(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := login(t, m, "alice")
	list, err := m.List(t.Context(), "alice")
	must(t, err)
	must(t, s.Rotate(t.Context()))
	ok, err := m.Revoke(t.Context(), "alice", list[0].Handle)
	if !ok || err != nil || alive(t, m, s.Token()) {
		t.Errorf("revoked %v, %v, and alive %v", ok, err, alive(t, m, s.Token()))
	}
}

func TestRevoke_LeavesAStrangerInTheSameSlotAlone(t *testing.T) {
	m := newManager(t, open(t), options{})
	alice := login(t, m, "alice")
	anonymous := stored(t, m, "x")
	mallory := ""
	for i := 0; mallory == "" || session.TagOf(nil, mallory) != session.TagOf(nil, "alice"); i++ {
		mallory = "mallory" + strconv.Itoa(i)
	}
	if ok, err := m.Revoke(t.Context(), mallory, alice.Handle()); ok || err != nil || !alive(t, m, alice.Token()) {
		t.Errorf("%s ended the session of alice: %v, %v", mallory, ok, err)
	}
	for _, handle := range []string{"", "x", "}{", strings.Repeat("\x00", 43), strings.Repeat("k", 1<<20), anonymous.Handle()} {
		if ok, err := m.Revoke(t.Context(), "alice", handle); ok || err != nil {
			t.Errorf("%.50q: %v, %v", handle, ok, err)
		}
	}
	if !alive(t, m, anonymous.Token()) {
		t.Error("a session without user was ended")
	}
}

func TestRevokeOthers_WithAnInvalidIdentifierEndsNoSession(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := login(t, m, "alice")
	other := login(t, m, "alice")
	late := loaded(t, m, s.Token())
	must(t, s.Rotate(t.Context()))
	if n, err := late.RevokeOthers(t.Context()); !errors.Is(err, session.ErrRotated) || n != 0 || !alive(t, m, s.Token()) || !alive(t, m, other.Token()) {
		t.Errorf("rotated: %d, %v; alive %v %v", n, err, alive(t, m, s.Token()), alive(t, m, other.Token()))
	}
	late = loaded(t, m, s.Token())
	must(t, s.Logout(t.Context()))
	if n, err := late.RevokeOthers(t.Context()); !errors.Is(err, session.ErrEnded) || n != 0 || !alive(t, m, other.Token()) {
		t.Errorf("ended: %d, %v; alive %v", n, err, alive(t, m, other.Token()))
	}
}

// A change of a password rotates, and ends the others: whoever has stolen the
// old identifier reads nothing any more. A request of the owner that is still
// under way with it does not begin a session in the place of the right one.
func TestRevokeOthers_EndsTheGraceOfTheOneThatIsKept(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := login(t, m, "alice")
	old, other := s.Token(), login(t, m, "alice")
	must(t, s.Rotate(t.Context()))
	if !alive(t, m, old) {
		t.Fatal("no grace")
	}
	if n, err := s.RevokeOthers(t.Context()); n != 1 || err != nil || alive(t, m, other.Token()) || alive(t, m, old) || !alive(t, m, s.Token()) {
		t.Errorf("%d %v; other %v, old %v, kept %v", n, err, alive(t, m, other.Token()), alive(t, m, old), alive(t, m, s.Token()))
	}
	late := m.Open(old)
	if err := late.Update(t.Context(), add("late")); !errors.Is(err, session.ErrRotated) || late.Token() != "" {
		t.Errorf("a late change: %v, %q", err, late.Token())
	}
	must(t, m.Open(old).Logout(t.Context()))
	if !alive(t, m, s.Token()) {
		t.Error("ended by an identifier that counts no more")
	}
	must(t, s.Rotate(t.Context()))
	if _, err := m.RevokeAll(t.Context(), "alice"); err != nil || alive(t, m, s.Token()) || alive(t, m, old) {
		t.Errorf("after RevokeAll: %v", err)
	}
}

// On a command line a handle that began with '-' was an option: one in 64 did.
func TestHandle_DoesNotBeginWithADash(t *testing.T) {
	m := newManager(t, open(t), options{})
	for range 300 {
		if s := login(t, m, "alice"); strings.HasPrefix(s.Handle(), "-") {
			t.Fatal(s.Handle())
		}
	}
}
