package cache

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/madcrow-go/madcrow"
	nearby "github.com/madcrow-go/madcrow/internal/near"
)

// nearEntry is a decoded value in this process. But for noted it does not
// change. What a hit looks at comes first.
type nearEntry[T any] struct {
	key      string
	noted    atomic.Int64      // the step in which it was last read, for the hot index
	expires  int64             // when it is no longer fresh
	refresh  int64             // when to load it again in the background
	slide    int64             // when to restart its life
	tracking *madcrow.Tracking // nil: believed until expires
	tags     []nearTag
	negative bool
	degraded bool // Redis does not have it: nothing is known of its tags

	weight uint32
	stored int64 // when it was stored, monotonic
	etag   string
	value  T
}

// nearTag is a tag as it was when the entry was read.
type nearTag struct {
	state *tagState
	gen   *tagGen
}

// valid says whether the entry may be served.
func (e *nearEntry[T]) valid(now int64) bool {
	if now >= e.expires || e.tracking != nil && !e.tracking.Valid() {
		return false
	}
	if e.degraded {
		return true
	}
	for i := range e.tags {
		if t := &e.tags[i]; t.state.cur.Load() != t.gen || !t.gen.valid(now) {
			return false
		}
	}
	return true
}

// has says whether it can be removed by all these tags.
func (e *nearEntry[T]) has(tags []string) bool {
	for _, name := range tags {
		if !slices.ContainsFunc(e.tags, func(t nearTag) bool { return t.state.name == name }) {
			return false
		}
	}
	return true
}

// found is what a read finds that finds it.
func (e *nearEntry[T]) found(now int64) Found[T] {
	return Found[T]{
		State: Fresh, near: true, Value: e.value, negative: e.negative, etag: e.etag,
		Age: time.Duration(now - e.stored), TTL: time.Duration(e.expires - now), refresh: now >= e.refresh, tags: e.tags,
	}
}

// near holds decoded values, bounded by bytes. It is filled only by reads
// during which nothing was heard of the key.
type near[T any] struct {
	values        *otter.Cache[string, *nearEntry[T]]
	index         hotIndex[T]
	reads         *nearby.Reads
	degradedUntil atomic.Int64 // until when there may be values that Redis does not have
}

const nearOverhead = 256 // bytes of an entry beside key and value, about

// weightOf counts the key twice: an entry that takes the place of another may
// have one of its own.
func weightOf(key string, size int) uint32 {
	return uint32(min(math.MaxUint32, int64(2*len(key)+nearOverhead)+int64(size)))
}

func newNear[T any](bytes int64) *near[T] {
	n := &near[T]{reads: nearby.NewReads()}
	if bytes > 0 {
		n.values = otter.Must(&otter.Options[string, *nearEntry[T]]{
			MaximumWeight: uint64(bytes),
			Weigher:       func(_ string, e *nearEntry[T]) uint32 { return e.weight },
			OnAtomicDeletion: func(e otter.DeletionEvent[string, *nearEntry[T]]) {
				n.index.remove(e.Value, e.Cause == otter.CauseOverflow)
			},
		})
		n.index.init(bytes)
	}
	return n
}

func (n *near[T]) get(key string) (*nearEntry[T], bool) {
	if n.values == nil {
		return nil, false
	}
	return n.values.GetIfPresent(key)
}

// set keeps a copy.
func (n *near[T]) set(key string, e *nearEntry[T]) {
	e.key = key
	n.index.held.Add(1)
	n.values.Set(key, e)
}

// hot is get for an entry that is likely to be read again in the same step.
func (n *near[T]) hot(key string, step int64) (*nearEntry[T], bool) {
	if step < n.index.crowded.Load() {
		return n.get(key)
	}
	slot := n.index.slot(key)
	if e := slot.Load(); e != nil && e.noted.Load() == step && e.key == key {
		return e, true
	}
	e, ok := n.values.GetIfPresent(key)
	if ok {
		n.index.put(slot, e, step)
	}
	return e, ok
}

// drop forgets a key, and what is being read of it.
func (n *near[T]) drop(key string) {
	n.reads.Change(key, func() {
		if n.values != nil {
			n.values.Invalidate(key)
		}
	})
}

// setDegraded keeps a value that Redis does not have. It may be served until then,
// at last as a stale one.
func (n *near[T]) setDegraded(key string, e *nearEntry[T], until int64) {
	n.set(key, e)
	for old := n.degradedUntil.Load(); old < until && !n.degradedUntil.CompareAndSwap(old, until); {
		old = n.degradedUntil.Load()
	}
}

// dropSpares drops everything, if there may be values that Redis does not have:
// of their tags nothing is known.
func (n *near[T]) dropDegraded(now int64) {
	until := n.degradedUntil.Load()
	if n.values != nil && now < until && n.degradedUntil.CompareAndSwap(until, 0) {
		n.values.InvalidateAll()
	}
}
