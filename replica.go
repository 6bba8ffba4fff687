package madcrow

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// replicas are nodes that only serve [Redis.DoReplica]. They are apart from
// the masters: whatever becomes of them, no other call is touched.
type replicas struct {
	r       *Redis
	cluster bool

	mu     sync.Mutex
	nodes  map[string]*clusterNode // by address
	of     map[string]string       // the replica that serves for a master
	closed bool
}

func newReplicas(r *Redis) *replicas {
	return &replicas{r: r, cluster: r.cluster != nil, nodes: map[string]*clusterNode{}, of: map[string]string{}}
}

// follow takes over the replicas of one master and drops one that is gone.
func (s *replicas) follow(addrs []string, master string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, had := s.of[master]
	if s.closed || had && slices.Contains(addrs, old) {
		return
	}
	if had {
		s.drop(master)
	}
	for m := range s.of {
		if !s.cluster && m != master { // of the master before
			s.drop(m)
		}
	}
	if len(addrs) == 0 {
		return
	}
	addr := addrs[rand.IntN(len(addrs))]
	for m, a := range s.of {
		if a == addr { // it has moved from there
			s.drop(m)
		}
	}
	if n := s.open(addr); n != nil {
		s.nodes[addr], s.of[master] = n, addr
	}
}

// lacks says whether a master has no replica here.
func (s *replicas) lacks(masters []*node) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(masters, func(n *node) bool { return s.of[n.addr()] == "" })
}

// keep drops the replicas of all but these masters.
func (s *replicas) keep(masters map[string]*node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for m := range s.of {
		if masters[m] == nil && !s.closed {
			s.drop(m)
		}
	}
}

func (s *replicas) drop(master string) {
	addr := s.of[master]
	n := s.nodes[addr]
	delete(s.of, master)
	delete(s.nodes, addr)
	if n != nil {
		s.r.workers.Go(func() { n.retire(s.r.life) })
	}
}

func (s *replicas) open(addr string) *clusterNode {
	cfg := s.r.cfg
	if s.cluster {
		cfg.Password = cfg.Cluster.Password
	}
	host, port, _ := net.SplitHostPort(addr)
	cfg.Host = host
	cfg.Port, _ = strconv.Atoi(port)
	cfg.Cluster, cfg.Sentinel = Cluster{}, Sentinel{}
	life, stop := context.WithCancel(s.r.life)
	n, err := newNode(life, cfg, func() {})
	if err != nil {
		stop()
		return nil
	}
	n.replica, n.reader = s.cluster, true
	cn := &clusterNode{node: n, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(cn.done)
		n.run(life)
	}()
	return cn
}

// serving returns the replica for a master, if it serves now.
func (s *replicas) serving(master string) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[s.of[master]]; n != nil && n.availability.IsUp() {
		return n.node
	}
	return nil
}

// count is how many serve now.
func (s *replicas) count() (serving int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if n.availability.IsUp() {
			serving++
		}
	}
	return serving
}

func (s *replicas) close() {
	s.mu.Lock()
	s.closed = true
	nodes := s.nodes
	s.nodes = map[string]*clusterNode{}
	s.mu.Unlock()
	for _, n := range nodes {
		n.end()
	}
}

// DoReplica is [Redis.Do] for a read that may be a little old: it asks a
// replica, and the master when there is none, when it is away, or when it
// fails. It is for caches; what was just written may not be there yet. It
// needs Config.ReadReplicas and Sentinel or Cluster, and is Do otherwise; so
// is a command that is no read.
func (r *Redis) DoReplica(ctx context.Context, build func(Builder) Command) (Message, error) {
	if r.replicas == nil {
		return r.Do(ctx, build)
	}
	start := clock.Now()
	bounded, cc := r.deadlines.enter(ctx, start)
	defer r.deadlines.leave(cc)
	msg, op, ok := r.tryReplica(bounded, build)
	tries := 0
	var err *fault.Error
	if !ok {
		msg, op, tries, err = r.do(bounded, build)
	}
	if r.rec != nil {
		r.record(op, 1, start, tries, err)
	}
	if err != nil {
		return msg, publicError(err)
	}
	return msg, nil
}

func (r *Redis) tryReplica(ctx context.Context, build func(Builder) Command) (msg Message, op string, ok bool) {
	cmd := build(r.builder)
	args := cmd.Commands()
	if !cmd.IsReadOnly() || cmd.IsBlock() || classOf(args) != classPlain || commandSize(args) >= r.cfg.BulkThreshold {
		return msg, "", false
	}
	master, err := r.pick(ctx, cmd.Slot())
	if err != nil {
		return msg, "", false
	}
	n := r.replicas.serving(master.addr())
	if n == nil {
		return msg, "", false
	}
	op = args[0]
	s, err := n.enter(ctx)
	if err != nil {
		return msg, op, false
	}
	msg, failed := s.do(ctx, cmd, false).ToMessage()
	return msg, op, failed == nil || failed == rueidis.Nil
}
