package cache

import (
	"hash/maphash"
	"math"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

// hotIndex is a direct-mapped index of near entries that were read recently. It
// saves otter's bookkeeping of a read for what is read more than once in a step of
// the coarse clock: otter hears of one read a step. An entry that otter has removed
// is not served from the index.
type hotIndex[T any] struct {
	seed  maphash.Seed
	slots []atomic.Pointer[nearEntry[T]]

	held    atomic.Int64 // how many entries otter has
	crowded atomic.Int64 // until when the index is bypassed
}

// smallCache is the number of entries below which eviction depends on how often an
// entry is read, and not only on in how many steps. When a smaller cache evicts
// one for want of room, the index is bypassed for a second: otter counts every
// read.
const smallCache = 512

// evicted is noted in an entry that otter has removed.
const evicted = math.MaxInt64

// init makes a slot for each KiB of the near cache, up to 16,384.
func (f *hotIndex[T]) init(bytes int64) {
	n := min(max(bytes>>10, 64), 16<<10)
	f.seed, f.slots = maphash.MakeSeed(), make([]atomic.Pointer[nearEntry[T]], 1<<(bits.Len64(uint64(n))-1))
}

func (f *hotIndex[T]) slot(key string) *atomic.Pointer[nearEntry[T]] {
	return &f.slots[maphash.String(f.seed, key)&uint64(len(f.slots)-1)]
}

// put notes that an entry was read in a step. It takes the slot, unless another
// entry was read by it in the same step.
func (f *hotIndex[T]) put(slot *atomic.Pointer[nearEntry[T]], e *nearEntry[T], at int64) {
	if was := e.noted.Load(); was == evicted || was != at && !e.noted.CompareAndSwap(was, at) {
		return
	}
	old := slot.Load()
	if old == e || old != nil && old.noted.Load() == at {
		return
	}
	slot.Store(e)
	if e.noted.Load() == evicted { // removed meanwhile, perhaps before it was stored here
		slot.CompareAndSwap(e, nil)
	}
}

// remove takes out an entry that otter has removed.
func (f *hotIndex[T]) remove(e *nearEntry[T], forRoom bool) {
	if f.held.Add(-1) < smallCache && forRoom {
		f.crowded.Store(clock.Now() + int64(time.Second))
	}
	e.noted.Store(evicted)
	f.slot(e.key).CompareAndSwap(e, nil)
}
