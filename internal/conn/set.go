package conn

import (
	"maps"
	"slices"
	"sync"
)

// Set holds the open connections to one data node and bounds their number.
type Set struct {
	slots chan struct{}
	mu    sync.Mutex
	open  map[*conn]struct{}
}

func newConnSet(bound int) *Set {
	return &Set{slots: make(chan struct{}, bound), open: map[*conn]struct{}{}}
}

func (s *Set) remove(c *conn) {
	s.mu.Lock()
	_, ok := s.open[c]
	delete(s.open, c)
	s.mu.Unlock()
	if ok {
		<-s.slots
	}
}

// Size is how many are open, or being opened.
func (s *Set) Size() int { return len(s.slots) }

// CloseSubscriptions closes the connections for pub/sub.
func (s *Set) CloseSubscriptions() { s.dropThose(func(c *conn) bool { return c.sub }) }

// Drop closes all connections.
func (s *Set) Drop() { s.dropThose(func(*conn) bool { return true }) }

func (s *Set) dropThose(which func(*conn) bool) {
	s.mu.Lock()
	list := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range list {
		if which(c) {
			_ = c.Close()
		}
	}
}
