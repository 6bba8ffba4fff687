package localcache

import (
	"hash/maphash"
	"sync"
)

// reads fences the keys that are being read: what was changed meanwhile is not
// kept, for the notification of a change may arrive before the reply is stored. It
// is safe for concurrent use.
type reads struct {
	seed   maphash.Seed
	shards [32]shard
}

type shard struct {
	sync.Mutex
	running map[string]*running
	_       [40]byte // a cache line for each
}

type running struct {
	readers int
	version uint64
}

// newReads returns an empty set.
func newReads() *reads {
	r := &reads{seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].running = map[string]*running{}
	}
	return r
}

func (r *reads) shard(key string) *shard {
	return &r.shards[maphash.String(r.seed, key)%uint64(len(r.shards))]
}

// begin notes a read before it is sent. end must follow.
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

// end calls keep, which may be nil, unless the key was changed since version.
// No change comes in between.
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

// change notes that a key was changed, and calls drop before anyone can keep
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
