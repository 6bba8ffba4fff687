// Package topology knows which node serves a slot: the one node, which moves with
// the master where Sentinels name it, or the nodes of a cluster by its map; and
// the replicas that serve reads.
package topology

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
)

// Config is what a topology needs to know.
type Config struct {
	Node         node.Config     // of the node, or of each node of a cluster
	Seeds        []string        // addresses of nodes of a cluster; nil: there is one node
	MapClient    conn.RESPConfig // asks the nodes of a cluster for its map
	Sentinel     *SentinelConfig
	ReadReplicas bool
	Changed      func() // is called when Status would show something else
}

// Topology knows which node serves a slot. The node is one, which moves with
// the master where Sentinels name it, or there is a cluster of them.
type Topology struct {
	cfg     Config
	log     *slog.Logger
	life    context.Context // ends with Close
	Builder rueidis.Builder
	workers sync.WaitGroup

	node      *node.Node // nil with a cluster
	discovery *discovery // nil without Sentinels
	cluster   *cluster   // nil without one
	replicas  *replicas  // serve reads with Replica; nil when they are not wanted
}

// New makes the topology of a configuration. It connects after Start. life ends
// with Close.
func New(life context.Context, cfg Config) (t *Topology, err error) {
	t = &Topology{cfg: cfg, log: cfg.Node.Conn.Log, life: life}
	if cfg.ReadReplicas && (cfg.Sentinel != nil || cfg.Seeds != nil) {
		t.replicas = newReplicas(t)
	}
	if cfg.Seeds != nil {
		t.cluster = newCluster(t)
		t.Builder, err = anyBuilder()
		return t, err
	}
	one := cfg.Node
	one.Changed = cfg.Changed
	if cfg.Sentinel != nil {
		t.discovery = &discovery{finder: newFinder(*cfg.Sentinel), changed: cfg.Changed, follower: t.replicas}
		one.Discovery = t.discovery
	}
	if t.node, err = node.New(life, one); err != nil {
		return nil, err
	}
	if t.discovery != nil {
		t.discovery.node = t.node
	}
	t.Builder = t.node.Builder
	return t, nil
}

// Start begins to connect.
func (t *Topology) Start() {
	if t.cluster != nil {
		t.workers.Go(func() { t.cluster.run(t.life) })
		return
	}
	t.workers.Go(func() { t.node.Run(t.life) })
	if d := t.discovery; d != nil {
		t.workers.Go(func() { d.watch(t.life, func() { d.checkMaster(t.life) }) })
	}
}

// Clustered reports whether there is a cluster.
func (t *Topology) Clustered() bool { return t.cluster != nil }

// Close ends every node, and waits for all that runs.
func (t *Topology) Close() {
	t.closeNodes()
	t.workers.Wait()
}

// Pick returns the node for a slot, as the Builder counts them.
func (t *Topology) Pick(ctx context.Context, slot uint16) (*node.Node, *fault.Error) {
	if t.cluster == nil {
		return t.node, nil
	}
	return t.cluster.pick(ctx, slot)
}

// Follow says where a redirected call goes next.
func (t *Topology) Follow(from *node.Node, err error) (Redirect, bool) {
	if t.cluster == nil {
		return Redirect{}, false
	}
	return t.cluster.follow(from, err)
}

// Availability returns that of the node, or what those of all nodes amount to.
func (t *Topology) Availability() (availability.State, *fault.Error) {
	if t.cluster == nil {
		return t.node.Availability.Current()
	}
	return t.cluster.summary()
}

// Each calls fn for every node.
func (t *Topology) Each(fn func(*node.Node)) {
	if t.cluster == nil {
		fn(t.node)
		return
	}
	t.cluster.each(func(n *clusterNode) { fn(n.Node) })
}

// Restriction is what a node refuses that is connected, or nil.
func (t *Topology) Restriction() (why *fault.Error) {
	t.Each(func(n *node.Node) {
		if why == nil {
			why = n.Restriction()
		}
	})
	return why
}

// Inflight is how many calls are under way on all nodes.
func (t *Topology) Inflight() (sum int32) {
	t.Each(func(n *node.Node) { sum += n.Inflight() })
	return sum
}

// Refuse refuses all calls from now on.
func (t *Topology) Refuse(why *fault.Error) {
	if c := t.cluster; c != nil {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.availability.Set(availability.Closed, why)
	}
	t.Each(func(n *node.Node) { n.Availability.Set(availability.Closed, why) })
}

func (t *Topology) closeNodes() {
	if t.replicas != nil {
		t.replicas.close()
	}
	if t.cluster == nil {
		t.node.Close()
		return
	}
	t.cluster.each(func(n *clusterNode) { n.end() })
}

// ProofKey is a key of the library that lies on the node, or "".
func (t *Topology) ProofKey(n *node.Node) string {
	for i := range 1 << 16 {
		if key := t.cfg.Node.Conn.KeyPrefix + "m1:tracking:{" + strconv.Itoa(i) + "}" + rand.Text(); t.Serves(n, key) {
			return key
		}
	}
	return ""
}

// Serves says whether the key is still the node's.
func (t *Topology) Serves(n *node.Node, key string) bool {
	return t.cluster == nil || t.cluster.slots[t.SlotOf(key)%node.SlotCount].Load() == n
}

// SlotOf is the slot of a key; 0 without a cluster.
func (t *Topology) SlotOf(key string) uint16 {
	if t.cluster == nil {
		return 0
	}
	cmd := t.Builder.Get().Key(key).Build()
	return cmd.Slot()
}

// Lacks says what a server or a cluster lacks that serves all the same.
func (t *Topology) Lacks() *fault.Error {
	c := t.cluster
	if c == nil {
		if e := t.node.Misfit.Load(); e != nil {
			return e
		}
		return nil
	}
	if c.healthy() {
		return nil
	}
	if n := c.covered.Load(); n != node.SlotCount {
		return &fault.Error{Op: "connect", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fmt.Errorf("%d of 16384 slots are served by no node", node.SlotCount-n)}
	}
	for _, n := range *c.masters.Load() {
		switch s, why := n.Availability.Current(); {
		case s == availability.Up:
		case why != nil:
			return why
		default:
			return &fault.Error{Op: "connect", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fmt.Errorf("%s: %w", n.Addr(), fault.ErrNotConnected)}
		}
	}
	return nil
}

// anyBuilder returns a Builder that belongs to no connection.
func anyBuilder() (rueidis.Builder, error) {
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"none"}, ForceSingleClient: true, DisableCache: true,
		DialCtxFn: func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
			return nil, fault.ErrNotOpen
		},
	})
	if c == nil {
		return rueidis.Builder{}, err
	}
	defer c.Close()
	return c.B(), nil
}

// NodeState is what is known of one node.
type NodeState struct {
	Address     string
	Up          bool
	Err         *fault.Error
	RTT         time.Duration
	Connections int
	Info        *node.ServerInfo // nil before INFO was read
}

func stateOf(n *node.Node) NodeState {
	state, why := n.Availability.Current()
	return NodeState{
		Address: n.Addr(), Up: state == availability.Up, Err: why,
		RTT: time.Duration(n.RTT.Load()), Connections: n.Conns.Size(), Info: n.Info.Load(),
	}
}

// State is what is known of all nodes. Nothing is asked for it.
type State struct {
	Connections  int
	ReadReplicas int            // how many serve
	Nodes        []NodeState    // the one node, or the masters of a cluster by address
	Master       string         // that takes writes; empty with a cluster, and before it is known
	SlotsCovered int            // of a cluster
	Sentinels    *SentinelState // nil without Sentinels
}

// Describe returns what is known of all nodes.
func (t *Topology) Describe() (s State) {
	t.Each(func(n *node.Node) { s.Connections += n.Conns.Size() })
	if t.replicas != nil {
		s.ReadReplicas = t.replicas.count()
	}
	if t.cluster != nil {
		s.SlotsCovered, s.Nodes = t.cluster.describe()
		return s
	}
	s.Nodes = []NodeState{stateOf(t.node)}
	if t.discovery == nil || t.discovery.located.Load() {
		s.Master = t.node.Addr()
	}
	if t.discovery != nil {
		s.Sentinels = t.discovery.seen.Load()
	}
	return s
}

// ReadOnly reports whether a node takes no writes.
func (t *Topology) ReadOnly() (yes bool) {
	t.Each(func(n *node.Node) { yes = yes || n.ReadOnly.Load() })
	return yes
}

// Placeholder returns any node, or one that is no server, to classify an error
// that no node gave.
func (t *Topology) Placeholder() *node.Node {
	if t.cluster == nil {
		return t.node
	}
	if list := *t.cluster.masters.Load(); len(list) > 0 {
		return list[0]
	}
	return node.Placeholder(t.cfg.Node)
}

// One returns the node; nil with a cluster.
func (t *Topology) One() *node.Node { return t.node }

// HasReplicas reports whether replicas serve reads.
func (t *Topology) HasReplicas() bool { return t.replicas != nil }

// ReplicaOf returns the replica of a master, if one serves now.
func (t *Topology) ReplicaOf(master *node.Node) *node.Node {
	return t.replicas.serving(master.Addr())
}
