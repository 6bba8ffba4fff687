package ratelimit

import (
	"context"
	"fmt"
	"time"

	"github.com/madcrow-go/madcrow"
)

// TokenBucket is a [Limiter] by [GCRA], with the verbs that only tokens have.
type TokenBucket struct{ *Limiter }

// WithMaxWait bounds how far ahead [TokenBucket.Reserve] may book, up to 31
// days. Defaults to the time that refills the burst, at most an hour. All who
// share a limit need the same: one with less forgets what another booked beyond
// that.
func WithMaxWait(d time.Duration) Option { return func(o *options) { o.wait = d } }

// NewTokenBucket makes a limit by GCRA: burst requests at once, refilled at the
// rate. Everything else is as with [New].
func NewTokenBucket(r *madcrow.Redis, name string, rate Rate, burst int64, fail FailPolicy, opts ...Option) (*TokenBucket, error) {
	refill := time.Hour
	if rate.Limit > 0 {
		if t := float64(rate.Window) / float64(rate.Limit) * float64(burst); t < float64(time.Hour) {
			refill = time.Duration(t).Truncate(time.Microsecond)
		}
	}
	// The caller's options come later and win.
	all := append([]Option{WithMaxWait(refill)}, opts...)
	l, err := New(r, name, rate, fail, append(all, WithAlgorithm(GCRA(burst)))...)
	if err != nil {
		return nil, err
	}
	if l.opt.wait > MaxWindow {
		return nil, &ValidationError{Field: "wait", Message: fmt.Sprintf("must be at most %v", MaxWindow)}
	}
	return &TokenBucket{l}, nil
}

// OnFailure is [Limiter.OnFailure].
func (b *TokenBucket) OnFailure(fail FailPolicy) *TokenBucket {
	return &TokenBucket{b.Limiter.OnFailure(fail)}
}

// How the script of the GCRA takes.
const (
	takeAll  = "0"
	giveBack = "1"
	takeHard = "2"
	takeSome = "3"
)

// AllowAtMost takes as many tokens as are free, up to n, and says how many. The
// decision is allowed when that is at least one. Without Redis the policy
// decides about one.
func (b *TokenBucket) AllowAtMost(ctx context.Context, subject string, n int64) (taken int64, d Decision, err error) {
	if n < 1 {
		return 0, Decision{}, errCost
	}
	n = min(n, b.plan.limit)
	asked := mono()
	if b.denied != nil {
		if d, ok := b.remembered(subject, 1, asked); ok {
			b.count(d, nil)
			return 0, d, nil
		}
	}
	reply, err := b.ask(ctx, question{verb: verbTake, subject: subject, cost: n, how: takeSome})
	if err != nil {
		d, err = b.fallBack(ctx, "allow", subject, 1, err)
		if d.Allowed {
			taken = 1
		}
		b.count(d, err)
		return taken, d, err
	}
	if reply.retry == 0 {
		// extra carries both: the number taken, and the rest of a token.
		taken, reply.extra = reply.extra/b.plan.rate.Limit, reply.extra%b.plan.rate.Limit
	}
	d = b.plan.decide(b.name, reply)
	if !d.Allowed && b.denied != nil {
		b.denied.add(subject, 1, asked, d.RetryAfter, d.ResetAfter)
	}
	b.count(d, nil)
	return taken, d, nil
}

// Reservation is a booking of tokens. The time to act is Wait after it was
// made.
type Reservation struct {
	// OK is false when the wait would be longer than allowed; nothing was
	// booked then.
	OK bool
	// Wait is how long to wait before acting, 0 for at once. Where OK is
	// false, how long it would have been; [Never] for a cost above the burst.
	Wait time.Duration
	// Degraded and Err are as in [Decision]: without Redis nothing is booked,
	// and FailOpen and FailLocal answer for now alone.
	Degraded bool
	Err      error

	b       *TokenBucket
	subject string
	n       int64
}

// Reserve books n tokens now and says how long to wait before acting on them,
// at most maxWait and at most [WithMaxWait]. Later requests queue behind it.
func (b *TokenBucket) Reserve(ctx context.Context, subject string, n int64, maxWait time.Duration) (*Reservation, error) {
	res := &Reservation{b: b, subject: subject, n: n}
	switch {
	case n < 1:
		return nil, errCost
	case maxWait < 0:
		return nil, &ValidationError{Field: "wait", Message: "must not be negative"}
	case n > b.plan.limit:
		res.Wait = Never
		return res, nil
	}
	reply, err := b.ask(ctx, question{verb: verbBook, subject: subject, cost: n, how: takeAll, wait: min(maxWait, b.opt.wait)})
	if err != nil {
		d, err := b.fallBack(ctx, "reserve", subject, n, err)
		if err != nil {
			return nil, err
		}
		res.OK, res.Wait, res.Degraded, res.Err = d.Allowed, d.RetryAfter, true, d.Err
		return res, nil
	}
	res.OK, res.Wait = reply.extra == 1, time.Duration(reply.retry)*time.Microsecond
	return res, nil
}

// Cancel gives the tokens of a reservation back, those that are not used. It
// does nothing to one that was not made, and nothing the second time.
func (r *Reservation) Cancel(ctx context.Context) error {
	if !r.OK || r.Degraded || r.n == 0 {
		return nil
	}
	n := r.n
	r.n = 0
	_, err := r.b.Reward(ctx, r.subject, n)
	return err
}

// Penalize takes n tokens away whether they are free or not, down to an empty
// bucket: for what turned out to cost more, or to be abuse. Without Redis it is
// an error, whatever the policy.
func (b *TokenBucket) Penalize(ctx context.Context, subject string, n int64) (Decision, error) {
	return b.adjust(ctx, "penalize", subject, n, takeHard)
}

// Reward gives n tokens back, up to a full bucket. Without Redis it is an
// error, whatever the policy.
func (b *TokenBucket) Reward(ctx context.Context, subject string, n int64) (Decision, error) {
	return b.adjust(ctx, "reward", subject, n, giveBack)
}

// adjust changes the state by force. The decision tells what is free after it.
func (b *TokenBucket) adjust(ctx context.Context, op, subject string, n int64, how string) (Decision, error) {
	if n < 1 {
		return Decision{}, errCost
	}
	reply, err := b.ask(ctx, question{verb: verbForce, subject: subject, cost: min(n, maxLogged), how: how})
	if err != nil {
		return Decision{}, b.failed(op, err)
	}
	b.forget(subject)
	return b.plan.decide(b.name, reply), nil
}
