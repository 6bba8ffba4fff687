package topology

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/madcrow-go/madcrow/internal/node"
)

// replicas are nodes that only serve reads with Replica. They are apart from
// the masters: whatever becomes of them, no other call is touched.
type replicas struct {
	t       *Topology
	cluster bool

	mu     sync.Mutex
	nodes  map[string]*clusterNode // by address
	of     map[string]string       // the replica that serves for a master
	closed bool
}

func newReplicas(t *Topology) *replicas {
	return &replicas{t: t, cluster: t.cfg.Seeds != nil, nodes: map[string]*clusterNode{}, of: map[string]string{}}
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
func (s *replicas) lacks(masters []*node.Node) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(masters, func(n *node.Node) bool { return s.of[n.Addr()] == "" })
}

// keep drops the replicas of all but these masters.
func (s *replicas) keep(masters map[string]*node.Node) {
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
		s.t.workers.Go(func() { n.retire(s.t.life) })
	}
}

func (s *replicas) open(addr string) *clusterNode {
	life, stop := context.WithCancel(s.t.life)
	cfg := s.t.cfg.Node
	cfg.Address, cfg.Replica, cfg.Reader, cfg.Changed = addr, s.cluster, true, func() {}
	cfg.ByName, cfg.Conn.Listeners = false, nil
	n, err := node.New(life, cfg)
	if err != nil {
		stop()
		return nil
	}
	cn := &clusterNode{Node: n, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(cn.done)
		n.Run(life)
	}()
	return cn
}

// serving returns the replica for a master, if it serves now.
func (s *replicas) serving(master string) *node.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[s.of[master]]; n != nil && n.Availability.IsUp() {
		return n.Node
	}
	return nil
}

// count is how many serve now.
func (s *replicas) count() (serving int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if n.Availability.IsUp() {
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
