package cache

import (
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

func TestCoarseClock_RunsWhileItIsUsedAndIsNotLate(t *testing.T) {
	coarseClock := newCoarseClock()
	defer coarseClock.close()
	for range 200 {
		before := clock.Now()
		if upperBound := coarseClock.upperBound(); upperBound < before {
			t.Logf("behind by %v: the machine is busy", time.Duration(before-upperBound))
			if upperBound < before-int64(time.Second) {
				t.Fatal("they do not run")
			}
		}
		time.Sleep(time.Millisecond)
	}
	for deadline := time.Now().Add(10 * time.Second); coarseClock.now.Load() != 0; time.Sleep(clockStep) {
		if time.Now().After(deadline) {
			t.Fatal("it is not used, and runs")
		}
	}
	if coarseClock.upperBound(); coarseClock.now.Load() == 0 {
		t.Error("they do not run again")
	}
	coarseClock.close()
	coarseClock.close()
	if coarseClock.now.Load() != 0 {
		t.Error("they run on after they were closed")
	}
	if upperBound, now := coarseClock.upperBound(), clock.Now(); upperBound < now || coarseClock.now.Load() != 0 {
		t.Errorf("closed, they show %v at %v", time.Duration(upperBound), time.Duration(now))
	}
}
