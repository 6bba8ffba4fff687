package ratelimit

import (
	"context"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/operr"
)

const bucketOptions = "TokenBucketOptions"

// TokenBucket is a [Limiter] by [GCRA], with the operations that only tokens
// allow.
type TokenBucket struct{ *Limiter }

// NewTokenBucket makes a limit by GCRA: burst requests at once, refilled at the
// rate. Everything else is as with [New].
func NewTokenBucket(r *madcrow.Redis, name string, o TokenBucketOptions) (*TokenBucket, error) {
	if o.MaxWait == 0 {
		o.MaxWait = time.Hour
		if o.Rate.Limit > 0 {
			if t := float64(o.Rate.Window) / float64(o.Rate.Limit) * float64(o.Burst); t < float64(time.Hour) {
				o.MaxWait = max(0, time.Duration(t).Truncate(time.Microsecond))
			}
		}
	}
	var wrong operr.Arguments
	l := newLimiter(r, name, bucketOptions, settings{wait: o.MaxWait, Options: Options{
		Rate: o.Rate, FailPolicy: o.FailPolicy, Algorithm: GCRA(o.Burst), Timeout: o.Timeout,
		DeniedSubjects: o.DeniedSubjects, LocalSubjects: o.LocalSubjects, Logger: o.Logger,
	}}, &wrong)
	if err := fail.Arguments("new token bucket", name, wrong); err != nil {
		return nil, err
	}
	return &TokenBucket{l}, nil
}

// OnFailure is [Limiter.OnFailure].
func (b *TokenBucket) OnFailure(policy madcrow.FailPolicy) *TokenBucket {
	return &TokenBucket{b.Limiter.OnFailure(policy)}
}

// AllowAtMost takes as many tokens as are free, up to n, and returns how many.
// The decision is allowed when that is at least one. While Redis is unavailable
// the policy decides about one token.
func (b *TokenBucket) AllowAtMost(ctx context.Context, subject string, n int64) (taken int64, d Decision, err error) {
	if n < 1 {
		return 0, Decision{}, b.costTooSmall("allow")
	}
	n = min(n, b.plan.limit)
	asked := clock.Now()
	if d, ok := b.cachedDenial(subject, 1, asked); ok {
		b.record(ctx, d, nil)
		return 0, d, nil
	}
	reply, err := b.evaluate(ctx, evaluation{verb: limitscript.VerbAllow, subject: subject, cost: n, mode: limitscript.ModeUpTo})
	if err != nil {
		d, err = b.fallBack(ctx, "allow", subject, 1, err)
		if d.Allowed {
			taken = 1
		}
		b.record(ctx, d, err)
		return taken, d, err
	}
	if reply.Retry == 0 {
		// extra holds both: the number taken, and the fraction of a token.
		taken, reply.Extra = reply.Extra/b.plan.rate.Limit, reply.Extra%b.plan.rate.Limit
	}
	d = b.decide(reply, 1)
	b.rememberDenial(subject, 1, asked, d)
	b.record(ctx, d, nil)
	return taken, d, nil
}

// Reservation is a booking of tokens. Act when Wait has passed since Reserve.
type Reservation struct {
	// OK is false when the wait would be longer than allowed; then nothing was
	// booked.
	OK bool
	// Wait is how long to wait before acting, 0 for at once. If OK is false, it
	// is how long the wait would have been; [Never] for a cost above the burst.
	Wait time.Duration
	// Degraded and Err are as in [Decision]: while Redis is unavailable nothing
	// is booked, and FailOpen and FailLocal decide for this moment only.
	Degraded bool
	Cause    error

	b       *TokenBucket
	subject string
	n       int64
}

// Reserve books n tokens now and returns how long to wait before acting on
// them, at most maxWait and at most
// [TokenBucketOptions].MaxWait. Later requests queue behind
// it.
func (b *TokenBucket) Reserve(ctx context.Context, subject string, n int64, maxWait time.Duration) (*Reservation, error) {
	res := &Reservation{b: b, subject: subject, n: n}
	switch {
	case n < 1:
		return nil, b.costTooSmall("reserve")
	case maxWait < 0:
		return nil, fail.Argument("reserve", b.name, "maxWait", "must not be negative")
	case n > b.plan.limit:
		res.Wait = Never
		return res, nil
	}
	reply, err := b.evaluate(ctx, evaluation{verb: limitscript.VerbReserve, subject: subject, cost: n, maxWait: min(maxWait, b.opt.wait)})
	if err != nil {
		d, err := b.fallBack(ctx, "reserve", subject, n, err)
		if err != nil {
			return nil, err
		}
		res.OK, res.Wait, res.Degraded, res.Cause = d.Allowed, d.RetryAfter, true, d.Cause
		return res, nil
	}
	res.OK, res.Wait = reply.Extra == 1, time.Duration(reply.Retry)*time.Microsecond
	return res, nil
}

// Cancel returns the tokens of a reservation that was not used. It does nothing
// if nothing was booked, and nothing the second time.
func (r *Reservation) Cancel(ctx context.Context) error {
	if !r.OK || r.Degraded || r.n == 0 {
		return nil
	}
	n := r.n
	r.n = 0
	_, err := r.b.Reward(ctx, r.subject, n)
	return err
}

// Penalize takes n tokens whether they are free or not, down to an empty bucket:
// for a request that turned out to cost more, or to be abuse. While Redis is
// unavailable it returns an error, whatever the policy.
func (b *TokenBucket) Penalize(ctx context.Context, subject string, n int64) (Decision, error) {
	return b.adjust(ctx, "penalize", subject, n, limitscript.ModeForce)
}

// Reward returns n tokens, up to a full bucket. While Redis is unavailable it
// returns an error, whatever the policy.
func (b *TokenBucket) Reward(ctx context.Context, subject string, n int64) (Decision, error) {
	return b.adjust(ctx, "reward", subject, n, limitscript.ModeReturn)
}

// adjust changes the state by force. The decision is that of the state after it.
func (b *TokenBucket) adjust(ctx context.Context, op, subject string, n int64, mode limitscript.Mode) (Decision, error) {
	if n < 1 {
		return Decision{}, b.costTooSmall(op)
	}
	reply, err := b.evaluate(ctx, evaluation{verb: limitscript.VerbForce, subject: subject, cost: min(n, maxLogged), mode: mode})
	if err != nil {
		return Decision{}, b.failed(op, err)
	}
	b.forgetDenial(subject)
	return b.decide(reply, 1), nil
}
