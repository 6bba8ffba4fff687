package ratelimit

import "time"

// Never is the RetryAfter of a cost that is above the limit itself: waiting
// does not help.
const Never time.Duration = -1

// Decision is a limit's decision about one request.
type Decision struct {
	// Allowed is true when the request was admitted, and counted.
	Allowed bool
	// Policy is the name of the limit; of a group, of its strictest limit.
	Policy string
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
	// instead. Err is the cause.
	Degraded bool
	Err      error
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
