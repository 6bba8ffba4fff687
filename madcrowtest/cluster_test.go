//go:build unix

package madcrowtest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestStartCluster_HasItsRolesAndSettings(t *testing.T) {
	CheckLeaks(t)
	c := StartCluster(t, WithArgs("--maxmemory", "30mb"))
	if len(c.Nodes()) != 6 {
		t.Fatalf("%d nodes", len(c.Nodes()))
	}
	owners := map[int]int{}
	for i, n := range c.Nodes() {
		role := "master"
		if i >= 3 {
			role = "slave"
		}
		wantRole(t, n, role)
		for name, value := range map[string]string{
			"save": "", "appendonly": "no", "cluster-node-timeout": "2000",
			"cluster-require-full-coverage": "no", "maxmemory": fmt.Sprint(30 << 20),
		} {
			wantSetting(t, n, name, value)
		}
		self, err := n.self()
		if err != nil {
			t.Fatal(err)
		}
		for slot := range clusterSlots {
			if self.has(slot) {
				owners[slot]++
			}
		}
	}
	for slot := range clusterSlots {
		if owners[slot] != 1 {
			t.Fatalf("slot %d has %d owners", slot, owners[slot])
		}
	}
	t.Run("keys", func(t *testing.T) { keysAreWhereTheyBelong(t, c) })
	t.Run("move", func(t *testing.T) { slotsMoveWithTheirData(t, c) })
	t.Run("half", func(t *testing.T) { halfAMoveRedirects(t, c) })
	t.Run("failover", func(t *testing.T) { failoverIsInOrder(t, c) })
	t.Run("kill", func(t *testing.T) { aKilledMasterIsReplaced(t, c) })
}

// otherMaster returns one that is not n.
func otherMaster(t *testing.T, c *Cluster, n *Server) *Server {
	t.Helper()
	for i := range 100 {
		if other := c.MasterOf(t, fmt.Sprint(i)); other != n {
			return other
		}
	}
	t.Fatal("there is one master only")
	return nil
}

func keysAreWhereTheyBelong(t *testing.T, c *Cluster) {
	for _, key := range []string{
		"", "foo", "foo{bar}", "{bar}foo", "{}foo", "foo{}{bar}", "{{bar}}", "foo{bar}{zap}", "a{b", "}a{b}", "\xff\x00ü", "user:1000",
	} {
		if want := c.nodes[4].Do(t, "CLUSTER", "KEYSLOT", key); int64(c.Slot(key)) != want {
			t.Errorf("slot of %q is %d, Redis says %v", key, c.Slot(key), want)
		}
	}
	masters := map[*Server]bool{}
	for i := range 30 {
		key := fmt.Sprint("key:", i)
		master, replica := c.MasterOf(t, key), c.ReplicaOf(t, key)
		masters[master] = true
		if got := master.Do(t, "SET", key, "v"); got != "OK" {
			t.Errorf("SET %s at its master: %v", key, got)
		}
		if err := replica.follows(master); err != nil {
			t.Error(err)
		}
	}
	if len(masters) != 3 {
		t.Errorf("30 keys have %d masters", len(masters))
	}
}

func slotsMoveWithTheirData(t *testing.T, c *Cluster) {
	const keys = 230 // more than one MIGRATE moves
	from := c.MasterOf(t, "{moved}")
	to := otherMaster(t, c, from)
	for i := range keys {
		from.Do(t, "SET", fmt.Sprint("{moved}", i), fmt.Sprint(i))
	}
	slot := c.Slot("{moved}")
	c.MoveSlot(t, slot, to)
	if c.MasterOf(t, "{moved}") != to {
		t.Error("the slot has not moved")
	}
	for i := range keys {
		if got := to.Do(t, "GET", fmt.Sprint("{moved}", i)); got != fmt.Sprint(i) {
			t.Fatalf("key %d came as %v", i, got)
		}
	}
	moved := fmt.Sprintf("MOVED %d %s", slot, to.Addr())
	for _, n := range c.Nodes() {
		if n == to {
			continue
		}
		if got := fmt.Sprint(n.Do(t, "GET", "{moved}1")); got != moved {
			t.Errorf("%s answers %q, want %q", n.Addr(), got, moved)
		}
	}
	if got := from.Do(t, "CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(slot)); got != int64(0) {
		t.Errorf("%v keys stayed behind", got)
	}
	c.MoveSlot(t, slot, to) // does nothing
	c.WaitReady(t)
}

func halfAMoveRedirects(t *testing.T, c *Cluster) {
	from := c.MasterOf(t, "{half}")
	to, slot := otherMaster(t, c, from), c.Slot("{half}")
	from.Do(t, "MSET", "{half}1", "a", "{half}2", "b")
	ask := fmt.Sprintf("ASK %d %s", slot, to.Addr())
	c.BeginMove(t, slot, to)
	if got := from.Do(t, "GET", "{half}1"); got != "a" {
		t.Errorf("a key that has not moved: %v", got)
	}
	if got := fmt.Sprint(from.Do(t, "GET", "{half}absent")); got != ask {
		t.Errorf("a key that is not there: %q, want %q", got, ask)
	}
	c.MoveKeys(t, to) // does nothing
	c.MoveKeys(t, to, "{half}1")
	if got := fmt.Sprint(from.Do(t, "GET", "{half}1")); got != ask {
		t.Errorf("a key that has moved: %q, want %q", got, ask)
	}
	replies, err := to.exchange(doTimeout, []string{"ASKING"}, []string{"GET", "{half}1"},
		[]string{"ASKING"}, []string{"MGET", "{half}1", "{half}2"})
	if err != nil || replies[1] != "a" || !strings.HasPrefix(fmt.Sprint(replies[3]), "TRYAGAIN") {
		t.Errorf("asked for one and for both: %v, %v", replies, err)
	}
	want := "TRYAGAIN"
	if OlderThan(t, "7.0") {
		want = ask
	}
	if got := fmt.Sprint(from.Do(t, "MGET", "{half}1", "{half}2")); !strings.HasPrefix(got, want) {
		t.Errorf("both at the old master: %q, want %q", got, want)
	}
	if c.MasterOf(t, "{half}") != from {
		t.Error("half a move has moved the slot")
	}
	c.FinishMove(t, slot, to)
	if got := fmt.Sprint(to.Do(t, "MGET", "{half}1", "{half}2")); got != "[a b]" {
		t.Errorf("after the move: %s", got)
	}
	c.WaitReady(t)
}

func failoverIsInOrder(t *testing.T, c *Cluster) {
	old, replica := c.MasterOf(t, "k"), c.ReplicaOf(t, "k")
	old.Do(t, "SET", "k", "v")
	c.Failover(t, replica)
	if c.MasterOf(t, "k") != replica || replica.Do(t, "GET", "k") != "v" {
		t.Error("the replica has not taken over")
	}
	wantRole(t, replica, "master")
	c.WaitReady(t)
	wantRole(t, old, "slave")
	if c.ReplicaOf(t, "k") != old {
		t.Error("the old master is not the replica")
	}
	// By force, when the master is away.
	replica.Pause()
	start := time.Now()
	c.Failover(t, old)
	if took := time.Since(start); took > 1900*time.Millisecond {
		t.Errorf("a forced failover took %v, as long as one without an order", took)
	}
	replica.Resume()
	c.WaitReady(t)
	wantRole(t, replica, "slave")
}

func aKilledMasterIsReplaced(t *testing.T, c *Cluster) {
	// Not the shard that was just failed over: for 4 seconds the masters
	// do not vote for another of its replicas.
	const key = "foo"
	old, heir := c.MasterOf(t, key), c.ReplicaOf(t, key)
	if old == c.MasterOf(t, "k") {
		t.Fatal("choose keys of two masters")
	}
	old.Do(t, "SET", key, "v2")
	if got := old.Do(t, "WAIT", "1", "1000"); got != int64(1) {
		t.Fatalf("%v replicas have the value", got)
	}
	start := time.Now()
	old.Kill()
	if c.ready() == nil {
		t.Error("a cluster without a node is called whole")
	}
	if got := c.MasterOf(t, key); got != heir || got.Do(t, "GET", key) != "v2" {
		t.Errorf("the master is %s, want %s with the value", got.Addr(), heir.Addr())
	}
	t.Logf("a new master after %v", time.Since(start))
	old.Start()
	c.WaitReady(t)
	wantRole(t, old, "slave")
}

func TestStartCluster_TLSAndUsers(t *testing.T) {
	c := StartCluster(t, WithMutualTLS(), WithUser("app", `p "w`))
	wantStrangersOut(t, c.Nodes(), "")
	if cfg := c.Config(); cfg.Username != "app" || !cfg.TLS.Enabled || len(cfg.Cluster.Addresses) != 6 {
		t.Error("Config lacks something")
	}
	client := openSet(t, c.Config())
	for _, key := range []string{"foo", "bar", "k"} {
		setSoon(t, client, key, "v")
		if got := c.MasterOf(t, key).Do(t, "GET", key); got != "v" {
			t.Errorf("the master of %s holds %v", key, got)
		}
	}
	to := otherMaster(t, c, c.MasterOf(t, "foo"))
	c.MoveSlot(t, c.Slot("foo"), to)
	if got := to.Do(t, "GET", "foo"); got != "v" {
		t.Errorf("after the move: %v", got)
	}
	setSoon(t, client, "foo", "new")
	c.Failover(t, c.ReplicaOf(t, "foo"))
	if got := c.MasterOf(t, "foo").Do(t, "GET", "foo"); got != "new" {
		t.Errorf("after the failover: %v", got)
	}
}

func TestCluster_ProxiesAreInTheWay(t *testing.T) {
	CheckLeaks(t)
	c := StartCluster(t, WithPassword("pw"))
	wantStrangersOut(t, c.Nodes(), "-NOAUTH")
	cfg, proxies := c.Proxied(t)
	if len(proxies) != 6 {
		t.Fatalf("%d proxies", len(proxies))
	}
	client := openSet(t, cfg)
	for _, key := range []string{"foo", "bar", "k"} {
		setSoon(t, client, key, "v")
		if proxies[c.MasterOf(t, key).Addr()].Conns() == 0 {
			t.Errorf("the client reached the master of %s by another way", key)
		}
	}
	dark := c.MasterOf(t, "foo")
	proxies[dark.Addr()].BlackHole(true)
	if err := set(t, client, "foo", "lost"); err == nil {
		t.Error("a write passed the black hole")
	}
	if got := dark.Do(t, "GET", "foo"); got != "v" {
		t.Errorf("its master holds %v", got)
	}
	if err := set(t, client, "bar", "new"); err != nil {
		t.Errorf("another master: %v", err)
	}
	proxies[dark.Addr()].BlackHole(false)
	setSoon(t, client, "foo", "back")
	to := otherMaster(t, c, dark)
	c.MoveSlot(t, c.Slot("foo"), to)
	setSoon(t, client, "foo", "moved")
	if got := to.Do(t, "GET", "foo"); got != "moved" {
		t.Errorf("after the move: %v", got)
	}
}

func TestStartCluster_LeavesNothingBehind(t *testing.T) {
	CheckLeaks(t)
	var all []*Server
	var were []int
	t.Run("inner", func(t *testing.T) {
		c := StartCluster(t)
		all = c.Nodes()
		were = pids(t, all)
		all[0].Pause()
		all[1].Kill()
		all[4].Pause()
	})
	wantGone(t, all, were)
}
