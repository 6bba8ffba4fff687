// Package ratelimit limits how often something may happen, for all processes
// that share a Redis.
//
//	api, err := ratelimit.New(r, "api", ratelimit.Options{Rate: ratelimit.PerMinute(100), FailPolicy: madcrow.FailOpen})
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
//     admitted, if no other request comes.
//   - An error is never a denial. The [madcrow.FailPolicy] of a limiter says what happens
//     while Redis is unavailable; [Decision.Degraded] is true when it decided.
//   - A subject that is known to be denied is denied without a call to Redis.
//   - A clock that jumps locks no subject out for longer than two windows
//     ([SlidingWindow]: and one bucket; [GCRA]: one refill and the booked tokens).
//   - The state belongs to the name of the limit, not to its numbers: a limit
//     that changes keeps its debt.
//
// [Middleware] limits HTTP handlers: a denied request gets 429; 503 or 504 means
// that a limit that fails closed could not be decided. [Login] is for passwords,
// [Join] for several limits in one round trip, package semaphore for how many at
// a time.
//
// # Keys
//
// State lives under <prefix>m1:limit:<name>:<algorithm>:{<subject>}, a block
// under the same key followed by ":block". Both expire. A value under these keys
// that no limit wrote is deleted, and logged. Subjects may be any text; one that
// is long, or that could change a cluster's slot, is hashed. [Login] has the key
// of the FastAPI layout, with blocks under <prefix>m1:login:{<that key>}.
package ratelimit
