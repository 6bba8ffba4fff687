package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/service"
)

// limitAnswer is what check and peek print as JSON.
type limitAnswer struct {
	Key           string  `json:"key"`
	Name          string  `json:"name,omitempty"`
	Algorithm     string  `json:"algorithm"`
	Allowed       bool    `json:"allowed"`
	Limit         int64   `json:"limit"`
	WindowSeconds float64 `json:"window_seconds"`
	Remaining     int64   `json:"remaining"`
	// RetryAfter is null where waiting does not help.
	RetryAfter *float64 `json:"retry_after_seconds"`
	ResetAfter float64  `json:"reset_after_seconds"`
}

func checkLimit(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o limitOptions, key string) error {
	if o.name == "" {
		d, err := service.New(r, service.Options{}).CheckRateLimit(ctx, limitRoute+key, o.few(), time.Duration(o.window))
		return o.decided(c, key, fromService(d, o), err)
	}
	l, err := o.limiter(r)
	if err != nil {
		return err
	}
	d, err := l.AllowN(ctx, key, o.cost)
	return o.decided(c, key, d, err)
}

func peekLimit(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o limitOptions, key string) error {
	if o.limit == 0 && !c.Flags().Changed("limit") || o.window == 0 {
		f, err := o.facts(ctx, r, key)
		if err != nil {
			return err
		}
		if f.empty() && (o.algorithm == algorithmLogin || !c.Flags().Changed("limit")) {
			if err := o.uncounted(ctx, r, key); err != nil {
				return err
			}
		}
		if !c.Flags().Changed("limit") {
			return o.peekFacts(c, f)
		}
		if f.window == 0 {
			return usageError{errors.New("give --window: Redis does not know it")}
		}
		if o.window = span(f.window); f.buckets > 0 && !c.Flags().Changed("buckets") {
			o.buckets = f.buckets
		}
	}
	if o.name == "" {
		d, err := service.New(r, service.Options{}).PeekRateLimit(ctx, limitRoute+key, o.few(), time.Duration(o.window))
		return o.decided(c, key, fromService(d, o), err)
	}
	if o.algorithm == algorithmLogin {
		return o.peekLogin(ctx, c, r, key)
	}
	l, err := o.limiter(r)
	if err != nil {
		return err
	}
	d, err := l.Peek(ctx, key)
	return o.decided(c, key, d, err)
}

func resetLimit(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o limitOptions, key string) error {
	if o.name == "" {
		existed, err := service.New(r, service.Options{}).ResetRateLimit(ctx, limitRoute+key)
		if err != nil {
			return err
		}
		if !existed {
			return notThere{fmt.Sprintf("nothing is counted for %q", key) + namedLimits(ctx, r)}
		}
		return o.done(c, "reset", map[string]any{"key": key, "reset": true})
	}
	reset, err := o.resetter(r)
	if err != nil {
		return err
	}
	found, err := o.counted(ctx, r, key)
	if err == nil && len(found) == 0 {
		if err := o.uncounted(ctx, r, key); err != nil {
			return err
		}
		return notThere{fmt.Sprintf("the limit %q has nothing counted for %q by %s, and no block", o.name, key, o.algorithm)}
	}
	if err == nil {
		err = reset(ctx, key)
	}
	if err != nil {
		return err
	}
	return o.done(c, "reset", map[string]any{"key": key, "name": o.name, "reset": true})
}

// resetter is what resets a subject of the limit, or of the login, that --name names.
func (o *limitOptions) resetter(r *madcrow.Redis) (func(ctx context.Context, subject string) error, error) {
	if o.algorithm == algorithmLogin {
		l, err := o.login(r)
		if err != nil {
			return nil, err
		}
		return l.Reset, nil
	}
	l, err := o.limiter(r)
	if err != nil {
		return nil, err
	}
	return l.Reset, nil
}

func blockLimit(ctx context.Context, c *cobra.Command, r *madcrow.Redis, o limitOptions, key string) error {
	l, err := o.limiter(r)
	d := time.Duration(o.blockFor)
	if err == nil {
		err = l.Block(ctx, key, d)
	}
	if err != nil {
		return err
	}
	return o.done(c, fmt.Sprintf("blocked for %v", d), map[string]any{"key": key, "name": o.name, "blocked_for_seconds": d.Seconds()})
}

// limiter is the limit that --name names.
func (o *limitOptions) limiter(r *madcrow.Redis) (*ratelimit.Limiter, error) {
	rate := ratelimit.Per(time.Duration(o.window), o.limit)
	if o.window == 0 { // reset and block have no numbers: they only need the key
		rate, o.buckets, o.burst = ratelimit.PerMinute(1), 1, 1
	}
	if o.burst == 0 {
		o.burst = o.limit
	}
	a := ratelimit.SlidingLog()
	switch o.algorithm {
	case algorithmSet:
		a = ratelimit.SortedSetLog()
	case algorithmWindow:
		a = ratelimit.SlidingWindow(o.buckets)
	case algorithmGCRA:
		a = ratelimit.GCRA(o.burst)
	}
	return ratelimit.New(r, o.name, ratelimit.Options{Rate: rate, FailPolicy: madcrow.FailClosed, Algorithm: a, DeniedSubjects: -1})
}

// few is --limit for the service, which refuses what is above its own bound.
func (o *limitOptions) few() int { return int(min(o.limit, math.MaxInt32)) }

func fromService(d service.Decision, o limitOptions) ratelimit.Decision {
	return ratelimit.Decision{
		Allowed: d.Allowed, Limit: int64(d.Limit), Window: time.Duration(o.window), Remaining: int64(d.Remaining),
		RetryAfter: d.RetryAfter, ResetAfter: d.ResetAfter,
	}
}

// decided prints a decision; that of a denial is the exit code too.
func (o *limitOptions) decided(c *cobra.Command, key string, d ratelimit.Decision, err error) error {
	if err != nil {
		return err
	}
	text := fmt.Sprintf("allowed: %d of %d left, all free in %v", d.Remaining, d.Limit, short(d.ResetAfter))
	switch {
	case d.Allowed:
	case d.RetryAfter == ratelimit.Never:
		text = fmt.Sprintf("denied: the cost is above the limit of %d, waiting does not help", d.Limit)
	default:
		text = fmt.Sprintf("denied: try again in %v", short(d.RetryAfter))
	}
	answer := limitAnswer{
		Key: key, Name: o.name, Algorithm: o.algorithm, Allowed: d.Allowed, Limit: d.Limit, WindowSeconds: d.Window.Seconds(),
		Remaining: d.Remaining, ResetAfter: d.ResetAfter.Seconds(),
	}
	if d.RetryAfter != ratelimit.Never {
		seconds := d.RetryAfter.Seconds()
		answer.RetryAfter = &seconds
	}
	if err := o.done(c, text, answer); err != nil {
		return err
	}
	if !d.Allowed {
		return errDenied
	}
	return nil
}

// short rounds up for the reader: never to a time that is too early.
func short(d time.Duration) time.Duration {
	unit := time.Second
	switch {
	case d < time.Second:
		unit = time.Millisecond
	case d < time.Minute:
		unit = 100 * time.Millisecond
	}
	return (d + unit - 1).Truncate(unit)
}
