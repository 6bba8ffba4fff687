package cache

import (
	"testing"
	"time"
)

func TestTicks_RunWhileTheyAreUsedAndAreNotBehind(t *testing.T) {
	ticks := newTicks()
	defer ticks.close()
	for range 200 {
		before := mono()
		if latest := ticks.latest(); latest < before {
			t.Logf("behind by %v: the machine is busy", time.Duration(before-latest))
			if latest < before-int64(time.Second) {
				t.Fatal("they do not run")
			}
		}
		time.Sleep(time.Millisecond)
	}
	for deadline := time.Now().Add(10 * time.Second); ticks.now.Load() != 0; time.Sleep(tick) {
		if time.Now().After(deadline) {
			t.Fatal("nobody uses them, and they run")
		}
	}
	if ticks.latest(); ticks.now.Load() == 0 {
		t.Error("they do not run again")
	}
	ticks.close()
	ticks.close()
	if ticks.now.Load() != 0 {
		t.Error("they run on after they were closed")
	}
	if latest, now := ticks.latest(), mono(); latest < now || ticks.now.Load() != 0 {
		t.Errorf("closed, they show %v at %v", time.Duration(latest), time.Duration(now))
	}
}
