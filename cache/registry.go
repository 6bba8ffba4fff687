package cache

import (
	"fmt"
	"reflect"
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
	// content is the cache's name, and what it stores.
	content() content
}

// content is what a cache stores: caches of one name must agree.
type content struct {
	name  string
	of    reflect.Type
	codec byte
}

func (c content) String() string { return fmt.Sprintf("%v with codec %d", c.of, c.codec) }

func (c *Cache[T]) content() content { return content{c.name, reflect.TypeFor[T](), c.opt.Codec.ID()} }

type registryKey struct{}

func registryOf(r *madcrow.Redis) *registry {
	return r.Attached(sealed.Key{}, registryKey{}, func() any {
		reg := &registry{r: r}
		reg.members.Store(&[]member{})
		return reg
	}).(*registry) //nolint:forcetypeassert // no one else has the key
}

// join adds a cache, unless there is one of its name that stores something else.
func (reg *registry) join(m member) (*pendingRemovals, error) {
	reg.mu.Lock()
	defer reg.mu.Unlock()
	own := m.content()
	for _, other := range *reg.members.Load() {
		if c := other.content(); c.name == own.name && c != own {
			return nil, fail.Argument("new", own.name, "name", fmt.Sprintf(
				"is that of another cache of this process, of %v, and this one is of %v: give each a name of its own", c, own))
		}
	}
	if reg.removals == nil {
		reg.removals = newPendingRemovals(reg)
	}
	list := append(slices.Clone(*reg.members.Load()), m)
	reg.members.Store(&list)
	return reg.removals, nil
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
