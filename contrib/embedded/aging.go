package embedded

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alicebob/miniredis/v2"
)

const (
	// idleTick is how often keys age when no command comes.
	idleTick = 100 * time.Millisecond
	// leastGap and gapFactor say when keys age before a request: when they last did
	// so at least leastGap ago, and 20 times as long ago as it took. It walks over
	// all keys, and so takes at most 5 % of the time.
	leastGap  = time.Millisecond
	gapFactor = 20
	mostGap   = time.Second
)

// aging makes keys expire in real time. miniredis stands still until it
// hears how much time has passed, and takes that off every key, those that were
// set a moment ago included: a slow tick alone would let keys expire up to a
// tick too early. So time passes whenever a request arrives, too. (Not in a
// hook before each command: commands within a script pass it as well, under
// the lock that aging needs.)
type aging struct {
	redis *miniredis.Miniredis
	quit  chan struct{}
	ended chan struct{}

	start time.Time
	next  atomic.Int64 // when keys may age again, since start
	mu    sync.Mutex
	last  time.Duration // when they last did, since start
	took  [4]time.Duration
	turn  int
}

func startAging(m *miniredis.Miniredis) *aging {
	a := &aging{redis: m, start: time.Now(), quit: make(chan struct{}), ended: make(chan struct{})}
	go a.run()
	return a
}

func (a *aging) run() {
	defer close(a.ended)
	tick := time.NewTicker(idleTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.advance()
		case <-a.quit:
			return
		}
	}
}

func (a *aging) stop() {
	close(a.quit)
	<-a.ended
}

// advance lets the time that has passed pass for the keys, too.
func (a *aging) advance() {
	if int64(time.Since(a.start)) < a.next.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Since(a.start)
	if int64(now) < a.next.Load() {
		return
	}
	a.redis.FastForward(now - a.last)
	a.last = now
	after := time.Since(a.start)
	// The least of some: one alone may have waited for a lock or a processor.
	a.took[a.turn%len(a.took)] = after - now
	a.turn++
	gap := min(max(leastGap, gapFactor*slices.Min(a.took[:])), mostGap)
	a.next.Store(int64(after + gap))
}
