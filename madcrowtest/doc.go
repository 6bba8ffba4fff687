// Package madcrowtest helps to test programs that use Redis, against real
// servers: it starts redis-server processes on free loopback ports, stops,
// kills and freezes them by process id, puts a faulty wire before them, and
// checks that nothing is left behind.
//
//	func TestOrders(t *testing.T) {
//		madcrowtest.CheckLeaks(t)
//		srv := madcrowtest.StartRedis(t)
//		r := madcrowtest.Open(t, srv.Config())
//		…
//		srv.Kill()  // kill -9
//		srv.Start() // the same port, the same settings
//	}
//
// [StartSentinel] starts a master with two replicas and three Sentinels,
// [StartCluster] a Redis Cluster of six nodes; both can be failed over, and put
// behind faulty wires as a whole.
//
// [Server.Advance] lets keys age without waiting, [OpenSSE] reads server-sent events,
// [Eventually] waits for a state, and package sessiontest makes requests with a session.
// docs/testing.md shows how to test a service.
//
// The binary is redis-server from the PATH, or the one that the environment
// variable MADCROW_REDIS_SERVER names, such as /usr/bin/valkey-server. Without
// a server the test fails: a green run that tested nothing is a defect. Only
// under MADCROW_TEST_ALLOW_SKIP=1 is it skipped.
//
// Everything listens on 127.0.0.1 or on a Unix socket in a temporary folder,
// and is gone when the test ends; on Linux the servers also end when the test
// process is killed. Servers need a Unix-like system.
package madcrowtest
