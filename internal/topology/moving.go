package topology

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

// movingFor is how long a slot counts as being moved after that was last seen.
// When the move has ended is not known: the first call after it finds out.
const movingFor = time.Second

// movingSlots are those that were seen to move a moment ago.
type movingSlots struct {
	until atomic.Int64 // when the last of them is tried again; before now: there is none
	mu    sync.Mutex
	slots map[uint16]int64 // until when, each
}

func (m *movingSlots) note(slot uint16) {
	now := clock.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.slots == nil || m.until.Load() < now {
		m.slots = map[uint16]int64{}
	}
	m.slots[slot] = now + int64(movingFor)
	m.until.Store(now + int64(movingFor))
}

func (m *movingSlots) has(t *Topology, key string) bool {
	until := m.until.Load()
	if until == 0 {
		return false
	}
	now := clock.Now()
	if until < now {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return now < m.slots[t.SlotOf(key)]
}

// IsMoving reports whether the slot of a key was seen to move a moment ago.
func (t *Topology) IsMoving(key string) bool { return t.cluster.moving.has(t, key) }
