package cache_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// pair is a process that has near copies and another one that changes values.
type pair struct {
	t           testing.TB
	reader      *madcrow.Redis
	near, other *cache.Cache[int]
}

// pairNearTTL is how long copies are believed of which Redis does not notify.
const pairNearTTL = 200 * time.Millisecond

func newPair(t testing.TB, reader, writer madcrow.Config) *pair {
	t.Helper()
	p := &pair{t: t, reader: openConfig(t, reader)}
	opt := cache.Options[int]{NearCacheBytes: near, NearTTL: pairNearTTL, TTL: time.Hour, ReadTimeout: 100 * time.Millisecond}
	p.near = newCache(t, p.reader, opt)
	p.other = newCache(t, openConfig(t, writer), opt)
	return p
}

// fill makes sure that the reader has a near copy of the value n.
func (p *pair) fill(key string, n int) {
	p.t.Helper()
	testkit.Eventually(p.t, "a near copy", func() bool {
		if err := p.other.Set(p.t.Context(), key, n); err != nil {
			return false
		}
		for range 3 {
			res, err := p.near.GetResult(p.t.Context(), key)
			if err == nil && res.Source == cache.SourceNear && res.Value == n {
				return true
			}
		}
		return false
	})
}

// stale changes a value and returns how long after that the reader still served
// what was there before, and how long after it was known to be away. Errors and
// misses are no stale values.
func (p *pair) stale(key string, n int, within time.Duration) (window, known time.Duration) {
	p.t.Helper()
	testkit.Eventually(p.t, "the value can be changed", func() bool { return p.other.Set(p.t.Context(), key, n) == nil })
	start := time.Now()
	var away time.Time
	var quiet time.Time // since when nothing is served
	for time.Since(start) < within && (quiet.IsZero() || time.Since(quiet) < time.Second) {
		began := time.Now()
		st := p.reader.State()
		v, found, _ := p.near.Get(p.t.Context(), key)
		if found && v == n {
			break
		}
		if st != madcrow.StateDown {
			away = time.Time{}
		} else if away.IsZero() {
			away = began
		}
		if !found && quiet.IsZero() {
			quiet = began
		}
		if found {
			quiet = time.Time{}
			if window = began.Sub(start); !away.IsZero() {
				known = max(known, began.Sub(away))
			}
		}
		time.Sleep(100 * time.Microsecond)
	}
	return window, known
}

func TestCoherence_ConnectionIsKilled(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	p := newPair(t, s.Config(), s.Config())
	var worst time.Duration
	for i := range 10 {
		p.fill("k", 2*i)
		s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		window, _ := p.stale("k", 2*i+1, 5*time.Second)
		worst = max(worst, window)
	}
	t.Logf("the connection is killed: an old value for %v at most", worst)
	if worst > testkit.Slack(50*time.Millisecond) {
		t.Errorf("an old value for %v", worst)
	}
}

func TestCoherence_ConnectionIsSwallowed(t *testing.T) {
	for _, busy := range []bool{false, true} {
		s := madcrowtest.StartRedis(t)
		proxy := madcrowtest.StartProxy(t, s.Addr())
		cfg := s.Config()
		cfg.Port = proxy.Port()
		p := newPair(t, cfg, s.Config())
		p.fill("k", 1)
		p.fill("other", 1)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		proxy.BlackHole(true)
		if busy { // calls notice it
			wg.Go(func() {
				for ctx.Err() == nil {
					_, _, _ = p.near.Get(ctx, "absent")
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		window, known := p.stale("k", 2, 6*time.Second)
		cancel()
		wg.Wait()
		t.Logf("the wire swallows everything (other calls: %v): an old value for %v, and %v after Redis was known to be away", busy, window, known)
		// An idle connection is tried each second, if nothing came in that second,
		// and is given a second to answer.
		if window > testkit.Slack(3100*time.Millisecond) || busy && window > testkit.Slack(500*time.Millisecond) {
			t.Errorf("an old value for %v", window)
		}
		if known > testkit.Slack(5*time.Millisecond) {
			t.Errorf("an old value for %v after Redis was known to be away", known)
		}
		proxy.BlackHole(false)
		testkit.Eventually(t, "it is right again", func() bool { v, _, err := p.near.Get(t.Context(), "other"); return v == 1 && err == nil })
	}
}

// A Redis that was frozen has lost nothing, and so near copies are true again.
func TestCoherence_FrozenRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	p := newPair(t, s.Config(), s.Config())
	p.fill("k", 1)
	p.fill("other", 1)
	s.Pause()
	testkit.Eventually(t, "it is known to be away", func() bool {
		_, _, _ = p.near.Get(t.Context(), "absent")
		return p.reader.State() == madcrow.StateDown
	})
	if v, found, err := p.near.Get(t.Context(), "k"); found || err == nil {
		t.Errorf("served while Redis is known to be away: %v", v)
	}
	s.Resume()
	window, _ := p.stale("k", 2, 5*time.Second)
	t.Logf("after it was frozen: an old value for %v", window)
	if window > testkit.Slack(50*time.Millisecond) {
		t.Errorf("an old value for %v", window)
	}
}

func TestCoherence_FlushAll(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	p := newPair(t, s.Config(), s.Config())
	var worst time.Duration
	for i := range 10 {
		p.fill("k", 2*i)
		s.Do(t, "FLUSHALL")
		start := time.Now()
		for time.Since(start) < time.Second {
			if _, found, _ := p.near.Get(t.Context(), "k"); !found {
				break
			}
			worst = max(worst, time.Since(start))
		}
		if window, _ := p.stale("k", 2*i+1, 5*time.Second); window > testkit.Slack(50*time.Millisecond) {
			t.Errorf("an old value for %v", window)
		}
	}
	t.Logf("FLUSHALL: an old value for %v at most", worst)
	if worst > testkit.Slack(50*time.Millisecond) {
		t.Errorf("an old value for %v after FLUSHALL", worst)
	}
}

// A failover in order, and one after a afterCrash. What is new is set at the new
// master.
func TestCoherence_SentinelFailover(t *testing.T) {
	set := madcrowtest.StartSentinel(t)
	p := newPair(t, set.Config(), set.Config())
	how := []bool{false} // after a afterCrash the connection ends at once
	if testkit.Chaos {
		how = []bool{false, true}
	}
	for i, afterCrash := range how {
		set.WaitReady(t)
		key := fmt.Sprint("k", i)
		p.fill(key, 1)
		done := make(chan struct{})
		master := set.Master()
		old := master.Addr()
		go func() {
			defer close(done)
			if afterCrash {
				master.Kill()
			} else {
				set.Failover(t)
			}
		}()
		start := time.Now()
		var moved atomic.Int64 // when the new master had the new value
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			// A writer that knows the new master at once.
			for ctx.Err() == nil {
				for _, n := range set.Nodes() {
					if n.Addr() == old {
						continue
					}
					direct := n.Config()
					direct.Require = true
					r, err := madcrow.Open(ctx, direct)
					if err != nil {
						continue
					}
					c, err := cache.New(r, "c", cache.Options[int]{})
					if err == nil {
						if err = c.Set(ctx, key, 2); err == nil {
							moved.CompareAndSwap(0, time.Now().UnixNano())
						}
						short, stop := context.WithTimeout(ctx, time.Millisecond)
						_ = c.Close(short)
						stop()
					}
					_ = r.Close(ctx)
					if moved.Load() != 0 {
						return
					}
				}
			}
		})
		var window time.Duration
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			began := time.Now()
			at := moved.Load()
			v, found, _ := p.near.Get(t.Context(), key)
			if found && v == 2 {
				break
			}
			if found && at != 0 {
				window = max(window, began.Sub(time.Unix(0, at)))
			}
		}
		cancel()
		wg.Wait()
		<-done
		t.Logf("failover (afterCrash: %v): the new value stood after %v, an old one was served for %v after that", afterCrash, time.Unix(0, moved.Load()).Sub(start), window)
		if window > testkit.Slack(2500*time.Millisecond) {
			t.Errorf("an old value for %v", window)
		}
		if afterCrash {
			master.Start()
		}
	}
}

func TestCoherence_ClusterMovesSlots(t *testing.T) {
	cl := madcrowtest.StartCluster(t)
	p := newPair(t, cl.Config(), cl.Config())
	keys := []string{"a", "b", "c", "d"}
	for _, k := range keys {
		p.fill(k, 1)
	}
	var worst time.Duration
	for i, k := range keys {
		full := "m1:cache:c:{" + k + "}"
		from := cl.MasterOf(t, full)
		var to *madcrowtest.Server
		for _, n := range cl.Nodes()[:3] {
			if n != from {
				to = n
			}
		}
		if i%2 == 0 {
			cl.MoveSlot(t, cl.Slot(full), to)
		} else { // the reader's map is old when the value changes
			cl.BeginMove(t, cl.Slot(full), to)
			cl.MoveKeys(t, to, full)
		}
		window, _ := p.stale(k, 2, 5*time.Second)
		worst = max(worst, window)
		if i%2 == 1 {
			cl.FinishMove(t, cl.Slot(full), to)
			if window, _ = p.stale(k, 3, 5*time.Second); window > worst {
				worst = window
			}
		}
	}
	t.Logf("slots move: an old value for %v at most", worst)
	if worst > pairNearTTL+testkit.Slack(50*time.Millisecond) { // it does not notify of keys that have moved
		t.Errorf("an old value for %v", worst)
	}
	p.fill("k", 1)
	full := "m1:cache:c:{k}"
	cl.Failover(t, cl.ReplicaOf(t, full))
	window, _ := p.stale("k", 2, 10*time.Second)
	t.Logf("a replica takes over: an old value for %v", window)
	if window > testkit.Slack(500*time.Millisecond) {
		t.Errorf("an old value for %v", window)
	}
}

// Where Redis refuses to track, copies live for a short time, and all is right.
func TestCoherence_TrackingIsRefused(t *testing.T) {
	if madcrowtest.OlderThan(t, "7.0") {
		t.Skip("a user may be refused a single subcommand from Redis 7.0 on")
	}
	testWithoutPushes(t, madcrowtest.WithUser("app", "pw", "~*", "&*", "+@all", "-client|tracking"))
}

// The same where CLIENT TRACKING is accepted and nothing is pushed, as over
// RESP2: an old value was served for as long as the entry lived.
func TestCoherence_TrackingThatNeverPushes(t *testing.T) {
	testWithoutPushes(t, madcrowtest.WithArgs("--rename-command", "HELLO", ""))
}

func testWithoutPushes(t *testing.T, o madcrowtest.Option) {
	s := madcrowtest.StartRedis(t, o)
	const short = 100 * time.Millisecond
	cfg := s.Config()
	opt := cache.Options[int]{NearCacheBytes: near, NearTTL: short, TTL: time.Hour, Tags: []string{"x"}}
	a, b := newCache(t, openConfig(t, cfg), opt), newCache(t, openConfig(t, cfg), opt)
	var worst time.Duration
	for i := range 12 {
		old, fresh := 2*i, 2*i+1
		testkit.Eventually(t, "a near copy", func() bool {
			if err := b.Set(t.Context(), "k", old); err != nil { // again, as long as it does not know of the removal
				t.Fatal(err)
			}
			_, _, _ = a.Get(t.Context(), "k")
			res, err := a.GetResult(t.Context(), "k")
			return err == nil && res.Source == cache.SourceNear && res.Value == old
		})
		var err error
		switch i % 3 {
		case 0:
			err = b.Set(t.Context(), "k", fresh)
		case 1:
			err = b.Delete(t.Context(), "k")
		case 2:
			err = b.DeleteTag(t.Context(), "x")
		}
		if err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); ; {
			began := time.Now()
			v, found, err := a.Get(t.Context(), "k")
			if err != nil || !found || v == fresh {
				break
			}
			worst = max(worst, began.Sub(start))
			time.Sleep(time.Millisecond)
		}
		// Its own changes count at once.
		if err := a.Set(t.Context(), "k", fresh); err != nil {
			t.Fatal(err)
		}
		mustLoad(t, a, "k", always(-1), fresh)
		if err := a.DeleteTag(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		mustLoad(t, a, "k", always(-1), -1)
	}
	t.Logf("tracking is refused: an old value for %v (NearTTL %v)", worst, short)
	if worst > short+testkit.Slack(20*time.Millisecond) {
		t.Errorf("an old value for %v", worst)
	}
	// One load for all, without pushes.
	var loads atomic.Int64
	var wg sync.WaitGroup
	for _, c := range []*cache.Cache[int]{a, b} {
		for range 16 {
			wg.Go(func() {
				mustLoad(t, c, "cold", func(context.Context) (int, error) {
					time.Sleep(100 * time.Millisecond)
					return int(loads.Add(1)), nil
				}, 1)
			})
		}
	}
	wg.Wait()
}
