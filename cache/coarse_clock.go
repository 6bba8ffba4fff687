package cache

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

const (
	clockStep = 5 * time.Millisecond
	// clockError is the most by which the coarse clock is taken to be late. A process
	// that did not run for longer can serve a copy that much too late, as can any
	// that stops between reading a clock and answering.
	clockError = 20 * time.Millisecond
	// stopAfter steps without a reader, the clock stops.
	stopAfter = 40
)

// coarseClock is a clock for near hits, half of whose time would be spent on
// reading a real one. It runs while it is used.
type coarseClock struct {
	now  atomic.Int64 // 0 while it is stopped
	used atomic.Bool

	mu     sync.Mutex
	closed bool
	life   chan struct{}
	all    sync.WaitGroup
}

func newCoarseClock() *coarseClock { return &coarseClock{life: make(chan struct{})} }

// upperBound is the coarse time and the most that it is late: an entry that is
// valid then is valid now.
func (t *coarseClock) upperBound() int64 {
	now := t.now.Load()
	if now == 0 {
		now = t.start()
	} else if !t.used.Load() {
		t.used.Store(true)
	}
	return now + int64(clockError)
}

func (t *coarseClock) start() int64 {
	now := clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now.Load() == 0 && !t.closed {
		t.now.Store(now)
		t.all.Go(t.run)
	}
	return now
}

func (t *coarseClock) run() {
	ticker := time.NewTicker(clockStep)
	defer ticker.Stop()
	defer t.rest()
	for unused := 0; unused < stopAfter; unused++ {
		select {
		case <-ticker.C:
			t.now.Store(clock.Now())
		case <-t.life:
			return
		}
		if t.used.Swap(false) {
			unused = 0
		}
	}
}

func (t *coarseClock) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.Store(0)
}

// close stops it for good.
func (t *coarseClock) close() {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.life)
	}
	t.mu.Unlock()
	t.all.Wait()
}
