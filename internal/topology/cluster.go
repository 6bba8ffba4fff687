package topology

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/logonce"
	"github.com/madcrow-go/madcrow/internal/node"
)

const (
	Keyless = 1 << 15 // what the Builder calls the slot of a command without a key
	// mapEvery is how often the map of a healthy cluster is read, mapSoon that
	// of one with a node away or a slot uncovered, mapLeast the least pause.
	mapEvery = 15 * time.Second
	mapSoon  = 250 * time.Millisecond
	mapLeast = 200 * time.Millisecond
	// mapReplicas is how often it is read while a wanted replica is missing: a
	// new one is not in the map before it has data.
	mapReplicas = time.Second
	// mapTimeout is how long one node may take to tell the map.
	mapTimeout = 250 * time.Millisecond
	// MaxRedirects bounds the redirects of one call.
	MaxRedirects = 5
	// retireAfter is how long a node that left the map may finish its calls.
	retireAfter = 5 * time.Second
)

var errNotCluster = errors.New("the server is no cluster: set REDIS_USE_CLUSTERS=false, or name the nodes of a cluster")

// cluster is a map from slots to nodes. Each node has an availability and
// a prober of its own, so that one that is away harms no other.
type cluster struct {
	t            *Topology
	respClient   *conn.RESPClient
	availability *availability.Monitor // of the map: Probing until it was read once
	slots        [node.SlotCount]atomic.Pointer[node.Node]

	mu     sync.Mutex
	nodes  map[string]*clusterNode
	known  []string // addresses to ask, once they were nodes
	closed bool

	masters   atomic.Pointer[[]*node.Node]
	preferred atomic.Pointer[node.Node] // for commands without a key
	covered   atomic.Int32
	moving    movingSlots
	kick      chan struct{}

	lost     logonce.Reasons // why the map cannot be read
	gaps     logonce.Reasons // that slots are served by no node
	unusable logonce.Reasons // why a node cannot be made
}

type clusterNode struct {
	*node.Node
	stop context.CancelFunc
	done chan struct{}
}

func newCluster(t *Topology) *cluster {
	c := &cluster{
		t: t, respClient: conn.NewRESPClient(t.cfg.MapClient), availability: availability.New(), nodes: map[string]*clusterNode{},
		known: slices.Clone(t.cfg.Seeds), kick: make(chan struct{}, 1),
	}
	c.masters.Store(&[]*node.Node{})
	return c
}

// run reads the map, again and again, until ctx ends.
func (c *cluster) run(ctx context.Context) {
	failures := 0 // to read any map: then a node gets more time
	for ill := 0; ctx.Err() == nil; ill++ {
		began := time.Now()
		err := c.refresh(ctx, failures)
		if err != nil {
			failures++
		} else if c.healthy() {
			ill, failures = 0, 0
		}
		switch {
		case err == nil:
			c.availability.Set(availability.Up, nil)
		case c.covered.Load() == 0:
			c.availability.Set(availability.Down, mapError(err))
		}
		c.logMap(ctx, err)
		c.t.cfg.Changed()
		wait := mapEvery
		if err != nil || !c.healthy() {
			wait = mapSoon
			if ill > 8 {
				wait = 2 * mapSoon
			}
		} else if s := c.t.replicas; s != nil && s.lacks(*c.masters.Load()) {
			wait = mapReplicas
		}
		select {
		case <-c.kick:
		case <-time.After(wait):
		case <-ctx.Done():
		}
		select { // the first redirection is followed at once, a flood is not
		case <-time.After(mapLeast - time.Since(began)):
		case <-ctx.Done():
		}
	}
}

// logMap says why the map cannot be read, which slots have no node, and when
// that is over. What each node does, its own prober logs.
func (c *cluster) logMap(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case err == nil:
		if c.lost.Clear() {
			c.t.log.Info("the cluster is found", "nodes", len(*c.masters.Load()))
		}
		if n := node.SlotCount - c.covered.Load(); n == 0 {
			if c.gaps.Clear() {
				c.t.log.Info("every slot of the cluster is served again")
			}
		} else if c.gaps.First(fault.ErrUncovered) {
			c.t.log.Warn("slots of the cluster are served by no node", "slots", n)
		}
	case !c.lost.First(err):
	case c.covered.Load() == 0:
		c.t.log.Warn("redis is not available", "reason", err)
	default:
		c.t.log.Warn("the map of the cluster cannot be read: the last one is used", "reason", err)
	}
}

func (c *cluster) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// changed is called by each node when its availability or its role has changed.
func (c *cluster) changed() {
	c.t.cfg.Changed()
	if !c.healthy() {
		c.wake()
	}
}

func (c *cluster) healthy() bool {
	return c.covered.Load() == node.SlotCount && !slices.ContainsFunc(*c.masters.Load(), func(n *node.Node) bool {
		return !n.Availability.IsUp() || n.ReadOnly.Load()
	})
}

// apply takes over a map that serves covered slots.
func (c *cluster) apply(ranges []slotRange, covered int) error {
	var served [node.SlotCount]bool
	masters := map[string]*node.Node{}
	for _, r := range ranges {
		n := c.ensure(r.addrs[0])
		if n == nil {
			return fault.ErrNotConnected // closed meanwhile, or its TLS files are gone
		}
		masters[r.addrs[0]] = n
		for s := r.from; s <= r.to; s++ {
			served[s] = true
			c.assignSlot(s, n)
		}
	}
	for s := range served {
		if !served[s] {
			c.assignSlot(s, nil)
		}
	}
	c.covered.Store(int32(covered))
	list := make([]*node.Node, 0, len(masters))
	for _, n := range masters {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b *node.Node) int { return strings.Compare(a.Addr(), b.Addr()) }) // one reason at a time, and the same one
	c.masters.Store(&list)
	c.remember(ranges, masters, covered == node.SlotCount)
	if s := c.t.replicas; s != nil {
		s.keep(masters)
		for _, r := range ranges {
			s.follow(r.addrs[1:], r.addrs[0])
		}
	}
	return nil
}

// assignSlot hands a slot to a node, and says whether it had another one, which may
// no longer tell of changes in it.
func (c *cluster) assignSlot(slot int, n *node.Node) bool {
	old := c.slots[slot].Swap(n)
	if old != nil && old != n {
		old.EndTracking()
	}
	return old != n
}

// remember keeps the addresses to ask, and lets go of nodes that serve nothing.
func (c *cluster) remember(ranges []slotRange, masters map[string]*node.Node, full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := slices.Clone(c.t.cfg.Seeds)
	if !full {
		known = c.known // the map may have forgotten some
	}
	for _, r := range ranges {
		for _, a := range r.addrs {
			if !slices.Contains(known, a) {
				known = append(known, a)
			}
		}
	}
	c.known = known
	for addr, n := range c.nodes {
		if masters[addr] == nil {
			delete(c.nodes, addr)
			c.t.workers.Go(func() { n.retire(c.t.life) })
		}
	}
}

// ensure returns the node at addr, and begins to connect to a new one. It is
// nil after Close.
func (c *cluster) ensure(addr string) *node.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.nodes[addr]; n != nil {
		return n.Node
	}
	if c.closed {
		return nil
	}
	life, stop := context.WithCancel(c.t.life)
	cfg := c.t.cfg.Node
	cfg.Address, cfg.Clustered, cfg.Changed = addr, true, c.changed
	n, err := node.New(life, cfg)
	if err != nil {
		stop()
		if reason := fmt.Errorf("%s: %w", addr, err); c.unusable.First(reason) {
			c.t.log.Error("a cluster node cannot be used", "reason", reason)
		}
		return nil
	}
	c.unusable.Clear() // what they are made with is one for all
	cn := &clusterNode{Node: n, stop: stop, done: make(chan struct{})}
	c.nodes[addr] = cn
	go func() {
		defer close(cn.done)
		n.Run(life)
	}()
	return n
}

// retire ends a node that left the map, after its calls.
func (n *clusterNode) retire(life context.Context) {
	for end := time.Now().Add(retireAfter); n.Inflight() != 0 && time.Now().Before(end) && life.Err() == nil; {
		time.Sleep(10 * time.Millisecond)
	}
	n.end()
}

func (n *clusterNode) end() {
	n.Availability.Set(availability.Closed, &fault.Error{Op: "connect", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrMoved})
	n.stop()
	n.Close()
	<-n.done
}

// pick returns the node that serves a slot, or any for a command without key.
func (c *cluster) pick(ctx context.Context, slot uint16) (*node.Node, *fault.Error) {
	if !c.availability.IsUp() {
		if err := c.availability.Wait(ctx); err != nil {
			return nil, err
		}
	}
	if slot == Keyless {
		return c.anyNode()
	}
	if n := c.slots[slot&(node.SlotCount-1)].Load(); n != nil {
		return n, nil
	}
	return nil, &fault.Error{Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrUncovered}
}

// anyNode returns a node that serves, if there is one, and the same as long as it
// does: what one caller publishes keeps its order. Each process has another.
func (c *cluster) anyNode() (*node.Node, *fault.Error) {
	list := *c.masters.Load()
	if n := c.preferred.Load(); n != nil && n.Availability.IsUp() && slices.Contains(list, n) {
		return n, nil
	}
	if len(list) == 0 {
		return nil, &fault.Error{Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrUncovered}
	}
	first := rand.IntN(len(list))
	for i := range list {
		if n := list[(first+i)%len(list)]; n.Availability.IsUp() {
			c.preferred.Store(n)
			return n, nil
		}
	}
	return list[first], nil
}

// each calls fn for each node.
func (c *cluster) each(fn func(*clusterNode)) {
	c.mu.Lock()
	nodes := make([]*clusterNode, 0, len(c.nodes))
	for _, n := range c.nodes {
		nodes = append(nodes, n)
	}
	c.mu.Unlock()
	for _, n := range nodes {
		fn(n)
	}
}

// summary is the availability of the whole: Up while any node serves.
func (c *cluster) summary() (state availability.State, why *fault.Error) {
	state, why = c.availability.Current()
	if state != availability.Up {
		return state, why
	}
	up, probing, down := 0, 0, 0
	for _, n := range *c.masters.Load() {
		switch s, cause := n.Availability.Current(); s {
		case availability.Up:
			up++
		case availability.Probing:
			probing++
		default:
			down++
			why = cause
		}
	}
	switch {
	case up > 0:
		return availability.Up, why
	case probing > 0:
		return availability.Probing, nil
	case why == nil:
		return availability.Down, &fault.Error{Op: "connect", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fault.ErrUncovered}
	}
	return availability.Down, why
}

// describe returns how many slots are served, and the masters by address.
func (c *cluster) describe() (covered int, nodes []NodeState) {
	for _, n := range *c.masters.Load() { // they are in order
		nodes = append(nodes, stateOf(n))
	}
	return int(c.covered.Load()), nodes
}
