package session_test

import (
	"errors"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// A login and a rotation write a key that does not exist yet beside the user's
// epoch and index. While their slot moves Redis refuses that.
func TestLogin_WhileTheSlotOfTheUserMovesIsRefusedAndChangesNothing(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	r := openConfig(t, c.Config())
	m := newManager(t, r, options{})
	member := login(t, m, "alice")
	guest := stored(t, m, "x")
	at, _, _ := m.KeysOf(member.Token())
	slot, to := c.Slot(at), c.Nodes()[0]
	if to == c.MasterOf(t, at) {
		to = c.Nodes()[1]
	}
	guestToken, memberToken := guest.Token(), member.Token()
	c.BeginMove(t, slot, to)
	for name, change := range map[string]func() error{
		"Login":  func() error { return m.Open(guestToken).Login(t.Context(), "alice") },
		"Rotate": func() error { return m.Open(memberToken).Rotate(t.Context()) },
	} {
		began := time.Now()
		err := change()
		var e *madcrow.Error
		if !errors.Is(err, madcrow.ErrSlotMoving) || !errors.As(err, &e) || e.Outcome != madcrow.OutcomeNotApplied {
			t.Errorf("%s: %v", name, err)
		}
		if took, most := time.Since(began), r.Config().CommandTimeout+testkit.Slack(100*time.Millisecond); took > most {
			t.Errorf("%s took %v of %v", name, took, most)
		}
	}
	if !alive(t, m, guestToken) || !alive(t, m, memberToken) {
		t.Error("a refused change ended a session")
	}
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 1 {
		t.Errorf("%d sessions, %v", len(list), err)
	}
	c.FinishMove(t, slot, to)
	must(t, m.Open(guestToken).Login(t.Context(), "alice"))
	must(t, m.Open(memberToken).Rotate(t.Context()))
}
