package madcrow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func startCluster(t *testing.T, opts ...madcrowtest.Option) (*madcrowtest.Cluster, *madcrow.Redis) {
	t.Helper()
	c := madcrowtest.StartCluster(t, opts...)
	r := open(t, c.Config())
	await(t, r, madcrow.StateUp, 10*time.Second)
	return c, r
}

func TestCluster_EveryWay(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts []madcrowtest.Option
	}{
		{"plain", nil},
		{"password", []madcrowtest.Option{madcrowtest.WithPassword("pw")}},
		{"TLS", []madcrowtest.Option{madcrowtest.WithTLS(), madcrowtest.WithPassword("pw")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			madcrowtest.CheckLeaks(t)
			_, r := startCluster(t, tc.opts...)
			exerciseAll(t, r)
			st := r.Status()
			if st.Mode != "cluster" || len(st.Nodes) != 3 || st.SlotsCovered != 16384 || !st.Nodes[0].Available {
				t.Errorf("status %+v", st)
			}
			// Keys of all nodes, in one pipeline, each with its own reply.
			const n = 300
			cmds := make([]command, n)
			for i := range cmds {
				cmds[i] = r.B().Set().Key(fmt.Sprint("k", i)).Value(fmt.Sprint("v", i)).Build()
			}
			if _, err := r.DoMulti(t.Context(), cmds...); err != nil {
				t.Fatal(err)
			}
			cmds = make([]command, n)
			for i := range cmds {
				cmds[i] = r.B().Get().Key(fmt.Sprint("k", i)).Build()
			}
			results, err := r.DoMulti(t.Context(), cmds...)
			if err != nil {
				t.Fatal(err)
			}
			for i := range results {
				if v, _, _ := results[i].Text(); v != fmt.Sprint("v", i) {
					t.Fatalf("k%d is %q", i, v)
				}
			}
			c := r.Client()
			if v, err := c.Do(t.Context(), c.B().Get().Key("k7").Build()).ToString(); v != "v7" || err != nil {
				t.Errorf("Client: %q, %v", v, err)
			}
			err = r.Do(t.Context(), r.B().Mget().Key("k1", "k2").Build()).Err()
			wantError(t, err, madcrow.KindServer, madcrow.ErrServer, madcrow.OutcomeNotApplied, "CROSSSLOT")
		})
	}
}

// A slot moves while it is written and read: redirections are followed, and
// no caller sees them.
func TestCluster_SlotsMoveUnderLoad(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	c, r := startCluster(t)
	w := startWriters(r)
	moves := 0
	for end := time.Now().Add(testkit.Length(1500*time.Millisecond, 10*time.Second)); time.Now().Before(end); moves++ {
		key := fmt.Sprintf("w%d-1", moves%40)
		from := c.MasterOf(t, key)
		for _, n := range c.Nodes() {
			if n != from && isMaster(t, n) {
				c.MoveSlot(t, c.Slot(key), n)
				break
			}
		}
	}
	w.end(t, r)
	w.kinds.Range(func(k, v any) bool {
		t.Errorf("writes failed with %v while %d slots moved", k, moves)
		return true
	})
	t.Logf("%d slots moved", moves)
}

// keyElsewhere returns a key that another master serves.
func keyElsewhere(t *testing.T, c *madcrowtest.Cluster, not *madcrowtest.Server) string {
	t.Helper()
	for i := 0; ; i++ {
		if key := fmt.Sprint("other", i); c.MasterOf(t, key) != not {
			return key
		}
	}
}

func isMaster(t *testing.T, s *madcrowtest.Server) bool {
	list, _ := s.Do(t, "ROLE").([]any)
	return len(list) > 0 && list[0] == "master"
}

func TestChaosCluster_MasterKilled(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	c, r := startCluster(t)
	dead := c.MasterOf(t, "foo")
	other := keyElsewhere(t, c, dead)
	mustSet(t, r, "foo", "1")
	mustSet(t, r, other, "1")
	dead.Kill()
	start := time.Now()
	var wg sync.WaitGroup
	back := make(chan struct{})
	wg.Go(func() { // the other nodes are unharmed
		for {
			select {
			case <-back:
				return
			default:
			}
			if err := r.Do(t.Context(), set(r, other, "2")).Err(); err != nil {
				t.Errorf("a key of another node: %v", err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	fast := 0
	for {
		before := time.Now()
		err := r.Do(t.Context(), set(r, "foo", "2")).Err()
		if d := time.Since(before); d > 500*time.Millisecond+testkit.Slack(50*time.Millisecond) {
			t.Errorf("a call took %v", d)
		} else if d < time.Millisecond {
			fast++
		}
		if err == nil {
			break
		}
		if !errors.Is(err, madcrow.ErrUnavailable) && !errors.Is(err, madcrow.ErrTimeout) {
			t.Errorf("unexpected: %v", err)
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("still: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(start)
	close(back)
	wg.Wait()
	t.Logf("its slots were written again after %v (cluster-node-timeout 2 s); %d calls failed in under 1 ms", took, fast)
	if took > 2*time.Second+testkit.Slack(3*time.Second) {
		t.Errorf("its slots came back after %v, want node timeout + 3 s", took)
	}
	await(t, r, madcrow.StateUp, 5*time.Second)
}

func TestChaosCluster_AllGoneAndBack(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	c, r := startCluster(t)
	for _, n := range c.Nodes() {
		n.Pause()
	}
	start := time.Now()
	err := r.Do(t.Context(), get(r, "a")).Err()
	if d := time.Since(start); d > 500*time.Millisecond+testkit.Slack(50*time.Millisecond) || err == nil {
		t.Errorf("a call to a frozen cluster: %v after %v", err, d)
	}
	for _, n := range c.Nodes() {
		n.Resume()
	}
	c.WaitReady(t)
	await(t, r, madcrow.StateUp, 10*time.Second)
	mustSet(t, r, "a", "1")
}

func TestCluster_StandaloneServerIsNamed(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := madcrow.Config{Cluster: madcrow.Cluster{Enabled: true, Addresses: []string{s.Addr()}}, Require: true}
	start := time.Now()
	_, err := madcrow.Open(t.Context(), cfg)
	wantError(t, err, madcrow.KindConfig, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, "REDIS_USE_CLUSTERS")
	if d := time.Since(start); d > testkit.Slack(time.Second) {
		t.Errorf("Open took %v", d)
	}
}

func TestCluster_UncoveredSlotIsAnErrorOfItsOwn(t *testing.T) {
	c, r := startCluster(t)
	slot := c.Slot("foo")
	for _, n := range c.Nodes() {
		if isMaster(t, n) {
			n.Do(t, "CLUSTER", "DELSLOTS", fmt.Sprint(slot))
		}
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if err := r.Do(t.Context(), get(r, "foo")).Err(); err != nil {
			wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied)
			mustSet(t, r, "bar", "1") // the others are unharmed
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a key of a slot without a node was served")
}

func TestCluster_PubSubAndTransactions(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	c, r := startCluster(t)
	ops := []string{"SUBSCRIBE"}
	if !madcrowtest.OlderThan(t, "7.0") {
		ops = append(ops, "SSUBSCRIBE")
	}
	for _, op := range ops {
		got := make(chan string, 1)
		ready := make(chan struct{})
		over := make(chan error, 1)
		var once sync.Once
		of := news
		if op == "SSUBSCRIBE" {
			of = madcrow.Subscription{Sharded: []string{"news"}}
		}
		go func() {
			over <- r.Subscribe(t.Context(), of, madcrow.Handler{
				OnMessage:    func(m madcrow.PubSubMessage) { got <- m.Payload },
				OnSubscribed: func(string) { once.Do(func() { close(ready) }) },
			})
		}()
		select {
		case <-ready:
		case err := <-over:
			t.Fatalf("%s: %v", op, err)
		}
		publish := r.B().Publish().Channel("news").Message(op).Build()
		if op == "SSUBSCRIBE" {
			publish = r.B().Spublish().Channel("news").Message(op).Build()
		}
		if err := r.Do(t.Context(), publish).Err(); err != nil {
			t.Error(err)
		}
		select {
		case m := <-got:
			if m != op {
				t.Errorf("got %q", m)
			}
		case <-time.After(3 * time.Second):
			t.Errorf("%s: nothing came", op)
		}
	}
	// A transaction follows its slot.
	for _, n := range c.Nodes() {
		if n != c.MasterOf(t, "counter") && isMaster(t, n) {
			c.MoveSlot(t, c.Slot("counter"), n)
			break
		}
	}
	msgs, err := r.Tx(t.Context(), []string{"counter"}, func(tx *madcrow.Tx) error {
		tx.Queue(incr(tx, "counter"))
		return nil
	})
	if err != nil || len(msgs) != 1 {
		t.Errorf("Tx after its slot moved: %v, %v", msgs, err)
	}
	if _, err := r.DoMulti(t.Context(), r.B().Multi().Build(), r.B().Incr().Key("counter").Build(), r.B().Exec().Build()); err != nil {
		t.Errorf("MULTI and EXEC in one pipeline: %v", err)
	}
}

// With cluster-require-full-coverage a cluster that lost a shard refuses all.
func TestChaosCluster_ClusterDown(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	c, r := startCluster(t, madcrowtest.WithArgs("--cluster-require-full-coverage", "yes"))
	master, replica := c.MasterOf(t, "foo"), c.ReplicaOf(t, "foo")
	other := keyElsewhere(t, c, master)
	replica.Kill()
	master.Kill()
	var err error
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		start := time.Now()
		err = r.Do(t.Context(), set(r, other, "1")).Err()
		if d := time.Since(start); d > 500*time.Millisecond+testkit.Slack(50*time.Millisecond) {
			t.Errorf("a call took %v", d)
		}
		if err != nil && strings.Contains(err.Error(), "CLUSTERDOWN") {
			break
		}
	}
	wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, "CLUSTERDOWN")
	master.Start()
	for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		err = r.Do(t.Context(), set(r, other, "1")).Err()
	}
	if err != nil {
		t.Errorf("after its master was back: %v", err)
	}
}

// One frozen node holds up no other call.
func TestChaosCluster_FrozenNode(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	c, r := startCluster(t)
	frozen := c.MasterOf(t, "foo")
	other := keyElsewhere(t, c, frozen)
	mustSet(t, r, other, "1")
	frozen.Pause()
	start := time.Now()
	var slowest time.Duration
	var back time.Duration
	for time.Since(start) < testkit.Length(6*time.Second, 12*time.Second) && back == 0 {
		before := time.Now()
		if err := r.Do(t.Context(), set(r, other, "2")).Err(); err != nil {
			t.Errorf("a key of another node: %v", err)
		}
		slowest = max(slowest, time.Since(before))
		before = time.Now()
		if err := r.Do(t.Context(), set(r, "foo", "2")).Err(); err == nil {
			back = time.Since(start)
		}
		if d := time.Since(before); d > 500*time.Millisecond+testkit.Slack(50*time.Millisecond) {
			t.Errorf("a call to the frozen node took %v", d)
		}
		time.Sleep(time.Millisecond)
	}
	t.Logf("slowest call to another node %v; its slots were written again after %v", slowest, back)
	if slowest > testkit.Slack(100*time.Millisecond) {
		t.Errorf("a call to a healthy node took %v", slowest)
	}
	if back == 0 {
		t.Error("the slots of the frozen node did not come back")
	}
	frozen.Resume()
}

// The bound of connections holds for each node, whatever finds the nodes.
func TestChaos_ConnectionsOfEachNodeStayWithinTheirBound(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	set, cluster := madcrowtest.StartSentinel(t), madcrowtest.StartCluster(t)
	for _, tc := range []struct {
		name  string
		cfg   madcrow.Config
		nodes []*madcrowtest.Server
	}{{"Sentinel", set.Config(), set.Nodes()}, {"Cluster", cluster.Config(), cluster.Nodes()}} {
		t.Run(tc.name, func(t *testing.T) {
			const bound = 6
			tc.cfg.MaxConnections, tc.cfg.ClientName = bound, "bounded"
			r := open(t, tc.cfg)
			await(t, r, madcrow.StateUp, 10*time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), testkit.Length(time.Second, 4*time.Second))
			defer cancel()
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() { everythingAtOnce(ctx, r, i) })
			}
			most := 0
			for ctx.Err() == nil {
				for _, n := range tc.nodes {
					list, _ := n.Do(t, "CLIENT", "LIST").(string)
					most = max(most, strings.Count(list, "name=bounded"))
				}
				time.Sleep(5 * time.Millisecond)
			}
			wg.Wait()
			t.Logf("at most %d connections of %d to one node", most, bound)
			if most > bound || most < 2 {
				t.Errorf("saw %d connections to one node, want 2 to %d", most, bound)
			}
		})
	}
}

// TestCluster_TransactionsOfASlotHalfMoved: TRYAGAIN inside a transaction says
// that nothing of it was applied, and that a moment later it may be.
func TestCluster_TransactionsOfASlotHalfMoved(t *testing.T) {
	c, r := startCluster(t)
	from := c.MasterOf(t, "{half}")
	to, slot := otherMaster(t, c, "{half}"), c.Slot("{half}")
	from.Do(t, "MSET", "{half}1", "1", "{half}2", "2")
	mset := func(b builder) command {
		return b.Mset().KeyValue().KeyValue("{half}1", "3").KeyValue("{half}2", "4").Build()
	}
	for name, call := range map[string]func() error{
		"DoMulti": func() error {
			_, err := r.DoMulti(t.Context(), r.B().Multi().Build(), mset(r.B()), r.B().Exec().Build())
			return err
		},
		"Tx": func() error {
			_, err := r.Tx(t.Context(), []string{"{half}2"}, func(tx *madcrow.Tx) error { tx.Queue(mset(tx.B())); return nil })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.BeginMove(t, slot, to)
			c.MoveKeys(t, to, "{half}1")
			err := call()
			wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, "TRYAGAIN")
			time.AfterFunc(30*time.Millisecond, func() { c.MoveKeys(t, to, "{half}2") })
			if err := call(); err != nil {
				t.Errorf("a move of 30 ms was not waited out: %v", err)
			}
			c.FinishMove(t, slot, to)
			from, to = to, from
		})
	}
}
