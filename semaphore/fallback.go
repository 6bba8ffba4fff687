package semaphore

import (
	"context"
	"errors"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/fallback"
)

// FailPolicy says what a semaphore does while Redis is unavailable: down, too
// slow, read-only, or refusing the command. The zero value is invalid: the policy
// must be chosen.
type FailPolicy struct{ policy fallback.Policy }

var (
	// FailOpen admits, with Degraded true and Err the cause. An outage of more
	// than a second is logged, and so is its end.
	FailOpen = FailPolicy{fallback.Policy{Mode: fallback.Open}}
	// FailClosed returns the error.
	FailClosed = FailPolicy{fallback.Policy{Mode: fallback.Closed}}
)

// FailLocal admits, in each TTL, at most this process's share of the limit: limit
// divided by processes, at least 1. The count starts at 0: that of Redis is
// unknown.
func FailLocal(processes int) FailPolicy {
	return FailPolicy{fallback.Policy{Mode: fallback.Local, Processes: int64(processes)}}
}

// String returns "open", "closed" or "local".
func (f FailPolicy) String() string { return f.policy.String() }

// Health says whether a semaphore reached Redis, as last observed.
type Health struct {
	// Degraded is true from the first call that failed to the first that
	// succeeds.
	Degraded bool
	// Since and Err say since when and why; zero when it is not degraded.
	Since time.Time
	Err   error
}

// Health returns the last observed state, without a call to Redis.
func (s *Semaphore) Health() Health { return Health(s.monitor.Health()) }

// fallBack decides by the policy, because Redis is unavailable. A caller that
// cancelled gets the error: it no longer waits for a decision.
func (s *Semaphore) fallBack(ctx context.Context, op, subject string, cause error) (Decision, error) {
	err := s.failed(op, cause)
	if errors.Is(cause, madcrow.ErrCanceled) || errors.Is(ctx.Err(), context.Canceled) {
		return Decision{}, err
	}
	s.monitor.Failed(cause)
	d := Decision{Limit: s.limit, Degraded: true, Err: err}
	switch s.policy.policy.Mode {
	case fallback.Open:
		d.Allowed = true
	case fallback.Local:
		d.Limit = s.policy.policy.Share(s.limit)
		c := s.local.Add(subject, 1, d.Limit)
		d.Allowed, d.Remaining, d.RetryAfter, d.ResetAfter = c.Allowed, c.Remaining, c.RetryAfter, c.ResetAfter
	default:
		return Decision{}, err
	}
	s.monitor.PolicyDecided(s.policy.policy, d.Allowed, cause)
	return d, nil
}

// redisTable is FastAPI Madcrow's name for this kind of data.
const redisTable = "redis_rate_limits"
