package conn

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

// On processors that are busy with other work, no other call goes first for long.
func TestCoalesce_BusyProcessorsHoldUpAWriteOnce(t *testing.T) {
	s := NewShared(nil)
	s.inflight.Store(5)
	var stop atomic.Bool
	var busy sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) {
		busy.Go(func() {
			for !stop.Load() { //nolint:revive // it is to be busy
			}
		})
	}
	defer busy.Wait()
	defer stop.Store(true)
	for deadline := time.Now().Add(20 * time.Second); s.coalescing.lastSkip.Load() == 0; {
		if s.coalesce(); time.Now().After(deadline) {
			t.Fatal("no turn was slow, with four busy goroutines a processor")
		}
	}
	skip, next := s.coalescing.lastSkip.Load(), s.coalescing.resumeAt.Load()
	for range 10_000 {
		if clock.Now() >= next {
			break // the test itself was held up
		}
		s.coalesce()
	}
	if clock.Now() < next && s.coalescing.resumeAt.Load() != next {
		t.Error("it yielded, after a yield that was slow")
	}
	for deadline := time.Now().Add(20 * time.Second); s.coalescing.lastSkip.Load() == skip; time.Sleep(time.Millisecond) {
		if s.coalesce(); time.Now().After(deadline) {
			t.Fatal("it does not try again")
		}
	}
	stop.Store(true)
	busy.Wait()
	for deadline := time.Now().Add(20 * time.Second); s.coalescing.lastSkip.Load() != 0; time.Sleep(time.Millisecond) {
		if s.coalesce(); time.Now().After(deadline) {
			t.Fatal("the processors are free, and it does without")
		}
	}
}

// A call that is alone waits for no other.
func TestCoalesce_OneCallWaitsForNoOther(t *testing.T) {
	s := NewShared(nil)
	s.inflight.Store(1)
	s.coalescing.lastSkip.Store(1)
	if s.coalesce(); s.coalescing.lastSkip.Load() != 1 {
		t.Error("it yielded")
	}
}
