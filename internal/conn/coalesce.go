package conn

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

// A write to a connection costs more than all else that a call does, and
// takes any number of commands along. So before each one the goroutines that
// are about to call go first: at 64 of them it doubles what a lane can do.
//
// They must not go first for long. Where a turn of the scheduler takes more
// than slowTurn, because the processors are busy with other work, the lane
// does without for a while, and doubles that time as long as it does not get
// better.
const (
	maxYield = 2 * time.Millisecond
	minSkip  = 250 * time.Millisecond
	maxSkip  = 8 * time.Second
	// fewCalls go as they come: there is little to gather.
	fewCalls = 4
)

// gathering is the state of this for a lane. Its one writer uses it.
type coalescing struct {
	resumeAt atomic.Int64 // when to let others go first again
	lastSkip atomic.Int64 // how long it did without last
}

// gather lets others go first, if there are any.
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
