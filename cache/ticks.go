package cache

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	tick = 5 * time.Millisecond
	// behind is how late the ticks are taken to be at most. Only a process that
	// did not run for so long can serve a copy that much too late, as can any
	// that stops between looking at a clock and answering.
	behind = 20 * time.Millisecond
	// restsAfter ticks that nobody looked at, they stop.
	restsAfter = 40
)

// ticks are a clock for near hits, of which reading a real one would be half.
// It runs while it is used.
type ticks struct {
	now  atomic.Int64 // mono, 0 while it rests
	used atomic.Bool

	mu     sync.Mutex
	closed bool
	life   chan struct{}
	all    sync.WaitGroup
}

func newTicks() *ticks { return &ticks{life: make(chan struct{})} }

// latest is a time that has not come yet, but for a process that did not run
// for long: what is valid then is valid now.
func (t *ticks) latest() int64 {
	now := t.now.Load()
	if now == 0 {
		now = t.start()
	} else if !t.used.Load() {
		t.used.Store(true)
	}
	return now + int64(behind)
}

func (t *ticks) start() int64 {
	now := mono()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now.Load() == 0 && !t.closed {
		t.now.Store(now)
		t.all.Go(t.run)
	}
	return now
}

func (t *ticks) run() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	defer t.rest()
	for unused := 0; unused < restsAfter; unused++ {
		select {
		case <-ticker.C:
			t.now.Store(mono())
		case <-t.life:
			return
		}
		if t.used.Swap(false) {
			unused = 0
		}
	}
}

func (t *ticks) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.Store(0)
}

// close stops it, for good.
func (t *ticks) close() {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.life)
	}
	t.mu.Unlock()
	t.all.Wait()
}
