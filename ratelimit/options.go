package ratelimit

import (
	"fmt"
	"time"

	"github.com/madcrow-go/madcrow/internal/operr"
)

// DefaultDeniedKeys is how many denied subjects a limiter remembers.
const DefaultDeniedKeys = 16384

type options struct {
	algorithm  Algorithm
	deniedKeys int
	timeout    time.Duration
	localKeys  int
	wait       time.Duration
}

// Option changes a limit that [New] and its like make.
type Option func(*options)

// WithAlgorithm chooses the algorithm. Defaults to [SlidingLog].
func WithAlgorithm(a Algorithm) Option { return func(o *options) { o.algorithm = a } }

// WithDeniedKeys sets how many denied subjects this process remembers, at most;
// with 0 every call goes to Redis. Defaults to [DefaultDeniedKeys], about 2 MB
// when full. A remembered denial holds for at most a second, so that a Reset by
// another process takes effect.
func WithDeniedKeys(n int) Option { return func(o *options) { o.deniedKeys = n } }

// WithTimeout bounds each call to Redis, after which the [madcrow.FailPolicy] decides.
// Defaults to Config.CommandTimeout. Setting it costs a few allocations a call.
func WithTimeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// WithLocalKeys bounds how many subjects [madcrow.FailLocal] counts in this process.
// Beyond that the least recently used one is dropped, and its count starts at 0
// again. Defaults to 16,384, about 3 MB when full.
func WithLocalKeys(n int) Option { return func(o *options) { o.localKeys = n } }

func (o *options) check(wrong *operr.Arguments) {
	wrong.Check(o.deniedKeys >= 0, "WithDeniedKeys", "must not be negative")
	wrong.Check(o.localKeys >= 1, "WithLocalKeys", "must be at least 1")
	wrong.Check(o.timeout >= 0, "WithTimeout", "must not be negative")
	wrong.Check(o.wait >= 0 && o.wait <= MaxWindow, "WithMaxWait", fmt.Sprintf("must be from 0 to %v", MaxWindow))
}
