package cache

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/madcrow-go/madcrow"
)

// family is the caches of one Redis in this process. What one of them changes
// the others must not serve either when the change has returned: Redis would
// tell them, a moment later.
type family struct {
	r       *madcrow.Redis
	members atomic.Pointer[[]member]
	outage  *outage
}

// member is a cache, of whatever type.
type member interface {
	// valueChanges and tagChanges are called before and after a change, with
	// its key.
	valueChanges(key string)
	tagChanges(key string)
}

var families = struct {
	sync.Mutex
	of map[*madcrow.Redis]*family
}{of: map[*madcrow.Redis]*family{}}

// joinFamily makes a cache one of its Redis' family.
func joinFamily(r *madcrow.Redis, m member) *family {
	families.Lock()
	defer families.Unlock()
	f := families.of[r]
	if f == nil {
		f = &family{r: r}
		f.members.Store(&[]member{})
		f.outage = newOutage(f)
		families.of[r] = f
	}
	list := append(slices.Clone(*f.members.Load()), m)
	f.members.Store(&list)
	return f
}

// leave takes a cache out. With the last one goes what was queued.
func (f *family) leave(m member) {
	families.Lock()
	list := slices.DeleteFunc(slices.Clone(*f.members.Load()), func(o member) bool { return o == m })
	f.members.Store(&list)
	last := len(list) == 0
	if last {
		delete(families.of, f.r)
	}
	families.Unlock()
	if last {
		f.outage.close()
	}
}

func (f *family) valueChanges(key string) {
	for _, m := range *f.members.Load() {
		m.valueChanges(key)
	}
}

func (f *family) tagChanges(key string) {
	for _, m := range *f.members.Load() {
		m.tagChanges(key)
	}
}
