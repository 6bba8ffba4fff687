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

// Health is whether a limit can ask Redis, as last observed.
type Health struct {
	// Degraded is true from the first question that failed to the first that
	// succeeds.
	Degraded bool
	// Since and Err say since when and why; zero when it is not degraded.
	Since time.Time
	Err   error
}

// Health returns what was last observed, without asking.
func (l *Limiter) Health() Health {
	if h := l.health.now.Load(); h != nil {
		return *h
	}
	return Health{}
}

// lasting is how long questions must fail for it to be in the log that the
// policy decides, and how long none may have failed for that to be over. In
// between some may succeed: those of another node of a cluster, for instance.
const lasting = time.Second

// health is shared by a limit and what OnFailure makes of it.
type health struct {
	limit string
	log   *slog.Logger

	now     atomic.Pointer[Health]
	outage  atomic.Pointer[outage] // nil: the policy decides nothing
	reasons logonce.Reasons        // of the outage, that are in the log
	found   logonce.Reasons        // foreign values that are in the log
}

// outage is a time in which a policy decides that does not return the error.
// Times are those of mono.
type outage struct {
	since    int64
	last     atomic.Int64 // failure
	look     atomic.Int64 // when the log is next thought of: not for each failure
	admitted atomic.Int64
}

func newHealth(r *madcrow.Redis, limit string) *health {
	h := &health{limit: limit, log: r.Config().Logger}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h
}

func (h *health) good() {
	if h.now.Load() != nil {
		h.now.Store(nil)
	}
	if o := h.outage.Load(); o != nil {
		h.over(o)
	}
}

func (h *health) bad(err error) {
	if h.now.Load() == nil {
		h.now.CompareAndSwap(nil, &Health{Degraded: true, Since: time.Now(), Err: err})
	}
}

// without notes that the policy has decided instead of Redis. Callers see no
// error of that, so the log says it, once for each reason.
func (h *health) without(policy FailPolicy, admitted bool, cause error) {
	now := mono()
	o := h.outage.Load()
	if o == nil {
		o = &outage{since: now}
		o.last.Store(now)
		o.look.Store(now + int64(lasting))
		if !h.outage.CompareAndSwap(nil, o) {
			if o = h.outage.Load(); o == nil {
				return // it is over already
			}
		}
	}
	o.last.Store(now)
	if admitted {
		o.admitted.Add(1)
	}
	look := o.look.Load()
	if now < look || !o.look.CompareAndSwap(look, now+int64(lasting)) || !h.reasons.First(cause) {
		return
	}
	text := "a limit is not kept: Redis cannot be asked, and everything is admitted"
	if policy.mode == failLocal {
		text = "a limit is counted in this process alone: Redis cannot be asked"
	}
	h.log.Warn(text, "limit", h.limit, "policy", policy.String(), "reason", cause)
}

// over ends an outage when no question has failed for long enough.
func (h *health) over(o *outage) {
	last := o.last.Load()
	if mono()-last < int64(lasting) || !h.outage.CompareAndSwap(o, nil) || !h.reasons.Clear() {
		return
	}
	h.log.Info("a limit is kept by Redis again", "limit", h.limit,
		"lasted", time.Duration(last-o.since).Round(time.Millisecond), "admitted", o.admitted.Load())
}

// foreign tells of what was found under a key of the limit, and deleted; each
// key once.
func (h *health) foreign(f limitscript.Foreign) {
	if h.found.First(errors.New(f.Key)) {
		h.log.Warn("a key of a limit held what no limit wrote: it was deleted, and the limit begins anew; does another program use the same keys (REDIS_KEY_PREFIX)?",
			"limit", h.limit, "key", f.Key, "type", f.Type)
	}
}
