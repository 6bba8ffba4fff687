package ratelimit

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

// Health says whether a limit reached Redis, as last observed.
type Health struct {
	// Degraded is true from the first call that failed to the first that
	// succeeds.
	Degraded bool
	// Since and Err say since when and why; zero when it is not degraded.
	Since time.Time
	Err   error
}

// Health returns the last observed state, without a call to Redis.
func (l *Limiter) Health() Health {
	if h := l.health.now.Load(); h != nil {
		return *h
	}
	return Health{}
}

// outageThreshold is how long calls must fail before the log says that the
// policy decides, and how long no call may have failed before it says that the
// outage is over. Meanwhile some calls may succeed: those of another node of a
// cluster, for instance.
const outageThreshold = time.Second

// health is shared by a limit and its copies by OnFailure.
type health struct {
	limit string
	log   *slog.Logger

	now     atomic.Pointer[Health]
	outage  atomic.Pointer[outage] // nil: there is none
	reasons logonce.Reasons        // reasons of the outage that are in the log
	found   logonce.Reasons        // foreign values that are in the log
}

// outage is a period in which FailOpen or FailLocal decides: callers then see no
// error. Times are those of mono.
type outage struct {
	since    int64
	last     atomic.Int64 // failure
	nextLog  atomic.Int64 // when a failure may be logged next
	admitted atomic.Int64
}

func newHealth(r *madcrow.Redis, limit string) *health {
	h := &health{limit: limit, log: r.Config().Logger}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h
}

func (h *health) succeeded() {
	if h.now.Load() != nil {
		h.now.Store(nil)
	}
	if o := h.outage.Load(); o != nil {
		h.endOutage(o)
	}
}

func (h *health) failed(err error) {
	if h.now.Load() == nil {
		h.now.CompareAndSwap(nil, &Health{Degraded: true, Since: time.Now(), Err: err})
	}
}

// policyDecided notes that the policy has decided instead of Redis. Callers see
// no error, so the outage is logged, once for each reason.
func (h *health) policyDecided(policy FailPolicy, admitted bool, cause error) {
	now := mono()
	o := h.outage.Load()
	if o == nil {
		o = &outage{since: now}
		o.last.Store(now)
		o.nextLog.Store(now + int64(outageThreshold))
		if !h.outage.CompareAndSwap(nil, o) {
			if o = h.outage.Load(); o == nil {
				return // the outage is over
			}
		}
	}
	o.last.Store(now)
	if admitted {
		o.admitted.Add(1)
	}
	next := o.nextLog.Load()
	if now < next || !o.nextLog.CompareAndSwap(next, now+int64(outageThreshold)) || !h.reasons.First(cause) {
		return
	}
	text := "rate limit not enforced: Redis is unavailable, every request is admitted"
	if policy.mode == failLocal {
		text = "rate limit counted in this process alone: Redis is unavailable"
	}
	h.log.Warn(text, "limit", h.limit, "policy", policy.String(), "reason", cause)
}

// endOutage ends an outage when no call has failed for long enough.
func (h *health) endOutage(o *outage) {
	last := o.last.Load()
	if mono()-last < int64(outageThreshold) || !h.outage.CompareAndSwap(o, nil) || !h.reasons.Clear() {
		return
	}
	h.log.Info("rate limit enforced by Redis again", "limit", h.limit,
		"lasted", time.Duration(last-o.since).Round(time.Millisecond), "admitted", o.admitted.Load())
}

// foreignValue logs that a key held a value that no limit wrote, and that it was
// deleted; once for each key.
func (h *health) foreignValue(f limitscript.Foreign) {
	if h.found.First(errors.New(f.Key)) {
		h.log.Warn("a rate limit key held a value that no limit wrote: the key was deleted and counting starts at 0; does another program use the same keys (REDIS_KEY_PREFIX)?",
			"limit", h.limit, "key", f.Key, "type", f.Type)
	}
}
