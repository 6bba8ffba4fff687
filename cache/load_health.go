package cache

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/guard"
)

const (
	// mostFailing bounds the keys that are remembered because their load failed.
	mostFailing = 1000
	// defaultQuiet is how long no load may have failed before the log says that loads
	// succeed again, although a key whose load failed was not loaded since.
	defaultQuiet = time.Minute
)

// loadHealth observes the loads of one cache. Its log says once when they begin to
// fail, and once when they succeed again.
type loadHealth struct {
	log    *slog.Logger
	name   string
	quiet  time.Duration
	places guard.Said // of panics that are in the log

	now atomic.Pointer[outage] // nil: all is well
}

// outage is a time in which loads fail.
type outage struct {
	since    time.Time
	failures atomic.Int64
	stale    atomic.Int64 // answers in the place of an error

	mu      sync.Mutex
	last    time.Time           // failure
	keys    map[string]struct{} // whose last load failed
	tooMany bool                // keys that failed are not all in keys
}

// failed notes a load that failed. staleFor is for how long there is a stale value
// to serve, 0 where there is none.
func (h *loadHealth) failed(key string, err error, staleFor time.Duration) {
	if p := (*guard.Panic)(nil); errors.As(err, &p) && h.places.First(p.Place) {
		h.log.Error("a loader panicked", "cache", h.name, "reason", err, "stack", p.Stack)
	}
	now := time.Now()
	o := h.now.Load()
	for o == nil {
		o = &outage{since: now, keys: map[string]struct{}{}}
		if h.now.CompareAndSwap(nil, o) {
			h.logFirst(err, now, staleFor)
			break
		}
		o = h.now.Load()
	}
	o.failures.Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = now
	if _, known := o.keys[key]; !known && len(o.keys) == mostFailing {
		o.tooMany = true
		return
	}
	o.keys[key] = struct{}{}
}

func (h *loadHealth) logFirst(err error, now time.Time, staleFor time.Duration) {
	if staleFor <= 0 {
		h.log.Warn("a load failed, and its callers get the error; further failures are counted, not logged",
			"cache", h.name, "reason", err)
		return
	}
	until := now.Add(staleFor)
	h.log.Warn("a load failed, and the stale value is served until "+until.Format(time.RFC3339)+", then callers get the error; further failures are counted, not logged",
		"cache", h.name, "reason", err, "stale_until", until)
}

// succeeded notes a load that did not fail.
func (h *loadHealth) succeeded(key string) {
	o := h.now.Load()
	if o == nil {
		return
	}
	o.mu.Lock()
	delete(o.keys, key)
	over := len(o.keys) == 0 && !o.tooMany || time.Since(o.last) >= h.quiet
	o.mu.Unlock()
	if over && h.now.CompareAndSwap(o, nil) {
		h.log.Info("loads succeed again", "cache", h.name, "lasted", time.Since(o.since).Round(time.Millisecond),
			"failures", o.failures.Load(), "stale_answers", o.stale.Load())
	}
}

// servedStale notes a stale answer.
func (h *loadHealth) servedStale() {
	if o := h.now.Load(); o != nil {
		o.stale.Add(1)
	}
}

// The reasons of EventCacheLoadError.
const (
	reasonError   = "error"
	reasonPanic   = "panic"
	reasonTimeout = "timeout"
	reasonBusy    = "busy"
)

func reasonOf(err error) string {
	var p *guard.Panic
	switch {
	case errors.As(err, &p):
		return reasonPanic
	case errors.Is(err, ErrLoadTimeout):
		return reasonTimeout
	case !isOfLoader(err) && errors.Is(err, ErrBusy):
		return reasonBusy
	}
	return reasonError
}

// observe reports the end of the load of l, once, by its error.
func (l *loader[T]) observe(err error) {
	c := l.c
	if err == nil || errors.Is(err, ErrNotFound) {
		c.health.succeeded(l.req.encKey)
		return
	}
	var unwanted abandoned
	if errors.As(err, &unwanted) || !isOfLoader(err) && (errors.Is(err, ErrLoadFailed) || errors.Is(err, ErrClosed)) {
		return // another process has reported it, or no one wants the value any more
	}
	c.events.Send(l.ctx, madcrow.Event{Type: madcrow.EventCacheLoadError, Duration: time.Since(l.since), Reason: reasonOf(err), Err: err})
	c.health.failed(l.req.encKey, err, l.staleLeft())
}

// abandoned is the error of a load that did not fail: no one wants its value any
// more.
type abandoned interface{ Abandoned() }

// staleLeft is how long the stale value may still be served.
func (l *loader[T]) staleLeft() time.Duration {
	if l.old.State != Stale {
		return l.staleFor
	}
	return l.old.storedFor - l.old.Age
}
