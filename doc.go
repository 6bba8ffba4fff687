// Package madcrow is one connection to Redis that manages itself, for Go web
// services: it starts with or without Redis, keeps itself connected, bounds
// every call in time, and says of every failure what it was and whether
// anything was changed. The packages cache, session, ratelimit, pubsub and the
// others of this module reach Redis through it.
//
//	cfg, err := madcrow.ConfigFromEnv()
//	…
//	r, err := madcrow.Open(ctx, cfg)
//	…
//	defer r.Close(context.Background())
//	text, found, err := r.Do(ctx, r.B().Get().Key("greeting").Build()).Text()
//
// # Promises
//
//   - [Open] never blocks on a dead Redis; a wrong configuration is one error
//     that lists every problem.
//   - No call outlives its deadline, the caller's or Config.CommandTimeout,
//     by more than a few milliseconds; when Redis is known to be away, calls
//     fail in under a millisecond, and when it is back they work again within
//     a second, without a restart.
//   - No call pings. [Redis.State] and its like serve what was observed.
//   - Every error is an [*Error] with a kind and an outcome: not applied,
//     applied or unknown. None holds a password.
//   - A miss is a value (found is false), never an error.
//   - A command is tried again only if it was certainly not applied, or if it is
//     idempotent.
//   - Config.MaxConnections bounds what is open to Redis, all counted.
//   - After [Redis.Close] no goroutine and no connection is left.
//
// # How no call hangs
//
// Each node has an availability: up, probing, down or closed. When a connection
// is lost, or a call gives up and the server was silent all the while, the node
// is probing: new calls wait for the prober, up to their own deadlines. When it
// is down, calls fail at once. Only the prober dials, so no caller waits for a
// dial. Each shared connection has a bounded number of calls on it. Those whose
// callers gave up count until a later reply proves that theirs have come.
//
// # Sentinel and Cluster
//
// With Sentinel the node moves: the prober asks all Sentinels, believes the
// newest configuration epoch, and connects to the master that it names after it
// has seen that this is a master. In a cluster every node has its availability
// and its prober, and is found by the command's slot, so that one that is away
// harms no other; redirects are followed, pipelines are grouped by node. Neither
// needs more round trips in the usual case. Replication is asynchronous: a
// failover can lose writes that were acknowledged, which min-replicas-to-write
// bounds.
//
// Everything is safe for concurrent use unless it says otherwise.
package madcrow
