package semaphore

import (
	"context"
	"errors"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/fallback"
)

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
	d := Decision{Limit: s.opt.Limit, Degraded: true, Cause: err, of: s}
	switch {
	case s.opt.FailPolicy == madcrow.FailOpen:
		d.Allowed = true
	case s.opt.FailPolicy.IsLocal():
		d.Limit = fallback.Share(s.opt.FailPolicy, s.opt.Limit)
		c := s.local.Add(subject, 1, d.Limit)
		d.Allowed, d.Remaining, d.RetryAfter, d.ResetAfter = c.Allowed, c.Remaining, c.RetryAfter, c.ResetAfter
	default:
		return d, err
	}
	s.monitor.PolicyDecided(s.opt.FailPolicy, d.Allowed, cause)
	return d, nil
}
