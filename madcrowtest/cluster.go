package madcrowtest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
)

const (
	clusterMasters = 3
	clusterSlots   = 16384
)

// Cluster is a Redis Cluster of three masters with one replica each, started
// by [StartCluster]. Its methods may be called from any goroutine, those that
// take a test from the test's own only.
type Cluster struct {
	nodes []*Server
}

// StartCluster starts a Redis Cluster of six nodes without persistence, three
// masters and a replica of each, which hold a node for dead after 2 seconds
// without an answer (cluster-node-timeout) and keep serving the slots that
// are left (cluster-require-full-coverage no). It returns once all nodes serve
// and the replicas are up to date, after about 2 seconds, and fails the test
// after 30. All are killed when the test ends.
//
// WithUnixSocket, WithPort, WithExpiredTLS and WithSentinelPassword cannot be
// had.
func StartCluster(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	set := newSetSettings(t, opts)
	if set.sentinelPW != "" {
		t.Fatal("madcrowtest: WithSentinelPassword is for StartSentinel: there are no Sentinels here")
	}
	var tls *tlsFiles
	if set.tls {
		tls = newTLSFiles(t, t.TempDir(), set.certExpiry)
	}
	c := &Cluster{nodes: newNodes(t, 2*clusterMasters, dataRole, set, tls)}
	if err := c.start(); err != nil {
		t.Fatalf("madcrowtest: StartCluster: %v", err)
	}
	return c
}

func (c *Cluster) start() error {
	for _, n := range c.nodes {
		n.lines = func() [][]string { return clusterLines(n) }
	}
	if err := startAll(busOffset, c.nodes...); err != nil {
		return err
	}
	// The slots come first: the nodes wait 2 seconds after they were without.
	for i, n := range c.nodes {
		commands := [][]string{{"CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i + 1)}}
		if i < clusterMasters {
			add := []string{"CLUSTER", "ADDSLOTS"} // ADDSLOTSRANGE came with Redis 7.0
			for slot := i * clusterSlots / clusterMasters; slot < (i+1)*clusterSlots/clusterMasters; slot++ {
				add = append(add, strconv.Itoa(slot))
			}
			commands = append(commands, add)
		}
		// Each meets each, so that they need not wait for gossip.
		for _, other := range c.nodes[:i] {
			commands = append(commands, []string{"CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(other.port)})
		}
		if err := n.askAll(commands...); err != nil {
			return err
		}
	}
	if err := await(settleWithin, c.acquainted); err != nil {
		return err
	}
	for i, n := range c.nodes[clusterMasters:] {
		id, err := c.nodes[i].clusterID()
		if err != nil {
			return err
		}
		if err := n.askAll([]string{"CLUSTER", "REPLICATE", id}); err != nil {
			return err
		}
	}
	return await(settleWithin, c.ready)
}

func clusterLines(n *Server) [][]string {
	lines := append(n.tlsLines(), []string{"cluster-enabled", "yes"}, []string{"cluster-config-file", "nodes.conf"},
		[]string{"cluster-node-timeout", "2000"}, []string{"cluster-require-full-coverage", "no"},
		[]string{"repl-diskless-sync", "no"}) // as in dataLines
	if n.tls != nil {
		lines = append(lines, []string{"tls-cluster", "yes"})
	}
	if n.set.password != "" {
		lines = append(lines, []string{"masterauth", n.set.password})
	}
	return lines
}

// askAll sends commands whose replies are of no interest, unless they fail.
func (s *Server) askAll(commands ...[]string) error {
	replies, err := s.exchange(doTimeout, commands...)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Addr(), err)
	}
	for i, reply := range replies {
		if refused, ok := reply.(error); ok {
			return fmt.Errorf("%s: %s: %w", s.Addr(), strings.Join(commands[i][:min(len(commands[i]), 4)], " "), refused)
		}
	}
	return nil
}

func (s *Server) clusterID() (string, error) {
	reply, err := s.ask("CLUSTER", "MYID")
	id, _ := reply.(string)
	return id, err
}

// acquainted fails unless every node knows all others.
func (c *Cluster) acquainted() error {
	for _, n := range c.nodes {
		view, err := n.view()
		if err != nil {
			return err
		}
		known := 0
		for _, v := range view {
			if v.connected && !v.flag("handshake") && !v.flag("noaddr") {
				known++
			}
		}
		if known != len(c.nodes) {
			return fmt.Errorf("%s knows %d nodes, not %d", n.Addr(), known, len(c.nodes))
		}
	}
	return nil
}

// ready fails unless every node serves, sees the same roles and slots, all in
// good health, and every replica is up to date.
func (c *Cluster) ready() error {
	var first string
	for _, n := range c.nodes {
		replies, err := n.exchange(askTimeout, []string{"CLUSTER", "INFO"}, []string{"CLUSTER", "NODES"})
		if err != nil {
			return fmt.Errorf("%s: %w", n.Addr(), err)
		}
		if info, _ := replies[0].(string); !strings.Contains(info, "cluster_state:ok\r") ||
			!strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d\r", clusterSlots)) {
			return fmt.Errorf("%s: %q", n.Addr(), info)
		}
		view := parseView(replies[1])
		if seen := summary(view); first == "" {
			first = seen
		} else if first != seen {
			return fmt.Errorf("%s sees\n%sothers see\n%s", n.Addr(), seen, first)
		}
	}
	return c.replicated()
}

func (c *Cluster) replicated() error {
	view, err := c.nodes[0].view()
	if err != nil {
		return err
	}
	masters := map[string]*Server{}
	for _, v := range view {
		if v.flag("fail") || v.flag("fail?") {
			return fmt.Errorf("a node on port %d is away", v.port)
		}
		if v.flag("master") && len(v.slots) > 0 {
			masters[v.id] = c.byPort(v.port)
		}
	}
	replicas := map[string]int{}
	for _, v := range view {
		if master := masters[v.master]; master != nil {
			replicas[v.master]++
			if err := c.byPort(v.port).follows(master); err != nil {
				return err
			}
		}
	}
	if len(masters)+sum(replicas) != len(c.nodes) {
		return fmt.Errorf("%d masters with slots and %d replicas", len(masters), sum(replicas))
	}
	for id, master := range masters {
		if err := master.hasReplicas(replicas[id]); err != nil {
			return err
		}
	}
	return nil
}

func sum(m map[string]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}

func (c *Cluster) byPort(port int) *Server {
	for _, n := range c.nodes {
		if n.port == port {
			return n
		}
	}
	return nil
}

// WaitReady waits until the cluster is whole again: all six nodes serve and
// agree, and every replica is up to date. The test ends after 30 seconds.
func (c *Cluster) WaitReady(t testing.TB) {
	t.Helper()
	if err := await(settleWithin, c.ready); err != nil {
		t.Fatalf("madcrowtest: WaitReady: %v", err)
	}
}

// Nodes returns all nodes. The first three were the masters at the start, the
// others their replicas in the same order.
func (c *Cluster) Nodes() []*Server { return slices.Clone(c.nodes) }

// Config returns what madcrow.Open needs: all nodes as seeds, and the
// password, user and TLS of the options. All else has its default.
func (c *Cluster) Config() madcrow.Config {
	cfg := c.nodes[0].Config()
	cfg.Host, cfg.Port = "", 0
	cfg.Cluster = madcrow.Cluster{Enabled: true, Addresses: addresses(c.nodes)}
	return cfg
}

// MasterOf returns the master that serves the key's slot. Where that one died
// or is frozen, it waits until another has taken over; the test ends after 30
// seconds.
func (c *Cluster) MasterOf(t testing.TB, key string) *Server {
	t.Helper()
	n, _, err := c.owner(c.Slot(key))
	if err != nil {
		t.Fatalf("madcrowtest: MasterOf: %v", err)
	}
	return n
}

// ReplicaOf returns a replica of the master that serves the key's slot. It
// waits for one up to 30 seconds, after which the test ends.
func (c *Cluster) ReplicaOf(t testing.TB, key string) *Server {
	t.Helper()
	var found *Server
	err := await(settleWithin, func() error {
		_, id, err := c.ownerNow(c.Slot(key))
		if err != nil {
			return err
		}
		for _, n := range serving(c.nodes) {
			if self, err := n.self(); err == nil && self.master == id {
				found = n
				return nil
			}
		}
		return errors.New("no replica runs")
	})
	if err != nil {
		t.Fatalf("madcrowtest: ReplicaOf: %v", err)
	}
	return found
}

// owner waits for the master that serves the slot.
func (c *Cluster) owner(slot int) (n *Server, id string, err error) {
	err = await(settleWithin, func() (err error) {
		n, id, err = c.ownerNow(slot)
		return err
	})
	return n, id, err
}

// ownerNow asks all nodes that run whether the slot is theirs. Of two that
// say so, the one of the higher epoch is right.
func (c *Cluster) ownerNow(slot int) (owner *Server, id string, err error) {
	var newest int64 = -1
	for _, n := range serving(c.nodes) {
		self, err := n.self()
		if err == nil && self.flag("master") && self.has(slot) && self.epoch > newest {
			owner, id, newest = n, self.id, self.epoch
		}
	}
	if owner == nil {
		err = fmt.Errorf("no master that runs has slot %d", slot)
	}
	return owner, id, err
}

// Failover makes a replica the master of its shard, in order and without loss
// (CLUSTER FAILOVER), or by force where its master does not run (CLUSTER
// FAILOVER FORCE). It returns once every node that runs has seen it, or ends
// the test after 30 seconds.
func (c *Cluster) Failover(t testing.TB, replica *Server) {
	t.Helper()
	if err := c.failover(replica); err != nil {
		t.Fatalf("madcrowtest: Failover: %v", err)
	}
}

func (c *Cluster) failover(replica *Server) error {
	self, err := replica.self()
	if err != nil {
		return err
	}
	view, err := replica.view()
	if err != nil {
		return err
	}
	command := []string{"CLUSTER", "FAILOVER"}
	for _, v := range view {
		if v.id == self.master && !c.byPort(v.port).serving() {
			command = append(command, "FORCE")
		}
	}
	// A replica that has just become one may refuse for a moment.
	if err := await(settleWithin, func() error { return replica.askAll(command) }); err != nil {
		return err
	}
	return await(settleWithin, func() error {
		for _, n := range serving(c.nodes) {
			view, err := n.view()
			if err != nil {
				return err
			}
			for _, v := range view {
				if v.id == self.id && (!v.flag("master") || len(v.slots) == 0) {
					return fmt.Errorf("%s does not see %s as a master with slots", n.Addr(), replica.Addr())
				}
			}
		}
		return nil
	})
}
