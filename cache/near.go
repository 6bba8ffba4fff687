package cache

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/madcrow-go/madcrow"
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
	reads  reads
	spares atomic.Int64 // until when there may be values that Redis does not have
}

const nearOverhead = 256 // bytes of an entry beside key and value, about

func newNear[T any](bytes int64) *near[T] {
	n := &near[T]{}
	n.reads.init()
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
	n.reads.change(key, func() {
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

// reads are the keys that are being read, so that what was changed meanwhile is
// not kept.
type reads struct {
	seed   maphash.Seed
	shards [32]readShard
}

type readShard struct {
	sync.Mutex
	running map[string]*running
	_       [40]byte
}

type running struct {
	readers int
	version uint64
}

func (r *reads) init() {
	r.seed = maphash.MakeSeed()
	for i := range r.shards {
		r.shards[i].running = map[string]*running{}
	}
}

func (r *reads) shard(key string) *readShard {
	return &r.shards[maphash.String(r.seed, key)%uint64(len(r.shards))]
}

// begin notes a read before it is sent.
func (r *reads) begin(key string) (version uint64) {
	s := r.shard(key)
	s.Lock()
	defer s.Unlock()
	run := s.running[key]
	if run == nil {
		run = &running{}
		s.running[key] = run
	}
	run.readers++
	return run.version
}

// end calls keep, unless the key was changed since version. No change comes in
// between.
func (r *reads) end(key string, version uint64, keep func()) {
	s := r.shard(key)
	s.Lock()
	defer s.Unlock()
	run := s.running[key]
	if run.readers--; run.readers == 0 {
		delete(s.running, key)
	}
	if keep != nil && run.version == version {
		keep()
	}
}

// change notes that a key was changed, and calls drop before anybody can keep
// what was read before.
func (r *reads) change(key string, drop func()) {
	s := r.shard(key)
	s.Lock()
	defer s.Unlock()
	if run := s.running[key]; run != nil {
		run.version++
	}
	drop()
}
