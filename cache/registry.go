package cache

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/sealed"
)

// registry is the caches of one Redis in this process. What one of them changes
// the others must not serve either when the change has returned: Redis would
// notify them a moment later. It belongs to the Redis, and goes with it.
type registry struct {
	r       *madcrow.Redis
	members atomic.Pointer[[]member]

	mu       sync.Mutex       // of joining and leaving
	removals *pendingRemovals // of the members; nil without any
}

// member is a cache, of whatever type.
type member interface {
	// valueChanges and tagChanges are called before and after a change, with
	// its key.
	valueChanges(key string)
	tagChanges(key string)
}

type registryKey struct{}

func registryOf(r *madcrow.Redis) *registry {
	return r.Attached(sealed.Key{}, registryKey{}, func() any {
		reg := &registry{r: r}
		reg.members.Store(&[]member{})
		return reg
	}).(*registry) //nolint:forcetypeassert // no one else has the key
}

// join adds a cache.
func (reg *registry) join(m member) *pendingRemovals {
	reg.mu.Lock()
	defer reg.mu.Unlock()
	if reg.removals == nil {
		reg.removals = newPendingRemovals(reg)
	}
	list := append(slices.Clone(*reg.members.Load()), m)
	reg.members.Store(&list)
	return reg.removals
}

// leave removes a cache. With the last one goes what was queued.
func (reg *registry) leave(m member) {
	reg.mu.Lock()
	list := slices.DeleteFunc(slices.Clone(*reg.members.Load()), func(o member) bool { return o == m })
	reg.members.Store(&list)
	var last *pendingRemovals
	if len(list) == 0 {
		last, reg.removals = reg.removals, nil
	}
	reg.mu.Unlock()
	if last != nil {
		last.close()
	}
}

func (reg *registry) valueChanges(key string) {
	for _, m := range *reg.members.Load() {
		m.valueChanges(key)
	}
}

func (reg *registry) tagChanges(key string) {
	for _, m := range *reg.members.Load() {
		m.tagChanges(key)
	}
}
