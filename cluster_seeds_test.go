package madcrow_test

import (
	"context"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// A seed that is a cluster node without a map (new, reset, its nodes.conf lost)
// was believed: no slot was covered.
func TestCluster_SeedWithoutAMapIsPassedOver(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	blank := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--cluster-enabled", "yes"))
	cfg := c.Config()
	cfg.Cluster.Addresses = append([]string{blank.Addr()}, cfg.Cluster.Addresses...)
	r := open(t, cfg)
	var err error
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = r.Do(t.Context(), set(r, "foo", "1")).Err(); err == nil {
			return
		}
	}
	t.Errorf("4 s, six healthy seeds behind one blank one: %v; state %v, covered %d", err, r.State(), r.Status().SlotsCovered)
}

// One node lost sight of the others. Its map holds its own slots only, was read
// first, and stayed.
func TestCluster_MapOfANodeThatLostTheOthersIsNotKept(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	lone := c.MasterOf(t, "foo")
	var ids []string
	for _, n := range c.Nodes() {
		if n != lone {
			id, _ := n.Do(t, "CLUSTER", "MYID").(string)
			ids = append(ids, id)
		}
	}
	// the replica of lone cannot be forgotten by others' rules; it owns no slots
	for _, id := range ids {
		func() {
			defer func() { _ = recover() }()
			lone.Do(t, "CLUSTER", "FORGET", id)
		}()
	}
	cfg := c.Config()
	seeds := []string{lone.Addr()}
	for _, a := range cfg.Cluster.Addresses {
		if a != lone.Addr() {
			seeds = append(seeds, a)
		}
	}
	cfg.Cluster.Addresses = seeds
	r := open(t, cfg)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if r.Status().SlotsCovered == 16384 {
			return
		}
	}
	t.Errorf("covered %d of 16384 for 5 s, five other seeds know the whole map", r.Status().SlotsCovered)
}

// Up means that every node serves. A master that never answered was not counted.
func TestCluster_IsNotUpWhileAMasterNeverAnswered(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	frozen := c.MasterOf(t, "foo")
	cfg, proxies := c.Proxied(t)
	proxies[frozen.Addr()].BlackHole(true)
	var seeds []string
	for _, a := range cfg.Cluster.Addresses {
		if a != frozen.Addr() {
			seeds = append(seeds, a)
		}
	}
	cfg.Cluster.Addresses = seeds
	r := open(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	for st := range r.Watch(ctx) {
		t.Logf("%v %v", st.State, st.Err)
		if st.State == madcrow.StateUp {
			t.Errorf("up, and %s never answered", frozen.Addr())
		}
	}
}
