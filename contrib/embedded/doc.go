// Package embedded is a Redis inside the process, for development: start the
// program, and it works, with nothing installed.
//
//	cfg, stop, err := embedded.ConfigFromEnv(embedded.Options{Logger: log})
//	…
//	defer stop()
//	r, err := madcrow.Open(ctx, cfg)
//
// [ConfigFromEnv] starts it only where the environment names no Redis. A test that has
// no redis-server calls [Start].
//
// It is not for production, and [Start] refuses there (DEPLOY_ENV=PRODUCTION):
// set REDIS_HOST or REDIS_URL instead. What it lacks:
//
//   - Nothing is stored on disk: the data is gone when the process ends.
//   - It belongs to one process: no other program can reach it, there is no
//     port.
//   - No limit on memory and no eviction: it grows with what is put in. A
//     little is kept for every key that ever was, after it expired, too.
//   - No client-side caching (CLIENT TRACKING): a near copy is believed for the
//     NearTTL of its cache, a second by default, and the log says so once.
//   - No sharded pub/sub (SSUBSCRIBE, SPUBLISH), no functions (FCALL), no
//     ACL rules, no CONFIG, no ROLE, no keyspace events.
//   - CLIENT knows only SETNAME and GETNAME: no LIST, KILL or NO-EVICT.
//   - INFO says only how many clients there are, and how many connections and
//     commands there were; it takes at most one section, and others than
//     "clients" and "stats" are an error.
//   - A connection that is subscribed takes no other commands, even in RESP3:
//     pub/sub needs a connection of its own.
//   - It is slow beside a real Redis. Every command holds one lock, and with
//     many keys (100,000 and more) expiry becomes coarse.
//
// Keys expire in real time, give or take a few milliseconds; with very many
// keys that grows, to at most a second.
//
// The Redis is miniredis, the work of Harmen and contributors.
package embedded
