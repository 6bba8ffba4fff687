package cache

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/madcrow-go/madcrow"
)

// registry is the caches of one Redis in this process. What one of them changes
// the others must not serve either when the change has returned: Redis would
// tell them, a moment later.
type registry struct {
	r               *madcrow.Redis
	members         atomic.Pointer[[]member]
	pendingRemovals *pendingRemovals
}

// member is a cache, of whatever type.
type member interface {
	// valueChanges and tagChanges are called before and after a change, with
	// its key.
	valueChanges(key string)
	tagChanges(key string)
}

var registries = struct {
	sync.Mutex
	of map[*madcrow.Redis]*registry
}{of: map[*madcrow.Redis]*registry{}}

// joinRegistry adds a cache to the registry of its Redis.
func joinRegistry(r *madcrow.Redis, m member) *registry {
	registries.Lock()
	defer registries.Unlock()
	f := registries.of[r]
	if f == nil {
		f = &registry{r: r}
		f.members.Store(&[]member{})
		f.pendingRemovals = newPendingRemovals(f)
		registries.of[r] = f
	}
	list := append(slices.Clone(*f.members.Load()), m)
	f.members.Store(&list)
	return f
}

// leave takes a cache out. With the last one goes what was queued.
func (f *registry) leave(m member) {
	registries.Lock()
	list := slices.DeleteFunc(slices.Clone(*f.members.Load()), func(o member) bool { return o == m })
	f.members.Store(&list)
	last := len(list) == 0
	if last {
		delete(registries.of, f.r)
	}
	registries.Unlock()
	if last {
		f.pendingRemovals.close()
	}
}

func (f *registry) valueChanges(key string) {
	for _, m := range *f.members.Load() {
		m.valueChanges(key)
	}
}

func (f *registry) tagChanges(key string) {
	for _, m := range *f.members.Load() {
		m.tagChanges(key)
	}
}
