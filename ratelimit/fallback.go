package ratelimit

import (
	"context"
	"errors"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/fallback"
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
func (l *Limiter) Health() Health { return Health(l.monitor.Health()) }

// fallBack decides by the policy, because Redis is unavailable. A caller that
// cancelled gets the error: it no longer waits for a decision.
func (l *Limiter) fallBack(ctx context.Context, op, subject string, n int64, cause error) (Decision, error) {
	err := l.failed(op, cause)
	if errors.Is(cause, madcrow.ErrCanceled) || errors.Is(ctx.Err(), context.Canceled) {
		return Decision{}, err
	}
	l.monitor.Failed(cause)
	d := l.decision(SourceFallback, n)
	d.Degraded, d.Cause = true, err
	switch {
	case l.fail == madcrow.FailOpen:
		d.Allowed = true
	case l.fail.IsLocal():
		d.Limit = fallback.Share(l.fail, l.plan.limit)
		if n > d.Limit {
			d.RetryAfter = Never
		} else {
			l.countLocally(&d, subject, n)
		}
	default:
		return d, err
	}
	l.monitor.PolicyDecided(l.fail, d.Allowed && n > 0, cause)
	return d, nil
}

// countLocally counts n of this process's share, d.Limit, if that is free.
func (l *Limiter) countLocally(d *Decision, subject string, n int64) {
	c := l.local.Add(subject, n, d.Limit)
	d.Allowed, d.Remaining, d.RetryAfter, d.ResetAfter = c.Allowed, c.Remaining, c.RetryAfter, c.ResetAfter
}
