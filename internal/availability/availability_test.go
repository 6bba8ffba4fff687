package availability

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/madcrow-go/madcrow/internal/fault"
)

func TestMonitor_CallsWaitWhileProbing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New()
		why := &fault.Error{Kind: fault.KindUnavailable, Err: fault.ErrSilent}
		passed := make(chan *fault.Error, 1)
		go func() { passed <- a.Wait(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-passed:
			t.Fatalf("passed while probing: %v", err)
		default:
		}
		a.Set(Up, nil)
		if err := <-passed; err != nil {
			t.Errorf("after the probe: %v", err)
		}
		if !a.Suspect(why) || a.Suspect(why) {
			t.Error("a suspicion is reported once")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		if err := a.Wait(ctx); err == nil || err.Kind != fault.KindTimeout || err.Outcome != fault.OutcomeNotApplied || !errors.Is(err, fault.ErrSilent) {
			t.Errorf("a deadline while probing: %v", err)
		}
		if !a.SetDownIfProbing(why) || a.SetDownIfProbing(why) {
			t.Error("SetDownIfProbing works while probing, and once")
		}
		if err := a.Wait(t.Context()); err != why {
			t.Errorf("down: %v", err)
		}
		a.Set(Up, nil)
		if a.SetDownIfProbing(why) {
			t.Error("a late probe made a server that is up one that is down")
		}
		a.Set(Closed, why)
		if a.Set(Up, nil) || a.Wait(t.Context()) == nil {
			t.Error("a closed server came up")
		}
	})
}

// The server came up between the load of its state and the lock, and the call
// failed.
func TestMonitor_WaitPassesAServerThatComesUpMeanwhile(t *testing.T) {
	a := New()
	stop := time.Now().Add(200 * time.Millisecond)
	go func() {
		for time.Now().Before(stop) {
			a.Set(Down, &fault.Error{Kind: fault.KindUnavailable, Err: fault.ErrSilent})
			a.Set(Up, nil)
		}
	}()
	for time.Now().Before(stop) {
		if err := a.Wait(context.Background()); err != nil && errors.Is(err.Err, fault.ErrNotConnected) {
			t.Fatalf("a server that is up said: %v", err)
		}
	}
}
