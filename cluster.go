package madcrow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/resp"
)

const (
	slotCount = 1 << 14
	keyless   = 1 << 15 // what the Builder calls the slot of a command without a key
	// mapEvery is how often the map of a healthy cluster is read, mapSoon that
	// of one with a node away or a slot uncovered, mapLeast the least pause.
	mapEvery = 15 * time.Second
	mapSoon  = 250 * time.Millisecond
	mapLeast = 20 * time.Millisecond
	// mapReplicas is how often it is read while a wanted replica is missing: a
	// new one is not in the map before it has data.
	mapReplicas = time.Second
	// mapTimeout is how long one node may take to tell the map.
	mapTimeout = 250 * time.Millisecond
	// maxHops bounds the redirections of one call.
	maxHops = 5
	// retireAfter is how long a node that left the map may finish its calls.
	retireAfter = 5 * time.Second
)

var (
	errUncovered  = errors.New("no node of the cluster serves this slot")
	errNotCluster = errors.New("the server is no cluster: set REDIS_USE_CLUSTERS=false, or name the nodes of a cluster")
	errHops       = errors.New("the cluster redirected the call too often")
)

// cluster is a map from slots to nodes. Each node has a gate and a connector of
// its own, so that one that is away harms nobody else.
type cluster struct {
	r     *Redis
	asker *asker
	gate  *gate // of the map: in doubt until it was read once
	slots [slotCount]atomic.Pointer[node]

	mu    sync.Mutex
	nodes map[string]*clusterNode
	known []string // addresses to ask, once they were nodes
	over  bool

	masters atomic.Pointer[[]*node]
	covered atomic.Int32
	kick    chan struct{}
}

type clusterNode struct {
	*node
	stop context.CancelFunc
	done chan struct{}
}

func newCluster(r *Redis) (*cluster, error) {
	cfg := r.cfg
	cfg.Password = cfg.Cluster.Password
	a, err := askerOf(cfg, false)
	c := &cluster{
		r: r, asker: a, gate: newGate(), nodes: map[string]*clusterNode{},
		known: slices.Clone(cfg.Cluster.Addresses), kick: make(chan struct{}, 1),
	}
	c.masters.Store(&[]*node{})
	return c, err
}

// run reads the map, again and again, until ctx ends.
func (c *cluster) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.refresh(ctx)
		switch {
		case err == nil:
			c.gate.settle(gateOpen, nil)
		case c.covered.Load() == 0:
			e := &Error{Op: "connect", Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: err, permanent: errors.Is(err, errNotCluster)}
			c.gate.settle(gateShut, e)
		}
		c.r.observe()
		wait := mapEvery
		if err != nil || !c.healthy() {
			wait = mapSoon
		} else if s := c.r.replicas; s != nil && s.lacks(*c.masters.Load()) {
			wait = mapReplicas
		}
		time.Sleep(mapLeast)
		select {
		case <-c.kick:
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

func (c *cluster) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// changed is told by each node that its gate or role changed.
func (c *cluster) changed() {
	c.r.observe()
	if !c.healthy() {
		c.wake()
	}
}

func (c *cluster) healthy() bool {
	return c.covered.Load() == slotCount && !slices.ContainsFunc(*c.masters.Load(), func(n *node) bool {
		return n.gate.state.Load() != gateOpen || n.readOnly.Load()
	})
}

// refresh asks one node after the other for the map, the healthy ones first.
func (c *cluster) refresh(ctx context.Context) error {
	var failed error
	for _, addr := range c.askable() {
		one, cancel := context.WithTimeout(ctx, mapTimeout)
		replies, err := c.asker.exchange(one, addr, []string{"CLUSTER", "SLOTS"})
		cancel()
		if err == nil {
			err = c.apply(replies[0], addr)
		}
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", addr, err))
		if errors.Is(err, errNotCluster) {
			break
		}
	}
	return failed
}

func (c *cluster) askable() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var good, rest []string
	for _, a := range c.known {
		if n := c.nodes[a]; n != nil && n.gate.state.Load() == gateOpen {
			good = append(good, a)
		} else {
			rest = append(rest, a)
		}
	}
	rand.Shuffle(len(good), func(i, j int) { good[i], good[j] = good[j], good[i] })
	return append(good, rest...)
}

// slotRange is one line of CLUSTER SLOTS.
type slotRange struct {
	from, to int
	addrs    []string // the master first
}

// apply takes over a map that the node asked told.
func (c *cluster) apply(reply any, asked string) error {
	if refused, ok := reply.(resp.Error); ok {
		if strings.Contains(string(refused), "cluster support disabled") {
			return errNotCluster
		}
		return refused
	}
	ranges, err := parseSlots(reply, asked)
	if err != nil {
		return err
	}
	var served [slotCount]bool
	masters := map[string]*node{}
	covered := 0
	for _, r := range ranges {
		n := c.ensure(r.addrs[0])
		if n == nil {
			return nil // closed meanwhile
		}
		masters[r.addrs[0]] = n
		for s := r.from; s <= r.to; s++ {
			if !served[s] {
				covered++
			}
			served[s] = true
			c.slots[s].Store(n)
		}
	}
	for s := range served {
		if !served[s] {
			c.slots[s].Store(nil)
		}
	}
	c.covered.Store(int32(covered))
	list := make([]*node, 0, len(masters))
	for _, n := range masters {
		list = append(list, n)
	}
	c.masters.Store(&list)
	c.remember(ranges, masters)
	if s := c.r.replicas; s != nil {
		s.keep(masters)
		for _, r := range ranges {
			s.follow(r.addrs[1:], r.addrs[0])
		}
	}
	return nil
}

func parseSlots(reply any, asked string) ([]slotRange, error) {
	lines, ok := reply.([]any)
	if !ok {
		return nil, resp.ErrProtocol
	}
	askedHost, _, _ := net.SplitHostPort(asked)
	var out []slotRange
	for _, line := range lines {
		parts, _ := line.([]any)
		if len(parts) < 3 {
			return nil, resp.ErrProtocol
		}
		from, ok1 := parts[0].(int64)
		to, ok2 := parts[1].(int64)
		if !ok1 || !ok2 || from < 0 || to >= slotCount || from > to {
			return nil, resp.ErrProtocol
		}
		r := slotRange{from: int(from), to: int(to)}
		for _, p := range parts[2:] {
			at, _ := p.([]any)
			if len(at) < 2 {
				return nil, resp.ErrProtocol
			}
			host, _ := at[0].(string)
			port, ok := at[1].(int64)
			if host == "" || host == "?" {
				host = askedHost // it does not know its own name
			}
			if !ok {
				return nil, resp.ErrProtocol
			}
			r.addrs = append(r.addrs, net.JoinHostPort(host, strconv.FormatInt(port, 10)))
		}
		out = append(out, r)
	}
	return out, nil
}

// remember keeps the addresses to ask, and lets go of nodes that serve nothing.
func (c *cluster) remember(ranges []slotRange, masters map[string]*node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := slices.Clone(c.r.cfg.Cluster.Addresses)
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
			c.r.workers.Go(func() { n.retire(c.r.life) })
		}
	}
}

// ensure returns the node at addr, and begins to connect to a new one. It is
// nil after Close.
func (c *cluster) ensure(addr string) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.nodes[addr]; n != nil {
		return n.node
	}
	if c.over {
		return nil
	}
	cfg := c.r.cfg
	cfg.Password = cfg.Cluster.Password
	host, port, _ := net.SplitHostPort(addr)
	cfg.Host = host
	cfg.Port, _ = strconv.Atoi(port)
	cfg.Cluster = Cluster{}
	life, stop := context.WithCancel(c.r.life)
	n, err := newNode(life, cfg, c.changed)
	if err != nil {
		stop()
		c.r.log.Error("a cluster node cannot be used", "address", addr, "reason", err)
		return nil
	}
	cn := &clusterNode{node: n, stop: stop, done: make(chan struct{})}
	c.nodes[addr] = cn
	go func() {
		defer close(cn.done)
		n.run(life)
	}()
	return n
}

// retire ends a node that left the map, after its calls.
func (n *clusterNode) retire(life context.Context) {
	for end := time.Now().Add(retireAfter); n.inflight() != 0 && time.Now().Before(end) && life.Err() == nil; {
		time.Sleep(10 * time.Millisecond)
	}
	n.end()
}

func (n *clusterNode) end() {
	n.gate.settle(gateClosed, &Error{Op: "connect", Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: errMoved})
	n.stop()
	n.close()
	<-n.done
}

// pick returns the node that serves a slot, or any for a command without key.
func (c *cluster) pick(ctx context.Context, slot uint16) (*node, *Error) {
	if c.gate.state.Load() != gateOpen {
		if err := c.gate.pass(ctx); err != nil {
			return nil, err
		}
	}
	if slot == keyless {
		return c.any()
	}
	if n := c.slots[slot&(slotCount-1)].Load(); n != nil {
		return n, nil
	}
	return nil, &Error{Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: errUncovered}
}

// any returns a node that serves, if there is one.
func (c *cluster) any() (*node, *Error) {
	list := *c.masters.Load()
	if len(list) == 0 {
		return nil, &Error{Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: errUncovered}
	}
	first := rand.IntN(len(list))
	for i := range list {
		if n := list[(first+i)%len(list)]; n.gate.state.Load() == gateOpen {
			return n, nil
		}
	}
	return list[first], nil
}

// hop is where a redirected call goes next.
type hop struct {
	node   *node
	asking bool // for this one call; the slot is still another's
}

// follow reads a redirection. A call that was redirected was not applied.
func (c *cluster) follow(from *node, err error) (h hop, ok bool) {
	text := err.Error()
	if !strings.HasPrefix(text, "MOVED ") && !strings.HasPrefix(text, "ASK ") {
		return h, false
	}
	parts := strings.Fields(text)
	if len(parts) < 3 {
		return h, false
	}
	slot, bad := strconv.Atoi(parts[1])
	host, port, err := net.SplitHostPort(parts[2])
	if bad != nil || err != nil || slot < 0 || slot >= slotCount {
		return h, false
	}
	if host == "" || host == "?" {
		host, _, _ = net.SplitHostPort(from.addr())
	}
	h.node = c.ensure(net.JoinHostPort(host, port))
	if h.node == nil {
		return h, false
	}
	h.asking = parts[0] == "ASK"
	if !h.asking {
		c.slots[slot].Store(h.node)
		c.wake()
	}
	return h, true
}

// all calls fn for each node.
func (c *cluster) all(fn func(*clusterNode)) {
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

// look is the state of the whole: open while any node serves.
func (c *cluster) look() (state uint32, why *Error) {
	state, why = c.gate.look()
	if state != gateOpen {
		return state, why
	}
	open, doubt, shut := 0, 0, 0
	for _, n := range *c.masters.Load() {
		switch s, cause := n.gate.look(); s {
		case gateOpen:
			open++
		case gateDoubt:
			doubt++
		default:
			shut++
			why = cause
		}
	}
	switch {
	case open > 0:
		return gateOpen, why
	case doubt > 0:
		return gateDoubt, nil
	case why == nil:
		return gateShut, &Error{Op: "connect", Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: errUncovered}
	}
	return gateShut, why
}

// lacks says what a cluster lacks that serves all the same.
func (r *Redis) lacks() error {
	c := r.cluster
	if c == nil || c.healthy() {
		return nil
	}
	if n := c.covered.Load(); n != slotCount {
		return &Error{Op: "connect", Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: fmt.Errorf("%d of 16384 slots are served by no node", slotCount-n)}
	}
	for _, n := range *c.masters.Load() {
		if s, why := n.gate.look(); s != gateOpen && why != nil {
			return why
		}
	}
	return nil
}

// describe adds the nodes to a status.
func (c *cluster) describe(st *Status) {
	st.SlotsCovered = int(c.covered.Load())
	for _, n := range *c.masters.Load() {
		state, why := n.gate.look()
		ns := NodeStatus{Address: n.addr(), Available: state == gateOpen, RTT: time.Duration(n.rtt.Load())}
		if why != nil {
			ns.Err = why
		}
		if info := n.info.Load(); info != nil {
			ns.Server = *info
			if st.Server.At.Before(info.At) {
				st.Server = *info
			}
		}
		st.RTT = max(st.RTT, ns.RTT)
		st.Nodes = append(st.Nodes, ns)
	}
	slices.SortFunc(st.Nodes, func(a, b NodeStatus) int { return strings.Compare(a.Address, b.Address) })
}
