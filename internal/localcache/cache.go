// Package localcache keeps copies of Redis' values in this process, bounded by
// bytes. A copy is kept only by a read during which no change of its key was
// noticed.
package localcache

import (
	"github.com/maypok86/otter/v2"
)

// Cache holds copies. It is safe for concurrent use.
type Cache[V any] struct {
	values *otter.Cache[string, V] // nil: it holds none
	reads  *reads
}

// Options says how a [Cache] works.
type Options[V any] struct {
	// MaxBytes is what all copies may weigh; 0 holds none.
	MaxBytes int64
	// Weight is what a copy takes in memory.
	Weight func(key string, v V) uint32
	// OnRemove is called with each copy that goes, also with one that another takes
	// the place of. evicted says that it had to go for want of room. May be nil.
	OnRemove func(v V, evicted bool)
}

// New makes a cache.
func New[V any](o Options[V]) *Cache[V] {
	c := &Cache[V]{reads: newReads()}
	if o.MaxBytes <= 0 {
		return c
	}
	opt := &otter.Options[string, V]{MaximumWeight: uint64(o.MaxBytes), Weigher: o.Weight}
	if o.OnRemove != nil {
		opt.OnAtomicDeletion = func(e otter.DeletionEvent[string, V]) {
			o.OnRemove(e.Value, e.Cause == otter.CauseOverflow)
		}
	}
	c.values = otter.Must(opt)
	return c
}

// Enabled says whether it can hold copies.
func (c *Cache[V]) Enabled() bool { return c.values != nil }

// Get returns the copy of a key. Whether it may be served is for the caller to
// judge.
func (c *Cache[V]) Get(key string) (v V, ok bool) {
	if c.values == nil {
		return v, false
	}
	return c.values.GetIfPresent(key)
}

// BeginRead notes a read before it is sent. EndRead must follow.
func (c *Cache[V]) BeginRead(key string) (version uint64) { return c.reads.begin(key) }

// EndRead calls keep, which may call [Cache.Set] and may be nil, unless the key was
// changed since version. No change comes in between.
func (c *Cache[V]) EndRead(key string, version uint64, keep func()) { c.reads.end(key, version, keep) }

// Set keeps a copy that no read fences, or within the keep of a read.
func (c *Cache[V]) Set(key string, v V) {
	if c.values != nil {
		c.values.Set(key, v)
	}
}

// Drop removes the copy of a key, and keeps what is being read of it from being
// kept.
func (c *Cache[V]) Drop(key string) {
	c.reads.change(key, func() {
		if c.values != nil {
			c.values.Invalidate(key)
		}
	})
}

// DropAll removes all copies.
func (c *Cache[V]) DropAll() {
	if c.values != nil {
		c.values.InvalidateAll()
	}
}

// Size is how many copies there are and what they weigh, after what is due to go
// has gone.
func (c *Cache[V]) Size() (n int, weight uint64) {
	if c.values == nil {
		return 0, 0
	}
	c.values.CleanUp()
	return c.values.EstimatedSize(), c.values.WeightedSize()
}
