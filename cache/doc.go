// Package cache is a typed cache over Redis.
//
//	users, err := cache.New(r, "users", cache.Options[User]{TTL: time.Minute, StaleTTL: time.Hour, NearCacheBytes: 16 << 20})
//	…
//	u, err := users.GetOrLoad(ctx, id, func(ctx context.Context) (User, error) {
//		return db.User(ctx, id) // cache.ErrNotFound where there is none
//	})
//
// # Promises
//
//   - A miss is a value, absence can be cached, and a failure is an error:
//     three different things.
//   - After Set, Delete, DeleteTag or Clear has returned, this process does not
//     serve what was there before, and no load that began before stores it. In
//     other processes a near copy may be served until Redis' push arrives.
//   - Of all callers in all processes one loads a key at a time. A process that
//     dies costs the others Options.LeaseTTL. A load that fails is tried again
//     after a backoff, not by every waiter.
//   - A caller waits as long as its own context and the time-outs say, and harms
//     no one when it goes. A load that overruns is given up, a panic is an
//     error.
//   - An error of a loader is the application's, and its problem document too:
//     503 means that Redis, or this cache, cannot serve. Each failed load is
//     counted, and the log says when loads begin to fail and when they succeed
//     again, also where stale values are served.
//   - Near copies are kept true by Redis (CLIENT TRACKING). They are dropped
//     with the connection, on FLUSHALL and when the master or the slots move,
//     and live no longer than in Redis.
//   - Redis away is no event: values are loaded, at most Options.MaxLoads at a
//     time; removals are remembered and sent when it is back.
//   - An entry that cannot be read, of another codec or format, is a miss, and
//     said once in the log. Two caches of one name in a process store one type:
//     New refuses the second one otherwise.
//
// Package httpcache caches the responses of HTTP handlers on the same engine, by
// what their headers allow (RFC 9111).
//
// What is not promised: DEL by another program while a load runs does not keep
// its result from being stored. A removal that was queued is lost when the
// process ends before Redis is back. A failover of Redis can lose the last
// writes, removals included.
//
// # Keys
//
//	<prefix>m1:cache:<name>:{<key>}        an entry
//	<prefix>m1:cache:<name>:{<key>}:lease  who loads it
//	<prefix>m1:cache:<name>:gen            the generation of the cache
//	<prefix>m1:tag:{<tag>}                 the generations of a tag
//
// Keys and tags may be any text; what could break a cluster's slot or is long
// is hashed.
package cache
