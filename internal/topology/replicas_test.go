package topology

import (
	"testing"

	"github.com/madcrow-go/madcrow/internal/availability"
)

// The cluster gives a replica to another master.
func TestReplicas_FollowAMoveToAnotherMaster(t *testing.T) {
	top, end := openCluster(t, true, "127.0.0.1:1")
	s := top.replicas
	at := func(master string) (string, *clusterNode) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.of[master], s.nodes[s.of[master]]
	}
	const moves, other = "127.0.0.1:3", "127.0.0.1:4"
	s.follow([]string{moves}, "A")
	_, first := at("A")
	s.follow([]string{moves}, "B")
	if addr, n := at("A"); addr != "" || n != nil {
		t.Errorf("A keeps %q, %v", addr, n)
	}
	s.follow([]string{other}, "A")
	s.follow([]string{moves}, "B")
	a, ofA := at("A")
	b, ofB := at("B")
	if a != other || ofA == nil || b != moves || ofB == nil || first == nil || ofB == first {
		t.Errorf("A has %q, %v and B has %q, %v", a, ofA, b, ofB)
	}
	end()
	for i, n := range []*clusterNode{first, ofA, ofB} {
		if n != nil && n.Availability.Load() != availability.Closed {
			t.Errorf("node %d is not closed", i)
		}
	}
}
