package cache

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

// Whatever removes an entry, the hot index does not serve it afterwards, and does
// not hold on to it.
func TestHotIndex_HoldsWhatOtterHoldsAndNothingElse(t *testing.T) {
	const keys = 7
	for _, size := range []int64{1, 300, 4 << 10, 1 << 20} {
		for _, everyRead := range []bool{false, true} { // is a step of its own
			t.Run(fmt.Sprintf("%d bytes, steps %v", size, everyRead), func(t *testing.T) {
				t.Parallel()
				n := newNear[int64](size)
				var step atomic.Int64
				step.Store(clock.Now() + int64(time.Hour)) // later than crowded
				var least, next [keys]atomic.Int64
				var changing [keys]sync.Mutex
				var wg sync.WaitGroup
				end := time.Now().Add(400 * time.Millisecond)
				for range 4 {
					wg.Go(func() {
						for i := 0; i&63 != 0 || time.Now().Before(end); i++ {
							if everyRead || i&1023 == 0 {
								step.Add(1)
							}
							k := rand.IntN(keys)
							oldest := least[k].Load()
							if e, ok := n.hot(strconv.Itoa(k), step.Load()); ok && e.value < oldest {
								t.Errorf("%d is served after %d was set", e.value, oldest)
								return
							}
						}
					})
				}
				for range 2 {
					wg.Go(func() {
						for time.Now().Before(end) {
							k := rand.IntN(keys)
							changing[k].Lock()
							v := next[k].Add(1)
							switch rand.IntN(8) {
							case 0:
								n.Drop(strconv.Itoa(k))
							case 1:
								n.DropAll()
							default:
								n.keep(strconv.Itoa(k), &nearEntry[int64]{value: v, weight: 257})
							}
							least[k].Store(v)
							changing[k].Unlock()
						}
					})
				}
				wg.Wait()
				n.Size()
				for i := range n.index.slots {
					if e := n.index.slots[i].Load(); e != nil {
						if held, ok := n.Get(e.key); !ok || held != e {
							t.Errorf("slot %d holds %s, which was removed", i, e.key)
						}
					}
				}
				size, _ := n.Size()
				if held, want := n.index.held.Load(), int64(size); held != want {
					t.Errorf("%d entries are counted, there are %d", held, want)
				}
			})
		}
	}
}

// Where there is room for few, those that are read most often stay.
func TestHotIndex_HidesNoReadsWhereThereIsRoomForFew(t *testing.T) {
	const room, hot = 20, 5
	n := newNear[int](room * 300)
	rng := rand.NewZipf(rand.New(rand.NewPCG(1, 1)), 1.5, 1, 10_000)
	reads, hits, start := 0, 0, clock.Now()
	for i := range 400_000 {
		k := int(rng.Uint64())
		key := strconv.Itoa(k)
		_, ok := n.hot(key, start+int64(i/20_000))
		if i > 100_000 && k < hot {
			if reads++; ok {
				hits++
			}
		}
		if !ok {
			n.keep(key, &nearEntry[int]{value: k, weight: 300})
		}
	}
	if share := float64(hits) / float64(reads); share < 0.998 {
		t.Errorf("%.4f of the reads of the %d hottest keys are hits", share, hot)
	} else {
		t.Logf("%.4f of the reads of the %d hottest keys are hits", share, hot)
	}
}
