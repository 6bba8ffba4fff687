package cache

import (
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/madcrow-go/madcrow"
	nearby "github.com/madcrow-go/madcrow/internal/near"
)

// nearEntry is a decoded value in this process. It does not change.
type nearEntry[T any] struct {
	value    T
	negative bool
	etag     string
	weight   uint32

	stored   int64             // when it was stored, monotonic
	expires  int64             // when it is no longer fresh
	refresh  int64             // when to load it anew in the background
	slide    int64             // when to begin its life anew
	tracking *madcrow.Tracking // nil: believed until expires
	tags     []nearTag
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
	for i := range e.tags {
		if t := &e.tags[i]; t.state.cur.Load() != t.gen || !t.gen.valid(now) {
			return false
		}
	}
	return true
}

// near holds decoded values, bounded by bytes. It is filled only by reads
// during which nothing was heard of the key.
type near[T any] struct {
	values *otter.Cache[string, *nearEntry[T]]
	reads  *nearby.Reads
	spares atomic.Int64 // until when there may be values that Redis does not have
}

const nearOverhead = 256 // bytes of an entry beside key and value, about

func newNear[T any](bytes int64) *near[T] {
	n := &near[T]{reads: nearby.NewReads()}
	if bytes > 0 {
		n.values = otter.Must(&otter.Options[string, *nearEntry[T]]{
			MaximumWeight: uint64(bytes),
			Weigher:       func(_ string, e *nearEntry[T]) uint32 { return e.weight },
		})
	}
	return n
}

func (n *near[T]) get(key string) (*nearEntry[T], bool) {
	if n.values == nil {
		return nil, false
	}
	return n.values.GetIfPresent(key)
}

// drop forgets a key, and what is being read of it.
func (n *near[T]) drop(key string) {
	n.reads.Change(key, func() {
		if n.values != nil {
			n.values.Invalidate(key)
		}
	})
}

// spare keeps a value that Redis does not have.
func (n *near[T]) spare(key string, e *nearEntry[T]) {
	n.spares.Store(e.expires)
	n.values.Set(key, e)
}

// dropSpares drops everything, if there may be values that Redis does not have:
// they carry no tags.
func (n *near[T]) dropSpares(now int64) {
	if n.values != nil && now < n.spares.Load() {
		n.values.InvalidateAll()
	}
}
