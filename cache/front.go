package cache

import (
	"hash/maphash"
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// front stands before the near values: what is read again and again is found in
// it without the bookkeeping of a read. That is done once a tick for each value,
// so the values know what is in use. It holds nothing that they do not hold.
type front[T any] struct {
	seed  maphash.Seed
	slots []atomic.Pointer[nearEntry[T]]

	held    atomic.Int64 // entries of the values
	crowded atomic.Int64 // until when every read counts
}

// fewEntries are so few that which of them to keep depends on how often each is
// read, and not only at how many ticks: where one of them had to go for want of
// room, the front is passed by for a second.
const fewEntries = 512

// notHeld is noted of an entry that the values no longer hold.
const notHeld = math.MaxInt64

// init makes a slot for each KiB that the values may take, up to 16,384.
func (f *front[T]) init(bytes int64) {
	n := min(max(bytes>>10, 64), 16<<10)
	f.seed, f.slots = maphash.MakeSeed(), make([]atomic.Pointer[nearEntry[T]], 1<<(bits.Len64(uint64(n))-1))
}

func (f *front[T]) slot(key string) *atomic.Pointer[nearEntry[T]] {
	return &f.slots[maphash.String(f.seed, key)&uint64(len(f.slots)-1)]
}

// put notes that an entry was read at a tick. It takes the slot, unless another
// one that is in use has it.
func (f *front[T]) put(slot *atomic.Pointer[nearEntry[T]], e *nearEntry[T], at int64) {
	if was := e.noted.Load(); was == notHeld || was != at && !e.noted.CompareAndSwap(was, at) {
		return
	}
	old := slot.Load()
	if old == e || old != nil && old.noted.Load() == at {
		return
	}
	slot.Store(e)
	if e.noted.Load() == notHeld { // removed meanwhile, perhaps before it was here
		slot.CompareAndSwap(e, nil)
	}
}

// remove takes out an entry that the values no longer hold.
func (f *front[T]) remove(e *nearEntry[T], forRoom bool) {
	if f.held.Add(-1) < fewEntries && forRoom {
		f.crowded.Store(mono() + int64(time.Second))
	}
	e.noted.Store(notHeld)
	f.slot(e.key).CompareAndSwap(e, nil)
}
