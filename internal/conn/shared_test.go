package conn

import (
	"context"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// TestShared_SlotsOfAbandonedCallsComeBackWithALaterReply checks the accounting of calls that gave
// up: only a reply to a call that began later frees their slots.
func TestShared_SlotsOfAbandonedCallsComeBackWithALaterReply(t *testing.T) {
	ep := NewEndpoint(t.Context(), Config{MaxConnections: 1}, "")
	ep.Availability.Set(availability.Up, nil)
	s := NewShared(ep)
	ctx := t.Context()
	early := clock.Now()
	for range sharedSlots {
		if err := s.Enter(ctx); err != nil {
			t.Fatal(err)
		}
		s.lastRead.Store(clock.Now() + int64(time.Second)) // bytes flow
		s.leave(early, true)
	}
	if s.abandoned.Load() != sharedSlots || s.inflight.Load() != 0 {
		t.Fatalf("abandoned %d, in flight %d", s.abandoned.Load(), s.inflight.Load())
	}
	s.NoteReply(early)
	if s.abandoned.Load() != sharedSlots {
		t.Error("an earlier call proved later replies")
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := s.Enter(short); err == nil || err.Kind != fault.KindTimeout || err.Outcome != fault.OutcomeNotApplied {
		t.Errorf("entered a full connection: %v", err)
	}
	if ep.Availability.Load() != availability.Probing {
		t.Error("a connection full of abandoned calls did not wake the prober")
	}
	s.NoteReply(clock.Now() + abandonedStretch) // later than the stretch they gave up in
	if s.abandoned.Load() != 0 {
		t.Error("a later reply proved nothing")
	}
	ep.Availability.Set(availability.Up, nil)
	if err := s.Enter(ctx); err != nil {
		t.Errorf("after the proof: %v", err)
	}
}
