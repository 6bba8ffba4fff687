package pending

import (
	"context"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
)

// Redis is what this package needs of a [*madcrow.Redis].
type Redis interface {
	Watch(ctx context.Context) <-chan madcrow.Status
	Available() bool
}

// Progress is the result of one try.
type Progress uint8

const (
	// Done: nothing is left.
	Done Progress = iota
	// Some: a part is done, the rest is tried again after the first pause.
	Some
	// None: nothing could be done; the next pause is twice as long.
	None
)

// RunnerOptions configures a [Runner].
type RunnerOptions struct {
	// Backoff gives the pauses before the tries.
	Backoff clock.Backoff
	// Writable waits for a Redis that takes writes: one that is read-only counts
	// as away.
	Writable bool
}

// Runner calls a function until that has nothing left to do. It is safe for
// concurrent use. Make it with [NewRunner].
type Runner struct {
	redis   Redis
	options RunnerOptions
	try     func(context.Context) Progress

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	running bool
	woken   bool // since the current try began
	stopped bool // no further try comes
}

// NewRunner returns a Runner that calls try, from one goroutine at a time, after
// each Wake. The context of try ends with [Runner.Stop].
func NewRunner(r Redis, options RunnerOptions, try func(context.Context) Progress) *Runner {
	w := &Runner{redis: r, options: options, try: try}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// Wake has try called soon: call it after work was added. It returns false when
// the Runner has stopped, or the Redis was closed: then try is not called again.
func (w *Runner) Wake() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return false
	}
	w.woken = true
	if !w.running {
		w.running = true
		w.wg.Go(w.run)
	}
	return true
}

// Stopped says whether no further try comes.
func (w *Runner) Stopped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopped
}

// Stop ends the current try, waits for it, and lets no further one begin.
func (w *Runner) Stop() {
	w.stop()
	w.cancel()
	w.wg.Wait()
}

func (w *Runner) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
}

func (w *Runner) run() {
	for failures := 0; ; {
		if !w.await(w.options.Backoff.Delay(failures)) {
			w.stop()
			return
		}
		w.mu.Lock()
		w.woken = false
		w.mu.Unlock()
		progress := w.try(w.ctx)
		if progress == None {
			failures++
		} else {
			failures = 0
		}
		w.mu.Lock()
		if progress == Done && !w.woken {
			w.running = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
	}
}

// await pauses, and then waits until Redis is usable. It returns false when the
// Runner or the Redis has ended.
func (w *Runner) await(pause time.Duration) bool {
	if clock.Sleep(w.ctx, pause) != nil {
		return false
	}
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	for status := range w.redis.Watch(ctx) {
		switch status.State {
		case madcrow.StateUp, madcrow.StateDegraded:
			if !status.ReadOnly || !w.options.Writable {
				return true
			}
		case madcrow.StateClosed:
			return false
		}
	}
	return false
}
