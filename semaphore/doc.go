// Package semaphore limits how many may do something at the same time, for all
// processes that share a Redis.
//
//	exports, err := semaphore.New(r, "exports", semaphore.Options{Limit: 4, FailPolicy: madcrow.FailClosed})
//	…
//	lease, d, err := exports.TryAcquire(ctx, account)
//	switch {
//	case err != nil: // not decided: a failure, never a denial
//	case lease == nil: // all are taken; one is free after d.RetryAfter at the latest
//	default:
//		defer lease.Release(ctx)
//		export(lease.Context())
//	}
//
// # Promises
//
//   - No more than the limit hold a lease of one subject at a time, while Redis
//     keeps its data and its clock. A failover can lose the newest leases; their
//     holders are notified within a third of [Options].LeaseTTL.
//   - A lease whose process died ends after [Options].LeaseTTL. A living process renews
//     it in the background.
//   - The holder of a lease that may be another's is notified: its [Lease.Context]
//     ends with [ErrLeaseLost], before another process can acquire it.
//   - An error is never a denial. The [madcrow.FailPolicy] says what happens while Redis
//     is unavailable.
//   - A release wakes a call that waits, in this process and in others; the calls of
//     one process are served in their order.
//   - A lease whose Acquire or Release failed is released in the background.
//
// # Keys
//
// The leases of a subject are a sorted set under
// <prefix>m1:limit:<name>:c:{<subject>}: their identifiers by the time when they
// end. A block is under the same key followed by ":block". Both expire. A value
// under these keys that no semaphore wrote is deleted, and logged. Subjects may be
// any text; one that is long, or that could change a cluster's slot, is hashed.
package semaphore
