package ratelimit

import (
	"fmt"
	"math/bits"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// Algorithm decides which requests are admitted. Its guarantee holds for any
// number of processes.
type Algorithm struct {
	kind  kind
	extra int64 // buckets, or burst
}

type kind uint8

// group.lua has the algorithms in this order.
const (
	kindLog kind = iota + 1
	kindSet
	kindWindow
	kindGCRA
)

// SlidingLog admits at most Limit in every window, exactly; what was admitted
// becomes free to the microsecond one window later. It keeps a list of one
// integer for each admitted request: about 11 bytes each, so 11 KB for a busy
// subject at limit 1,000. It is the default. A cost of n writes n of them: where
// costs are in the thousands, take SlidingWindow or GCRA.
func SlidingLog() Algorithm { return Algorithm{kind: kindLog} }

// SortedSetLog is the same log in a sorted set, the FastAPI layout: up to 110
// bytes for each admitted request, and slower. Use it
// where other programs read or write the same keys; it is exact when all
// writers are this package.
func SortedSetLog() Algorithm { return Algorithm{kind: kindSet} }

// SlidingWindow admits at most Limit in every window, with memory for k
// numbers (1 to 1,000) whatever the limit is. The price: what was admitted
// becomes free up to Window/k late, and k+1 microseconds where k does not
// divide Window.
func SlidingWindow(k int) Algorithm { return Algorithm{kind: kindWindow, extra: int64(k)} }

// GCRA is the generic cell rate algorithm, also known as a token bucket: burst
// requests (1 to 1,000,000) at once, refilled evenly at the rate. It admits at
// most burst + Limit in any window, in O(1) memory. [NewTokenBucket] makes one
// with further verbs.
func GCRA(burst int64) Algorithm { return Algorithm{kind: kindGCRA, extra: burst} }

// String returns the algorithm's name: "sliding-log", "sorted-set-log",
// "sliding-window" or "gcra".
func (a Algorithm) String() string {
	switch a.kind {
	case 0, kindLog:
		return "sliding-log"
	case kindSet:
		return "sorted-set-log"
	case kindWindow:
		return "sliding-window"
	case kindGCRA:
		return "gcra"
	}
	return "unknown"
}

// plan is an algorithm with its parameters, as the scripts take them.
type plan struct {
	kind   kind
	rate   Rate
	limit  int64 // what one request may cost at most
	script *madcrow.Script
	// args are the arguments that never change: limit, window, the algorithm's
	// own (buckets, burst, or the life of a key of one window), the longest wait.
	args [4]string
}

// code is the kind's part of keys.
func (k kind) code() string { return [...]string{"", "l", "s", "w", "g"}[k] }

// plan checks the parameters; where is the name of the options' type.
func (a Algorithm) plan(where string, rate Rate, wait time.Duration, wrong *operr.Arguments) plan {
	burst := where + ".Algorithm"
	if where == bucketOptions {
		burst = where + ".Burst"
	}
	p := plan{kind: a.kind, rate: rate, limit: rate.Limit}
	most := int64(maxLimit)
	switch a.kind {
	case 0, kindLog:
		p.kind, p.script, most = kindLog, limitscript.Log, maxLogged
	case kindSet:
		p.script, most = limitscript.Set, maxLogged
	case kindWindow:
		p.script = limitscript.Window
		wrong.Check(a.extra >= 1 && a.extra <= 1000, where+".Algorithm", "a sliding window has from 1 to 1000 buckets")
	case kindGCRA:
		p.script, p.limit = limitscript.GCRA, a.extra
		wrong.Check(a.extra >= 1 && a.extra <= maxLogged, burst, fmt.Sprintf("the burst must be from 1 to %d", maxLogged))
		wrong.Check(rate.Limit < 1 || float64(a.extra)/float64(rate.Limit)*rate.Window.Hours() <= 366*24,
			burst, "the burst must refill within a year: raise the rate or lower the burst")
	}
	rate.check(where+".Rate", most, wrong)
	own := a.extra
	if p.kind == kindLog {
		own = (rate.micros()+999)/1000 + 1
	}
	for i, n := range []int64{rate.Limit, rate.micros(), own, wait.Microseconds()} {
		p.args[i] = strconv.FormatInt(n, 10)
	}
	return p
}

// localWindow is the window in which FailLocal counts: with GCRA the time that
// refills the burst.
func (p plan) localWindow() time.Duration {
	if p.kind == kindGCRA {
		return time.Duration(float64(p.rate.Window) * float64(p.limit) / float64(p.rate.Limit))
	}
	return p.rate.Window
}

// decide turns a reply into a decision. Times are microseconds.
func (p plan) decide(name string, r limitscript.Reply) Decision {
	d := Decision{
		Allowed: r.Retry == 0, Limiter: name, Limit: p.limit, Window: p.rate.Window,
		RetryAfter: time.Duration(r.Retry) * time.Microsecond,
		ResetAfter: time.Duration(r.Reset) * time.Microsecond,
	}
	switch {
	case r.Used < 0: // blocked
	case p.kind == kindGCRA:
		d.Remaining = p.tokens(r.Used, r.Extra)
	default:
		d.Remaining = max(0, p.limit-r.Used)
	}
	return d
}

// tokens is how many whole tokens fit into whole microseconds and rest/limit.
func (p plan) tokens(whole, rest int64) int64 {
	hi, lo := bits.Mul64(uint64(whole), uint64(p.rate.Limit))
	lo, carry := bits.Add64(lo, uint64(rest), 0)
	hi += carry
	window := uint64(p.rate.micros())
	if hi >= window {
		return p.limit
	}
	n, _ := bits.Div64(hi, lo, window)
	return min(int64(n), p.limit)
}
