// Package near is what copies of Redis' values in this process need to stay
// true.
package near

import (
	"hash/maphash"
	"sync"
)

// Reads are the keys that are being read, so that what was changed meanwhile is
// not kept: the news of a change may arrive before the reply is stored. It is
// safe for concurrent use.
type Reads struct {
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

// NewReads returns an empty set.
func NewReads() *Reads {
	r := &Reads{seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].running = map[string]*running{}
	}
	return r
}

func (r *Reads) shard(key string) *shard {
	return &r.shards[maphash.String(r.seed, key)%uint64(len(r.shards))]
}

// Begin notes a read before it is sent. End must follow.
func (r *Reads) Begin(key string) (version uint64) {
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

// End calls keep, which may be nil, unless the key was changed since version.
// No change comes in between.
func (r *Reads) End(key string, version uint64, keep func()) {
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

// Change notes that a key was changed, and calls drop before anybody can keep
// what was read before.
func (r *Reads) Change(key string, drop func()) {
	s := r.shard(key)
	s.Lock()
	defer s.Unlock()
	if run := s.running[key]; run != nil {
		run.version++
	}
	drop()
}
