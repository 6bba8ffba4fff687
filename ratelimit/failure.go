package ratelimit

import (
	"context"
	"errors"

	"github.com/madcrow-go/madcrow"
)

// FailPolicy says what a limit does while Redis is unavailable: down, too slow,
// read-only, or refusing the command. The zero value is invalid: the policy must
// be chosen.
type FailPolicy struct {
	mode      failMode
	processes int64
}

type failMode uint8

const (
	failOpen failMode = iota + 1
	failClosed
	failLocal
)

var (
	// FailOpen admits, with Degraded true and Err the cause. An outage of more
	// than a second is logged, and so is its end.
	FailOpen = FailPolicy{mode: failOpen}
	// FailClosed returns the error.
	FailClosed = FailPolicy{mode: failClosed}
)

// FailLocal counts in this process alone, with its share of the limit: Limit
// divided by processes, at least 1. Each process more or less changes the sum by
// a share. The count starts at 0: that of Redis is unknown. With GCRA it admits
// the share of the burst in the time that refills it.
func FailLocal(processes int) FailPolicy {
	return FailPolicy{mode: failLocal, processes: int64(processes)}
}

func (f FailPolicy) validate() error {
	switch {
	case f.mode == 0:
		return &ValidationError{Field: "fail", Message: "choose FailOpen, FailClosed or FailLocal"}
	case f.mode == failLocal && f.processes < 1:
		return &ValidationError{Field: "fail", Message: "FailLocal needs the number of processes, at least 1"}
	}
	return nil
}

// String returns "open", "closed" or "local".
func (f FailPolicy) String() string {
	switch f.mode {
	case failOpen:
		return "open"
	case failClosed:
		return "closed"
	case failLocal:
		return "local"
	}
	return "none"
}

// fallBack decides by the policy, because Redis is unavailable. A caller that
// cancelled gets the error: it no longer waits for a decision.
func (l *Limiter) fallBack(ctx context.Context, op, subject string, n int64, cause error) (Decision, error) {
	if errors.Is(cause, madcrow.ErrCanceled) || errors.Is(ctx.Err(), context.Canceled) {
		return Decision{}, l.failed(op, cause)
	}
	l.health.failed(cause)
	d := Decision{Policy: l.name, Limit: l.plan.limit, Window: l.plan.rate.Window, Source: SourceFallback, Degraded: true, Err: l.failed(op, cause)}
	switch l.fail.mode {
	case failOpen:
		d.Allowed = true
	case failLocal:
		share := max(1, l.plan.limit/l.fail.processes)
		d.Limit = share
		if n > share {
			d.RetryAfter = Never
		} else {
			l.local.decide(&d, subject, n, share)
		}
	default:
		return Decision{}, d.Err
	}
	l.health.policyDecided(l.fail, d.Allowed && n > 0, cause)
	return d, nil
}
