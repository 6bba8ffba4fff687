package ratelimit

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow/problem"
)

// Never is the RetryAfter of a cost that is above the limit itself: waiting
// does not help.
const Never time.Duration = -1

// Decision is a limit's decision about one request.
type Decision struct {
	// Allowed is true when the request was admitted, and counted.
	Allowed bool
	// Limiter is the name of the limit; of a group, of its strictest limit.
	Limiter string
	// Limit is how many are admitted in a window; with a [TokenBucket] the
	// burst.
	Limit int64
	// Window is that of the limit.
	Window time.Duration
	// Remaining is how many more would be admitted now. It is 0 if that is
	// unknown: for a cost above the limit, and from SourceLocal. It is 0 while
	// the subject is blocked.
	Remaining int64
	// RetryAfter is the time until the same request would be admitted if no
	// other request comes, 0 when this one was, [Never] when it cannot be. From
	// SourceLocal it may be a round trip longer; for a cost above the one that
	// Redis denied it is the wait of the denied one, a lower bound.
	RetryAfter time.Duration
	// ResetAfter is the time until the whole limit is free again, if no request
	// comes.
	ResetAfter time.Duration
	// Source says where the decision was made.
	Source Source
	// Degraded is true when Redis was unavailable and the [madcrow.FailPolicy] decided
	// instead. Cause is the error of Redis.
	Degraded bool
	Cause    error

	of   *Limiter // that decided; nil in a Decision that no limiter made
	cost int64    // of the request
}

// Err is nil for a request that was admitted. For a denied one it is an error that
// knows its response: [problem.Write] answers 429 QUOTA_EXCEEDED, or QUOTA_NEVER
// where waiting does not help, with Retry-After, RateLimit and RateLimit-Policy. A
// cost that is only above the share of this process, while Redis is unavailable, is
// the Cause: a 503.
//
//	if d, err := uploads.AllowN(ctx, user, size); err != nil {
//		return err // not decided: 503 or 504
//	} else if err := d.Err(); err != nil {
//		return err // denied: 429
//	}
func (d Decision) Err() error {
	if d.Allowed {
		return nil
	}
	return denied(d, []Decision{d}, []string{d.Limiter})
}

// Err is [Decision.Err]; its response describes each limit of the group, and names
// those that denied in violated-policies.
func (j Joint) Err() error {
	if j.Allowed {
		return nil
	}
	return denied(j.Decision, j.Limits, j.Violated)
}

var errNoDecision = errors.New("ratelimit: no limiter has made this decision")

func denied(d Decision, each []Decision, violated []string) error {
	switch {
	case d.Cause != nil && d.RetryAfter <= 0: // Redis might have admitted it
		return d.Cause
	case d.of == nil:
		return errNoDecision
	}
	p := quotaProblem(d, violated)
	p.Header = http.Header{}
	setRateLimit(p.Header, policies(each), each)
	return refusal{p, d.RetryAfter}
}

// Refuse writes the response of a denied request, as [Decision.Err] describes it,
// and logs it with the logger of the limit.
func Refuse(w http.ResponseWriter, r *http.Request, d Decision) {
	err := d.Err()
	if err == nil {
		misuse("Refuse was called for a request that was admitted")
	}
	if d.of == nil {
		problem.Write(w, r, nil, err)
		return
	}
	problem.Write(w, r, d.of.opt.Logger, err)
}

// Source says where a decision was made.
type Source uint8

// The sources of a [Decision].
const (
	// SourceRedis: the shared state.
	SourceRedis Source = iota
	// SourceLocal: this process remembers a denial that still holds, or the
	// cost is above the limit.
	SourceLocal
	// SourceFallback: the [madcrow.FailPolicy], because Redis was unavailable.
	SourceFallback
	// SourceBypass: an allow or deny list, or a skip; nothing was counted.
	SourceBypass
)

// String returns "redis", "local", "fallback" or "bypass".
func (s Source) String() string {
	switch s {
	case SourceRedis:
		return "redis"
	case SourceLocal:
		return "local"
	case SourceFallback:
		return "fallback"
	case SourceBypass:
		return "bypass"
	}
	return "unknown"
}
