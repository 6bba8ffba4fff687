package madcrow

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
	slowTurn       = 2 * time.Millisecond
	withoutAtFirst = 250 * time.Millisecond
	withoutAtMost  = 8 * time.Second
	// fewCalls go as they come: there is little to gather.
	fewCalls = 4
)

// gathering is the state of this for a lane. Its one writer uses it.
type gathering struct {
	next    atomic.Int64 // when to let others go first again
	without atomic.Int64 // how long it did without last
}

// gather lets others go first, if there are any.
func (l *lane) gather() {
	if l.inflight.Load() < fewCalls {
		return
	}
	g, start := &l.gathering, clock.Now()
	if start < g.next.Load() {
		return
	}
	runtime.Gosched()
	end := clock.Now()
	if end-start < int64(slowTurn) {
		if g.without.Load() != 0 {
			g.without.Store(0)
		}
		return
	}
	without := min(max(2*g.without.Load(), int64(withoutAtFirst)), int64(withoutAtMost))
	g.without.Store(without)
	g.next.Store(end + without)
}
