package conn

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

// Write coalescing: a write to a connection costs more than all else that a call
// does, and takes any number of commands along. So before each write the writer
// yields the processor once, and the goroutines that are about to call append to
// the same write. At 64 of them that doubles what a connection can do.
//
// Where a yield takes more than maxYield, because the processors are busy with
// other work, the connection skips it for a while, and doubles that time for as
// long as yields stay slow.
const (
	maxYield = 2 * time.Millisecond
	minSkip  = 250 * time.Millisecond
	maxSkip  = 8 * time.Second
	// fewCalls are not worth a yield.
	fewCalls = 4
)

// coalescing is the state of that for one connection. Its writer uses it.
type coalescing struct {
	resumeAt atomic.Int64 // when to yield again
	lastSkip atomic.Int64 // how long the last skip was
}

// coalesce yields once, if other calls are under way.
func (s *Shared) coalesce() {
	if s.inflight.Load() < fewCalls {
		return
	}
	g, start := &s.coalescing, clock.Now()
	if start < g.resumeAt.Load() {
		return
	}
	runtime.Gosched()
	end := clock.Now()
	if end-start < int64(maxYield) {
		if g.lastSkip.Load() != 0 {
			g.lastSkip.Store(0)
		}
		return
	}
	skip := min(max(2*g.lastSkip.Load(), int64(minSkip)), int64(maxSkip))
	g.lastSkip.Store(skip)
	g.resumeAt.Store(end + skip)
}
