package logonce

import (
	"sync"
	"time"
)

// Rate bounds the lines of one kind in a log, where each is about another thing
// and none repeats another. The zero value lets nothing through.
type Rate struct {
	// Lines is how many may be logged in each span of Every.
	Lines int
	Every time.Duration

	mu      sync.Mutex
	began   time.Time // the current span
	logged  int       // in it
	dropped int       // lines that were not logged, and not counted in the log yet
}

// Allow says whether a line is to be logged now.
func (r *Rate) Allow(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.began) >= r.Every {
		r.began, r.logged = now, 0
	}
	if r.logged >= r.Lines {
		r.dropped++
		return false
	}
	r.logged++
	return true
}

// Dropped returns how many lines were not logged, once the span that they were in
// is over, or at once where final is set. They do not count again.
func (r *Rate) Dropped(now time.Time, final bool) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if final || now.Sub(r.began) >= r.Every {
		n, r.dropped = r.dropped, 0
	}
	return n
}
