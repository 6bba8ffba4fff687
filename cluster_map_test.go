package madcrow_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// loseShard kills the master of slot 0 and its replica and starts the master
// again without its memory, so that the others list it without an address. It
// returns how many slots are left.
func loseShard(t *testing.T, c *madcrowtest.Cluster) int {
	t.Helper()
	gone, replica := c.Nodes()[0], c.Nodes()[3]
	dir, _ := gone.Do(t, "CONFIG", "GET", "dir").([]any)
	replica.Kill()
	gone.Kill()
	if err := os.Remove(filepath.Join(dir[1].(string), "nodes.conf")); err != nil {
		t.Fatal(err)
	}
	gone.Start()
	left := 0
	for _, i := range []int{1, 2, 4, 5} { // until each of them says so
		witness := c.Nodes()[i]
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			left = 0
			lines, _ := witness.Do(t, "CLUSTER", "SLOTS").([]any)
			for _, l := range lines {
				line := l.([]any)
				if master := line[2].([]any); master[1] != int64(0) {
					left += int(line[1].(int64) - line[0].(int64) + 1)
				}
			}
			if left < 16384 {
				break
			}
			if time.Now().After(end) {
				t.Fatal("no node is without an address")
			}
		}
	}
	return left
}

// keysOf returns a key of a slot of the shard that was lost, and one of another.
func keysOf(c *madcrowtest.Cluster) (lost, healthy string) {
	for i := 0; lost == "" || healthy == ""; i++ {
		if key := fmt.Sprint("k", i); c.Slot(key) < 16384/3 {
			lost = key
		} else {
			healthy = key
		}
	}
	return lost, healthy
}

// The line of a master without address and port made the whole map unreadable:
// a new process served no key and blamed the healthy nodes, an old one no
// longer followed the cluster.
func TestCluster_NodeWithoutAddressCostsItsOwnSlotsOnly(t *testing.T) {
	c, old := startCluster(t)
	left := loseShard(t, c)
	lost, healthy := keysOf(c)
	for _, tc := range []struct {
		name string
		r    *madcrow.Redis
	}{{"a new process", open(t, c.Config())}, {"one with an older map", old}} {
		t.Run(tc.name, func(t *testing.T) {
			await(t, tc.r, madcrow.StateDegraded, 10*time.Second)
			for end := time.Now().Add(10 * time.Second); tc.r.Status().SlotsCovered != left && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			}
			st := tc.r.Status()
			if st.SlotsCovered != left || st.State != madcrow.StateDegraded {
				t.Errorf("%v with %d slots, want degraded with %d", st.State, st.SlotsCovered, left)
			}
			if st.Err == nil || !strings.Contains(st.Err.Error(), fmt.Sprint(16384-left, " of 16384 slots")) {
				t.Errorf("the state says %v", st.Err)
			}
			mustSet(t, tc.r, healthy, "1")
			err := tc.r.Do(t.Context(), get(tc.r, lost)).Err()
			wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, "no node of the cluster serves this slot")
			if strings.Contains(err.Error(), "protocol") {
				t.Errorf("a healthy node is blamed: %v", err)
			}
		})
	}

	// An ordinary failover of a healthy shard is followed all the same.
	demoted := c.MasterOf(t, healthy)
	c.Failover(t, c.ReplicaOf(t, healthy))
	demoted.Kill()
	start := time.Now()
	for _, r := range []*madcrow.Redis{old, open(t, c.Config())} {
		var err error
		for time.Since(start) < testkit.Slack(2*time.Second) {
			if err = r.Do(t.Context(), set(r, healthy, "2")).Err(); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("%v after a failover of another shard: %v", time.Since(start), err)
		}
		t.Logf("served again after %v", time.Since(start))
	}
}

// One of the seeds is no cluster, or none of this one: the others tell the map.
func TestCluster_OddSeedBesideHealthyOnes(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	cfg := c.Config()
	cfg.Cluster.Addresses = append([]string{madcrowtest.StartRedis(t).Addr()}, cfg.Cluster.Addresses[0])
	cfg.Require = true
	for range 8 { // they are asked in any order
		r, err := madcrow.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close(t.Context())
	}
}

// A cluster may call its nodes by host name, by address, or only by port. One
// that has no host name is "?".
func TestCluster_EveryWayToNameItsNodes(t *testing.T) {
	if madcrowtest.OlderThan(t, "7.0") {
		t.Skip("Redis 7.0 brought names for the nodes")
	}
	c := madcrowtest.StartCluster(t)
	each := func(name, value string) {
		t.Helper()
		for _, n := range c.Nodes() {
			if reply := n.Do(t, "CONFIG", "SET", name, value); reply != "OK" {
				t.Errorf("%s = %q: %v", name, value, reply)
			}
		}
	}
	for _, tc := range []struct{ endpoint, host, want string }{
		{"ip", "", "127.0.0.1"},
		{"hostname", "localhost", "localhost"},
		{"unknown-endpoint", "localhost", "127.0.0.1"},
		{"hostname", "", "127.0.0.1"},
	} {
		t.Run(tc.endpoint+tc.host, func(t *testing.T) {
			each("cluster-announce-hostname", tc.host)
			each("cluster-preferred-endpoint-type", tc.endpoint)
			time.Sleep(50 * time.Millisecond)
			var r *madcrow.Redis
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) { // until gossip has spread it
				r = open(t, c.Config())
				await(t, r, madcrow.StateUp, 10*time.Second)
				named := 0
				for _, n := range r.Status().Nodes {
					if strings.HasPrefix(n.Address, tc.want+":") {
						named++
					}
				}
				if named == 3 {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%+v, want all on %s", r.Status().Nodes, tc.want)
				}
				_ = r.Close(t.Context())
			}
			for i := range 20 { // to any node, so that most are redirected
				if err := r.Do(t.Context(), arbitrary(r, "SET", fmt.Sprint("k", i), "1")).Err(); err != nil {
					t.Errorf("SET k%d: %v", i, err)
				}
				if err := r.Do(t.Context(), get(r, fmt.Sprint("k", i))).Err(); err != nil {
					t.Errorf("GET k%d: %v", i, err)
				}
			}
			if n := len(r.Status().Nodes); n != 3 {
				t.Errorf("%d nodes: redirections name them otherwise than the map does", n)
			}
		})
	}
}
