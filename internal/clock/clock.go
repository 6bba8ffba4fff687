// Package clock has the monotonic clock of the library, a sleep that ends with
// a context, and the pauses between two tries. A leaf: it imports nothing of
// this module.
package clock

import (
	"context"
	"math/rand/v2"
	"time"
)

// start is the zero of the monotonic clock.
var start = time.Now()

// Now returns the nanoseconds since the program started. Changes of the wall
// clock do not move it. It costs one reading of the clock and no allocation.
func Now() int64 { return int64(time.Since(start)) }

// At returns the value that Now has at t. t must have a monotonic reading, as
// the deadline of a context has; otherwise a change of the wall clock moves it.
func At(t time.Time) int64 { return int64(t.Sub(start)) }

// Time is the reverse of At.
func Time(now int64) time.Time { return start.Add(time.Duration(now)) }

// Sleep waits for d, and returns nil; or until ctx ends, and returns ctx.Err().
// A d of 0 or less only asks ctx.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Backoff gives the pauses between tries: First, then twice as long each time,
// up to Most. Half of each pause is random, so that callers that failed
// together do not come again together.
type Backoff struct {
	First, Most time.Duration
}

// Delay returns the pause after try, which counts from 0.
func (b Backoff) Delay(try int) time.Duration {
	d := b.Most
	if try < 32 && b.First<<try < b.Most && b.First<<try > 0 {
		d = b.First << try
	}
	return Jitter(d)
}

// Pause waits for Delay(try) and returns true. It returns false at once when
// another try would start less than First before ctx's deadline: the caller
// then returns the reason of the last failure, which says more than a deadline
// that passed. It returns false also when ctx ends meanwhile.
func (b Backoff) Pause(ctx context.Context, try int) bool {
	d := b.Delay(try)
	if end, ok := ctx.Deadline(); ok && time.Until(end) < d+b.First {
		return false
	}
	return Sleep(ctx, d) == nil
}

// Jitter returns a random duration from d/2 to d.
func Jitter(d time.Duration) time.Duration {
	half := d / 2
	if half <= 0 {
		return d
	}
	return half + rand.N(d-half) //nolint:gosec // no secret
}
