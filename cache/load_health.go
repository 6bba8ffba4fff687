package cache

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

const (
	// mostFailing bounds the keys that are remembered because their load failed.
	mostFailing = 1000
	// defaultQuiet is how long no load may have failed before the log says that loads
	// succeed again, although a key whose load failed was not loaded since.
	defaultQuiet = time.Minute
	// mostOutages is how many outages the log of a cache tells of in a minute.
	mostOutages = 5
)

// loadHealth observes the loads of one cache. Its log says once when they begin to
// fail, and once when they succeed again. Of many short outages it tells of a few, and
// counts the others.
type loadHealth struct {
	log    *slog.Logger
	name   string
	quiet  time.Duration
	places guard.Said // of panics that are in the log
	rate   logonce.Rate

	now atomic.Pointer[outage] // nil: all is well
}

func newLoadHealth(log *slog.Logger, name string) loadHealth {
	return loadHealth{log: log, name: name, quiet: defaultQuiet, rate: logonce.Rate{Lines: mostOutages, Every: time.Minute}}
}

// outage is a time in which loads fail.
type outage struct {
	since    time.Time
	failures atomic.Int64
	stale    atomic.Int64 // answers in the place of an error

	mu      sync.Mutex
	logged  bool                // the log tells of it
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
		o = &outage{since: now, last: now, keys: map[string]struct{}{key: {}}}
		o.failures.Store(1)
		o.mu.Lock() // its end waits until it is known whether it is logged
		if h.now.CompareAndSwap(nil, o) {
			o.logged = h.logFirst(err, now, staleFor)
			o.mu.Unlock()
			return
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

// logFirst logs the begin of an outage, unless the log has too many of late.
func (h *loadHealth) logFirst(err error, now time.Time, staleFor time.Duration) bool {
	others := h.rate.Dropped(now, false)
	if !h.rate.Allow(now) {
		return false
	}
	args := []any{"cache", h.name, "reason", err}
	if others > 0 {
		args = append(args, "others_before", others)
	}
	if staleFor <= 0 {
		h.log.Warn("a load failed, and its callers get the error; further failures are counted, not logged", args...)
		return true
	}
	until := now.Add(staleFor)
	h.log.Warn("a load failed, and the stale value is served until "+until.Format(time.RFC3339)+", then callers get the error; further failures are counted, not logged",
		append(args, "stale_until", until)...)
	return true
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
	logged := o.logged
	o.mu.Unlock()
	if over && h.now.CompareAndSwap(o, nil) && logged {
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
