package madcrow_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func otherMaster(t *testing.T, c *madcrowtest.Cluster, key string) *madcrowtest.Server {
	from := c.MasterOf(t, key)
	for _, n := range c.Nodes() {
		if n != from && isMaster(t, n) {
			return n
		}
	}
	return nil
}

// After the slot moved, MULTI stayed with the old node and the pipeline failed.
func TestCluster_MultiAndExecFollowTheirSlot(t *testing.T) {
	c, r := startCluster(t)
	c.MoveSlot(t, c.Slot("counter"), otherMaster(t, c, "counter"))
	start := time.Now()
	n := 0
	for {
		_, err := r.DoMulti(t.Context(), r.B().Multi().Build(), r.B().Incr().Key("counter").Build(), r.B().Exec().Build())
		if err == nil {
			break
		}
		if n++; n == 1 {
			t.Errorf("after the slot moved: %v", err)
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("it does not follow")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n > 0 {
		t.Errorf("%d pipelines failed over %v", n, time.Since(start))
	}
}

// After the slot moved, SSUBSCRIBE went to the old node again and again.
func TestCluster_ShardedSubscriptionFollowsItsSlot(t *testing.T) {
	if madcrowtest.OlderThan(t, "7.0") {
		t.Skip("sharded channels need Redis 7.0")
	}
	c, r := startCluster(t)
	c.MoveSlot(t, c.Slot("news"), otherMaster(t, c, "news"))
	start := time.Now()
	n := 0
	for time.Since(start) < 20*time.Second {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		var subscribed atomic.Bool
		err := r.Subscribe(ctx, madcrow.Subscription{Sharded: []string{"news"}},
			madcrow.Handler{OnMessage: drop, OnSubscribed: func(string) { subscribed.Store(true); cancel() }})
		cancel()
		if subscribed.Load() {
			break
		}
		if n++; n == 1 {
			t.Errorf("after the slot moved: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n > 0 {
		t.Errorf("%d subscriptions failed over %v", n, time.Since(start))
	}
}

// While the slot moved, a transaction failed with ASK.
func TestCluster_TransactionWhileItsSlotMoves(t *testing.T) {
	c, r := startCluster(t)
	c.BeginMove(t, c.Slot("counter"), otherMaster(t, c, "counter"))
	mustSet(t, r, "counter", "1") // by ASK
	_, err := r.Tx(t.Context(), []string{"counter"}, func(tx *madcrow.Tx) error { tx.Queue(incr(tx, "counter")); return nil })
	if err != nil {
		t.Errorf("Tx: %v", err)
	}
	_, err = r.DoMulti(t.Context(), r.B().Multi().Build(), r.B().Incr().Key("counter").Build(), r.B().Exec().Build())
	if err != nil {
		t.Errorf("MULTI: %v", err)
	}
}

// A command whose key the Builder does not know is redirected. Each redirect
// dialled again.
func TestCluster_RedirectsAreNoDialStorm(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	cfg := c.Config()
	var mu sync.Mutex
	dials := map[string]int{}
	cfg.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		mu.Lock()
		dials[addr]++
		mu.Unlock()
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	mu.Lock()
	clear(dials)
	mu.Unlock()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		_ = r.Do(t.Context(), arbitrary(r, "GET", "foo")).Err()
	}
	mu.Lock()
	defer mu.Unlock()
	for a, n := range dials {
		if n > 20 {
			t.Errorf("%s was dialled %d times in 3 s, in a healthy cluster", a, n)
		}
	}
}
