package fallback

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

// Health says whether a limit reached Redis, as last observed.
type Health struct {
	Degraded bool
	Since    time.Time
	Err      error
}

// outageThreshold is how long calls must fail before the log says that the
// policy decides, and how long no call may have failed before it says that the
// outage is over. Meanwhile some calls may succeed: those of another node of a
// cluster, for instance.
const outageThreshold = time.Second

// Monitor observes the calls of one limit, and logs outages in which its policy
// decides. Copies of a limit with another policy share it.
type Monitor struct {
	kind, name string // "rate limit", "api"
	log        *slog.Logger

	now     atomic.Pointer[Health]
	outage  atomic.Pointer[outage] // nil: there is none
	reasons logonce.Reasons        // reasons of the outage that are in the log
	found   logonce.Reasons        // foreign values that are in the log
}

// outage is a period in which FailOpen or FailLocal decides: callers then see no
// error. Times are those of package clock.
type outage struct {
	since    int64
	last     atomic.Int64 // failure
	nextLog  atomic.Int64 // when a failure may be logged next
	admitted atomic.Int64
}

// NewMonitor returns the monitor of a limit. kind begins the lines of the log.
func NewMonitor(logger *slog.Logger, kind, name string) *Monitor {
	return &Monitor{kind: kind, name: name, log: logger}
}

// Health returns the last observed state.
func (m *Monitor) Health() Health {
	if h := m.now.Load(); h != nil {
		return *h
	}
	return Health{}
}

// Succeeded notes a call that Redis answered.
func (m *Monitor) Succeeded() {
	if m.now.Load() != nil {
		m.now.Store(nil)
	}
	if o := m.outage.Load(); o != nil {
		m.endOutage(o)
	}
}

// Failed notes a call that failed, whatever the policy is.
func (m *Monitor) Failed(err error) {
	if m.now.Load() == nil {
		m.now.CompareAndSwap(nil, &Health{Degraded: true, Since: time.Now(), Err: err})
	}
}

// PolicyDecided notes that the policy has decided instead of Redis. Callers see
// no error, so the outage is logged, once for each reason.
func (m *Monitor) PolicyDecided(policy madcrow.FailPolicy, admitted bool, cause error) {
	now := clock.Now()
	o := m.outage.Load()
	if o == nil {
		o = &outage{since: now}
		o.last.Store(now)
		o.nextLog.Store(now + int64(outageThreshold))
		if !m.outage.CompareAndSwap(nil, o) {
			if o = m.outage.Load(); o == nil {
				return // the outage is over
			}
		}
	}
	o.last.Store(now)
	if admitted {
		o.admitted.Add(1)
	}
	next := o.nextLog.Load()
	if now < next || !o.nextLog.CompareAndSwap(next, now+int64(outageThreshold)) || !m.reasons.First(cause) {
		return
	}
	text := m.kind + " not enforced: Redis is unavailable, every request is admitted"
	if policy.IsLocal() {
		text = m.kind + " counted in this process alone: Redis is unavailable"
	}
	m.log.Warn(text, "limit", m.name, "policy", policy.String(), "reason", cause)
}

// endOutage ends an outage when no call has failed for long enough.
func (m *Monitor) endOutage(o *outage) {
	last := o.last.Load()
	if clock.Now()-last < int64(outageThreshold) || !m.outage.CompareAndSwap(o, nil) || !m.reasons.Clear() {
		return
	}
	m.log.Info(m.kind+" enforced by Redis again", "limit", m.name,
		"lasted", time.Duration(last-o.since).Round(time.Millisecond), "admitted", o.admitted.Load())
}

// ForeignValue logs that a key held a value that no limit wrote, and that it was
// deleted; once for each key.
func (m *Monitor) ForeignValue(f limitscript.Foreign) {
	if m.found.First(errors.New(f.Key)) {
		m.log.Warn("a "+m.kind+" key held a value that no limit wrote: the key was deleted and counting starts at 0; does another program use the same keys (REDIS_KEY_PREFIX)?",
			"limit", m.name, "key", f.Key, "type", f.Type)
	}
}
