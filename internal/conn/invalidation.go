package conn

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// Listeners are notified of changed keys.
type Listeners struct {
	mu   sync.Mutex
	byID map[*func(string)]func(string)
	list atomic.Pointer[[]func(string)]
}

// Add registers fn, which is called with the key of each invalidation.
func (s *Listeners) Add(fn func(string)) (stop func()) {
	id := &fn
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = map[*func(string)]func(string){}
	}
	s.byID[id] = fn
	s.rebuild()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.byID, id)
		s.rebuild()
	}
}

func (s *Listeners) rebuild() {
	list := slices.Collect(maps.Values(s.byID))
	s.list.Store(&list)
}

func (s *Listeners) notify(keys []rueidis.RedisMessage) {
	list := s.list.Load()
	if list == nil {
		return
	}
	for i := range keys {
		if key, err := keys[i].ToString(); err == nil {
			for _, fn := range *list {
				fn(key)
			}
		}
	}
}
