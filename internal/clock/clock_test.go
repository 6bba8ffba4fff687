package clock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestSleep_EndsWithItsTimeOrItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := Now()
		if err := Sleep(t.Context(), time.Second); err != nil || Now()-began != int64(time.Second) {
			t.Errorf("slept %v: %v", time.Duration(Now()-began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = Now()
		if err := Sleep(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || Now()-began != int64(time.Second) {
			t.Errorf("slept %v: %v", time.Duration(Now()-began), err)
		}
		if err := Sleep(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a context that has ended: %v", err)
		}
	})
}

func TestBackoff_GrowsFromFirstToMost(t *testing.T) {
	b := Backoff{First: 5 * time.Millisecond, Most: 100 * time.Millisecond}
	for try, most := range map[int]time.Duration{0: b.First, 1: 2 * b.First, 3: 8 * b.First, 5: b.Most, 31: b.Most, 40: b.Most, 1000: b.Most} {
		for range 100 {
			if d := b.Delay(try); d < most/2 || d > most {
				t.Fatalf("after try %d: %v, want %v to %v", try, d, most/2, most)
			}
		}
	}
	if d := (Backoff{}).Delay(3); d != 0 {
		t.Errorf("the zero value waits %v", d)
	}
}

func TestBackoff_DoesNotWaitWhereNoTimeIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Backoff{First: 5 * time.Millisecond, Most: 100 * time.Millisecond}
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Millisecond)
		defer cancel()
		began := Now()
		if b.Pause(ctx, 0) || Now() != began {
			t.Errorf("waited %v of 6ms", time.Duration(Now()-began))
		}
		if !b.Pause(t.Context(), 0) {
			t.Error("no try without a deadline")
		}
	})
}

func TestTime_IsTheReverseOfAt(t *testing.T) {
	now := time.Now()
	if got := Time(At(now)); !got.Equal(now) {
		t.Errorf("%v, want %v", got, now)
	}
}
