// Package ratelimit limits how often something may happen, for all processes
// that share a Redis.
//
//	api, err := ratelimit.New(r, "api", ratelimit.PerMinute(100), ratelimit.FailOpen)
//	…
//	d, err := api.Allow(ctx, user)
//	switch {
//	case err != nil: // not decided: a failure, never a denial
//	case !d.Allowed: // try again after d.RetryAfter
//	}
//
// # Promises
//
//   - A decision is one round trip, by the clock of Redis, in one script.
//   - Each [Algorithm] states how many it admits in any window, and keeps to it
//     under any concurrency, while every writer is this package and Redis keeps
//     its data. A failover can lose the last admissions.
//   - A denied request stores nothing and prolongs nothing.
//   - RetryAfter is exact: a microsecond earlier is denied, at that instant
//     admitted, if nobody else comes.
//   - An error is never a denial. What happens without Redis is said when the
//     limiter is made ([FailPolicy]), and [Decision.Degraded] tells when it did.
//   - A subject that is known to be denied is denied without asking Redis.
//   - A clock that jumps locks nobody out for longer than two windows
//     ([SlidingWindow]: and one bucket; [GCRA]: one refill and what was booked).
//   - The state belongs to the name of the limit, not to its numbers: a limit
//     that changes keeps its debt.
//
// [Middleware] limits HTTP handlers; it answers 429 to who is denied, and 503 or
// 504 where a limit that fails closed cannot be decided. [Login] is for
// passwords, [NewConcurrency] for how many at a time, [Join] for several limits
// in one round trip.
//
// # Keys
//
// State lives under <prefix>m1:limit:<name>:<algorithm>:{<subject>}, a block
// under the same key with ":block" behind it. Both expire by themselves. What
// another program has written there, and cannot be read, is deleted, and told
// in the log.
// Subjects may be any text; what could break a cluster's slot or is long is
// hashed. [Login] has the key of the Python original, with blocks of its own
// under <prefix>m1:login:{<that key>}.
package ratelimit
