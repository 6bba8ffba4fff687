package ratelimit

import (
	"log/slog"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/fallback"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// Options configure a [Limiter]. Rate and FailPolicy are required.
type Options struct {
	// Rate is how many requests each subject has in which window: PerMinute(100).
	Rate Rate
	// FailPolicy says what happens while Redis is unavailable: madcrow.FailOpen
	// admits, with Degraded true and the Cause; madcrow.FailClosed returns the
	// error; madcrow.FailLocal(n) counts in this process, with 1/n of the limit, at
	// least 1. That count starts at 0: what Redis has counted is not known.
	FailPolicy madcrow.FailPolicy
	// Algorithm decides which requests are admitted. Defaults to [SlidingLog].
	Algorithm Algorithm
	// Timeout bounds each call to Redis, after which the FailPolicy decides.
	// Defaults to Config.CommandTimeout. Setting it costs a few allocations a call.
	Timeout time.Duration
	// DeniedSubjects is how many denied subjects this process remembers, at most:
	// they are denied without a call to Redis, each for at most a second, so that a
	// Reset by another process takes effect. With a negative number every call goes
	// to Redis. Defaults to 16,384, about 2 MB when full.
	DeniedSubjects int
	// LocalSubjects bounds how many subjects [madcrow.FailLocal] counts in this
	// process. Beyond that the least recently used one is dropped, and its count
	// starts at 0 again. Defaults to 16,384, about 3 MB when full.
	LocalSubjects int
	// Logger is for outages in which the FailPolicy decides, for foreign values
	// under the keys, and for the requests that [Middleware] refuses. Defaults to
	// the logger of the Redis.
	Logger *slog.Logger
}

// TokenBucketOptions configure a [TokenBucket]. Rate, Burst and FailPolicy are
// required.
type TokenBucketOptions struct {
	// Rate is how fast the bucket is refilled.
	Rate Rate
	// Burst is how many tokens a full bucket has, from 1 to 1,000,000.
	Burst int64
	// FailPolicy is that of [Options]. madcrow.FailLocal admits this process's share
	// of the burst in the time that refills it.
	FailPolicy madcrow.FailPolicy
	// MaxWait bounds how far ahead [TokenBucket.Reserve] may book, up to 31 days.
	// Defaults to the time that refills the burst, at most an hour. All processes
	// that share a limit need the same value: one with a smaller value drops what
	// another has booked beyond it.
	MaxWait time.Duration
	// Timeout, DeniedSubjects, LocalSubjects and Logger are those of [Options].
	Timeout        time.Duration
	DeniedSubjects int
	LocalSubjects  int
	Logger         *slog.Logger
}

// defaultSubjects is how many subjects a limiter remembers, denied ones and
// those that it counts itself.
const defaultSubjects = 16384

// settings are the options of any limiter, whichever constructor got them.
type settings struct {
	Options
	wait time.Duration
}

// withDefaults sets what was not set.
func (o settings) withDefaults(r *madcrow.Redis) settings {
	if o.DeniedSubjects == 0 {
		o.DeniedSubjects = defaultSubjects
	}
	if o.LocalSubjects == 0 {
		o.LocalSubjects = defaultSubjects
	}
	if o.Logger == nil {
		o.Logger = r.Logger()
	}
	return o
}

// check notes what is wrong; where is the name of the options' type.
func (o settings) check(where string, wrong *operr.Arguments) {
	policy := fallback.Problem(o.FailPolicy)
	wrong.Check(policy == "", where+".FailPolicy", policy)
	wrong.Check(o.LocalSubjects >= 1, where+".LocalSubjects", "must not be negative")
	wrong.Check(o.Timeout >= 0, where+".Timeout", "must not be negative")
	wrong.Check(o.wait >= 0 && o.wait <= MaxWindow, where+".MaxWait", "must be from 0 to 31 days")
}
