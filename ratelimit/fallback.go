package ratelimit

import (
	"context"
	"errors"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/fallback"
)

// FailPolicy says what a limit does while Redis is unavailable: down, too slow,
// read-only, or refusing the command. The zero value is invalid: the policy must
// be chosen.
type FailPolicy struct{ policy fallback.Policy }

var (
	// FailOpen admits, with Degraded true and Err the cause. An outage of more
	// than a second is logged, and so is its end.
	FailOpen = FailPolicy{fallback.Policy{Mode: fallback.Open}}
	// FailClosed returns the error.
	FailClosed = FailPolicy{fallback.Policy{Mode: fallback.Closed}}
)

// FailLocal counts in this process alone, with its share of the limit: Limit
// divided by processes, at least 1. Each process more or less changes the sum by
// a share. The count starts at 0: that of Redis is unknown. With GCRA it admits
// the share of the burst in the time that refills it.
func FailLocal(processes int) FailPolicy {
	return FailPolicy{fallback.Policy{Mode: fallback.Local, Processes: int64(processes)}}
}

// String returns "open", "closed" or "local".
func (f FailPolicy) String() string { return f.policy.String() }

func (f FailPolicy) isLocal() bool { return f.policy.Mode == fallback.Local }

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
	d := l.decision(SourceFallback)
	d.Degraded, d.Err = true, err
	switch l.fail.policy.Mode {
	case fallback.Open:
		d.Allowed = true
	case fallback.Local:
		d.Limit = l.fail.policy.Share(l.plan.limit)
		if n > d.Limit {
			d.RetryAfter = Never
		} else {
			l.countLocally(&d, subject, n)
		}
	default:
		return Decision{}, err
	}
	l.monitor.PolicyDecided(l.fail.policy, d.Allowed && n > 0, cause)
	return d, nil
}

// countLocally counts n of this process's share, d.Limit, if that is free.
func (l *Limiter) countLocally(d *Decision, subject string, n int64) {
	c := l.local.Add(subject, n, d.Limit)
	d.Allowed, d.Remaining, d.RetryAfter, d.ResetAfter = c.Allowed, c.Remaining, c.RetryAfter, c.ResetAfter
}
