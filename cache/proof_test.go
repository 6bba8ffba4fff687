package cache_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// pair is a process that has near copies and another one that changes values.
type pair struct {
	t           testing.TB
	reader      *madcrow.Redis
	near, other *cache.Cache[int]
}

// pairNearTTL is how long copies are believed of which Redis does not tell.
const pairNearTTL = 200 * time.Millisecond

func newPair(t testing.TB, reader, writer madcrow.Config) *pair {
	t.Helper()
	p := &pair{t: t, reader: openConfig(t, reader)}
	opt := cache.Options[int]{Near: near, NearTTL: pairNearTTL, TTL: time.Hour, ReadTimeout: 100 * time.Millisecond}
	p.near = newCache(t, p.reader, opt)
	p.other = newCache(t, openConfig(t, writer), opt)
	return p
}

// fill makes sure that the reader has a near copy of the value n.
func (p *pair) fill(key string, n int) {
	p.t.Helper()
	soon(p.t, "a near copy", func() bool {
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
	soon(p.t, "the value can be changed", func() bool { return p.other.Set(p.t.Context(), key, n) == nil })
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
	if worst > slack(50*time.Millisecond) {
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
		if window > slack(3100*time.Millisecond) || busy && window > slack(500*time.Millisecond) {
			t.Errorf("an old value for %v", window)
		}
		if known > slack(5*time.Millisecond) {
			t.Errorf("an old value for %v after Redis was known to be away", known)
		}
		proxy.BlackHole(false)
		soon(t, "it is right again", func() bool { v, _, err := p.near.Get(t.Context(), "other"); return v == 1 && err == nil })
	}
}

// A Redis that was frozen has lost nothing, and so near copies are true again.
func TestCoherence_FrozenRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	p := newPair(t, s.Config(), s.Config())
	p.fill("k", 1)
	p.fill("other", 1)
	s.Pause()
	soon(t, "it is known to be away", func() bool {
		_, _, _ = p.near.Get(t.Context(), "absent")
		return p.reader.State() == madcrow.StateDown
	})
	if v, found, err := p.near.Get(t.Context(), "k"); found || err == nil {
		t.Errorf("served while Redis is known to be away: %v", v)
	}
	s.Resume()
	window, _ := p.stale("k", 2, 5*time.Second)
	t.Logf("after it was frozen: an old value for %v", window)
	if window > slack(50*time.Millisecond) {
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
		if window, _ := p.stale("k", 2*i+1, 5*time.Second); window > slack(50*time.Millisecond) {
			t.Errorf("an old value for %v", window)
		}
	}
	t.Logf("FLUSHALL: an old value for %v at most", worst)
	if worst > slack(50*time.Millisecond) {
		t.Errorf("an old value for %v after FLUSHALL", worst)
	}
}

// A failover in order, and one after a crash. What is new is set at the new
// master.
func TestCoherence_SentinelFailover(t *testing.T) {
	set := madcrowtest.StartSentinel(t)
	p := newPair(t, set.Config(), set.Config())
	how := []bool{false} // after a crash the connection tells at once
	if strict {
		how = []bool{false, true}
	}
	for i, crash := range how {
		set.WaitReady(t)
		key := fmt.Sprint("k", i)
		p.fill(key, 1)
		done := make(chan struct{})
		master := set.Master()
		old := master.Addr()
		go func() {
			defer close(done)
			if crash {
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
			// A writer that is told of the new master at once.
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
		t.Logf("failover (crash: %v): the new value stood after %v, an old one was served for %v after that", crash, time.Unix(0, moved.Load()).Sub(start), window)
		if window > slack(2500*time.Millisecond) {
			t.Errorf("an old value for %v", window)
		}
		if crash {
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
	if worst > pairNearTTL+slack(50*time.Millisecond) { // of keys that have moved alone it does not tell
		t.Errorf("an old value for %v", worst)
	}
	p.fill("k", 1)
	full := "m1:cache:c:{k}"
	cl.Failover(t, cl.ReplicaOf(t, full))
	window, _ := p.stale("k", 2, 10*time.Second)
	t.Logf("a replica takes over: an old value for %v", window)
	if window > slack(500*time.Millisecond) {
		t.Errorf("an old value for %v", window)
	}
}

// Where Redis refuses to tell, copies live for a short time, and all is right.
func TestCoherence_TrackingIsRefused(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithUser("app", "pw", "~*", "&*", "+@all", "-client|tracking"))
	const short = 100 * time.Millisecond
	cfg := s.Config()
	opt := cache.Options[int]{Near: near, NearTTL: short, TTL: time.Hour, Tags: []string{"x"}}
	a, b := newCache(t, openConfig(t, cfg), opt), newCache(t, openConfig(t, cfg), opt)
	var worst time.Duration
	for i := range 12 {
		old, fresh := 2*i, 2*i+1
		soon(t, "a near copy", func() bool {
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
	if worst > short+slack(20*time.Millisecond) {
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

// figures are times of many calls.
type figures struct {
	mu  sync.Mutex
	all []time.Duration
}

func (f *figures) add(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, d)
}

func (f *figures) sorted() (n int, p50, p99, most time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.all)
	if n = len(f.all); n == 0 {
		return 0, 0, 0, 0
	}
	return n, f.all[n/2], f.all[min(n-1, n*99/100)], f.all[n-1]
}

// TestFrozenRedis_GetOrLoadGoesOnWithTheLoader stops Redis with SIGSTOP under
// load. What a call takes beyond its own load is measured.
func TestFrozenRedis_GetOrLoadGoesOnWithTheLoader(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	const readTimeout = 100 * time.Millisecond
	r := openConfig(t, s.Config())
	c := newCache(t, r, cache.Options[string]{ReadTimeout: readTimeout})
	value := strings.Repeat("v", 100)
	var phase atomic.Pointer[figures]
	ctx, cancel := context.WithCancel(t.Context())
	var before, first, later, back figures
	phase.Store(&before)
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("k%d-%d", g, i)
				if i%2 == 1 {
					key = fmt.Sprintf("hot%d", i%50)
				}
				var own atomic.Int64
				start := time.Now()
				_, err := c.GetOrLoad(ctx, key, func(context.Context) (string, error) {
					began := time.Now()
					defer func() { own.Store(int64(time.Since(began))) }()
					time.Sleep(5 * time.Millisecond)
					return value, nil
				})
				took := time.Since(start)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("%v", err)
				}
				loader := time.Duration(own.Load())
				if loader == 0 {
					loader = 5 * time.Millisecond // another's
				}
				phase.Load().add(max(0, took-loader)) // of the time when it ended
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	phase.Store(&first)
	late := measureLateness()
	s.Pause()
	time.Sleep(time.Second)
	behind := late.end()
	phase.Store(&later)
	lateLater := measureLateness()
	time.Sleep(time.Second)
	behindLater := lateLater.end()
	phase.Store(&back)
	s.Resume()
	time.Sleep(500 * time.Millisecond)
	cancel()
	wg.Wait()
	for _, f := range []struct {
		name string
		of   *figures
	}{{"before", &before}, {"frozen, the first second", &first}, {"frozen, later", &later}, {"after it", &back}} {
		n, p50, p99, most := f.of.sorted()
		t.Logf("%s: %d calls, beyond the loader: p50 %v, p99 %v, at most %v", f.name, n, p50, p99, most)
	}
	t.Logf("the scheduler was late by %v in the first second, by %v later", behind, behindLater)
	if _, _, p99, _ := first.sorted(); p99 > slack(readTimeout+5*time.Millisecond)+behind { // calls end within 5 ms of their time
		t.Errorf("in the first second p99 is the loader and %v", p99)
	}
	if n, _, p99, _ := later.sorted(); n == 0 || p99 > slack(time.Millisecond)+behindLater {
		t.Errorf("later p99 is the loader and %v", p99)
	}
}

// hang is a loader that does not heed its context.
func hang(until <-chan struct{}, began *atomic.Int64) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		began.Add(1)
		<-until
		return "late", nil
	}
}

func TestHungLoader_FreesItsCallersAndTheKey(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	opt := cache.Options[string]{
		Near: near, TTL: 50 * time.Millisecond, Jitter: -1, StaleFor: time.Hour, SoftTimeout: 20 * time.Millisecond,
		HardTimeout: 100 * time.Millisecond, LoadTimeout: 300 * time.Millisecond, LeaseTTL: 30 * time.Second, Backoff: 50 * time.Millisecond,
	}
	a, b := newCache(t, openConfig(t, s.Config()), opt), newCache(t, openConfig(t, s.Config()), opt)
	mustLoad(t, a, "stale", always("old"), "old")
	time.Sleep(60 * time.Millisecond)
	end := make(chan struct{})
	defer close(end)
	var began atomic.Int64
	start := time.Now()
	var wg sync.WaitGroup
	var hard, soft figures
	for range 20 {
		wg.Go(func() {
			at := time.Now()
			if _, err := a.GetOrLoad(t.Context(), "cold", hang(end, &began)); !errors.Is(err, cache.ErrLoadTimeout) {
				t.Errorf("cold: %v", err)
			}
			hard.add(time.Since(at))
		})
		wg.Go(func() {
			at := time.Now()
			if v, err := a.GetOrLoad(t.Context(), "stale", hang(end, &began)); v != "old" || err != nil {
				t.Errorf("stale: %q %v", v, err)
			}
			soft.add(time.Since(at))
		})
	}
	wg.Wait()
	_, _, _, mostHard := hard.sorted()
	_, _, _, mostSoft := soft.sorted()
	t.Logf("callers were freed after %v (hard time-out 100 ms), and served a stale value after %v (soft time-out 20 ms)", mostHard, mostSoft)
	if mostHard < 100*time.Millisecond || mostHard > 100*time.Millisecond+slack(50*time.Millisecond) || mostSoft > 20*time.Millisecond+slack(50*time.Millisecond) {
		t.Errorf("freed after %v and %v", mostHard, mostSoft)
	}
	if n := began.Load(); n != 2 {
		t.Errorf("%d loads of 2 keys", n)
	}
	for _, key := range []string{"cold", "stale"} {
		soon(t, "another process can load", func() bool {
			v, err := b.GetOrLoad(t.Context(), key, always("new"))
			return err == nil && v == "new"
		})
	}
	freed := time.Since(start)
	t.Logf("another process had loaded after %v (load time-out 300 ms, backoff 50 ms, lease 30 s)", freed)
	if freed > 350*time.Millisecond+slack(150*time.Millisecond) {
		t.Errorf("another process could load after %v", freed)
	}
	for _, key := range []string{"cold", "stale"} {
		if n := s.Do(t, "EXISTS", "m1:cache:c:{"+key+"}:lease"); n != int64(0) {
			t.Errorf("%s: a lease is left", key)
		}
		mustLoad(t, a, key, always("wrong"), "new")
	}
}

// What hangs takes a place of MaxLoads until it ends: the source is not asked by
// more than that.
func TestHungLoader_LoadsAreBounded(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{MaxLoads: 3, LoadTimeout: 100 * time.Millisecond, Backoff: time.Millisecond})
	end := make(chan struct{})
	var began atomic.Int64
	var wg sync.WaitGroup
	for round := range 2 {
		for i := range 6 {
			wg.Go(func() {
				_, err := c.GetOrLoad(t.Context(), fmt.Sprint("k", round, i), hang(end, &began))
				if !errors.Is(err, cache.ErrLoadTimeout) && !errors.Is(err, cache.ErrBusy) {
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
	}
	if n := began.Load(); n != 3 {
		t.Errorf("%d loads, want 3", n)
	}
	close(end)
	soon(t, "there is room again", func() bool {
		v, err := c.GetOrLoad(t.Context(), "other", always("v"))
		return v == "v" && err == nil
	})
}

func TestGetOrLoad_PanicIsAnErrorForAll(t *testing.T) {
	ra, rb := openTwice(t)
	opt := cache.Options[string]{Backoff: 50 * time.Millisecond}
	a, b := newCache(t, ra, opt), newCache(t, rb, opt)
	var loads atomic.Int64
	bad := func(context.Context) (string, error) {
		loads.Add(1)
		time.Sleep(20 * time.Millisecond)
		panic("oh")
	}
	var wg sync.WaitGroup
	for range 10 {
		for _, c := range []*cache.Cache[string]{a, b} {
			wg.Go(func() {
				if _, err := c.GetOrLoad(t.Context(), "k", bad); err == nil {
					t.Error("no error")
				}
			})
		}
	}
	wg.Wait()
	if n := loads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
	soon(t, "it can be loaded after the backoff", func() bool {
		v, err := b.GetOrLoad(t.Context(), "k", always("v"))
		return v == "v" && err == nil
	})
}

// A near hit takes no memory and no round trip.
func TestNearHit_AllocatesNothing(t *testing.T) {
	c := newCache(t, open(t), cache.Options[user]{Near: near, TTL: time.Hour, RefreshAhead: 0.9, Tags: []string{"a", "b"}})
	load := always(user{1, "Alice"})
	ctx := t.Context()
	soon(t, "a near copy", func() bool {
		_, _ = c.GetOrLoad(ctx, "k", load)
		res, err := c.GetResult(ctx, "k")
		return err == nil && res.Source == cache.SourceNear
	})
	if n := testing.AllocsPerRun(1000, func() { _, _, _ = c.Get(ctx, "k") }); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.GetOrLoad(ctx, "k", load) }); n != 0 {
		t.Errorf("GetOrLoad allocates %v times", n)
	}
	const rounds = 100_000
	start := time.Now()
	for range rounds {
		_, _, _ = c.Get(ctx, "k")
	}
	get := time.Since(start) / rounds
	start = time.Now()
	for range rounds {
		_, _ = c.GetOrLoad(ctx, "k", load)
	}
	t.Logf("near hit: Get %v, GetOrLoad %v, with two tags", get, time.Since(start)/rounds)
}

func BenchmarkNearHit(b *testing.B) {
	c := newCache(b, open(b), cache.Options[user]{Near: near, TTL: time.Hour})
	load := always(user{1, "Alice"})
	ctx := b.Context()
	soon(b, "a near copy", func() bool {
		_, _ = c.GetOrLoad(ctx, "k", load)
		res, err := c.GetResult(ctx, "k")
		return err == nil && res.Source == cache.SourceNear
	})
	b.Run("Get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _, _ = c.Get(ctx, "k")
		}
	})
	b.Run("GetOrLoad", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = c.GetOrLoad(ctx, "k", load)
		}
	})
	b.Run("GetOrLoadParallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = c.GetOrLoad(ctx, "k", load)
			}
		})
	})
}
