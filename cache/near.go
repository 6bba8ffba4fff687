package cache

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/localcache"
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

// near holds decoded values, bounded by bytes.
type near[T any] struct {
	*localcache.Cache[*nearEntry[T]]
	index         hotIndex[T]
	degradedUntil atomic.Int64 // until when there may be values that Redis does not have
}

const nearOverhead = 256 // bytes of an entry beside key and value, about

// weightOf counts the key twice: an entry that takes the place of another may
// have one of its own.
func weightOf(key string, size int) uint32 {
	return uint32(min(math.MaxUint32, int64(2*len(key)+nearOverhead)+int64(size)))
}

func newNear[T any](bytes int64) *near[T] {
	n := &near[T]{}
	n.Cache = localcache.New(localcache.Options[*nearEntry[T]]{
		MaxBytes: bytes,
		Weight:   func(_ string, e *nearEntry[T]) uint32 { return e.weight },
		OnRemove: n.index.remove,
	})
	if n.Enabled() {
		n.index.init(bytes)
	}
	return n
}

// keep keeps a copy.
func (n *near[T]) keep(key string, e *nearEntry[T]) {
	e.key = key
	n.index.held.Add(1)
	n.Set(key, e)
}

// hot is get for an entry that is likely to be read again in the same step.
func (n *near[T]) hot(key string, step int64) (*nearEntry[T], bool) {
	if step < n.index.crowded.Load() {
		return n.Get(key)
	}
	slot := n.index.slot(key)
	if e := slot.Load(); e != nil && e.noted.Load() == step && e.key == key {
		return e, true
	}
	e, ok := n.Get(key)
	if ok {
		n.index.put(slot, e, step)
	}
	return e, ok
}

// setDegraded keeps a value that Redis does not have. It may be served until then,
// at last as a stale one.
func (n *near[T]) setDegraded(key string, e *nearEntry[T], until int64) {
	n.keep(key, e)
	for old := n.degradedUntil.Load(); old < until && !n.degradedUntil.CompareAndSwap(old, until); {
		old = n.degradedUntil.Load()
	}
}

// dropDegraded drops everything, if there may be values that Redis does not have:
// of their tags nothing is known.
func (n *near[T]) dropDegraded(now int64) {
	until := n.degradedUntil.Load()
	if now < until && n.degradedUntil.CompareAndSwap(until, 0) {
		n.DropAll()
	}
}
