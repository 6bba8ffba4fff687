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

	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

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
	var shared [50]atomic.Int64 // how long the last load of a hot key took
	for g := range 64 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key, loaded := fmt.Sprintf("k%d-%d", g, i), new(atomic.Int64)
				if i%2 == 1 {
					key, loaded = fmt.Sprintf("hot%d", i%50), &shared[i%50]
				}
				start := time.Now()
				_, err := c.GetOrLoad(ctx, key, func(context.Context) (string, error) {
					began := time.Now()
					defer func() { loaded.Store(int64(time.Since(began))) }()
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
				phase.Load().add(max(0, took-time.Duration(loaded.Load()))) // of the time when it ended
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	phase.Store(&first)
	late := testkit.MeasureLateness()
	s.Pause()
	time.Sleep(time.Second)
	lateBy := late.Stop()
	phase.Store(&later)
	lateLater := testkit.MeasureLateness()
	time.Sleep(time.Second)
	lateByLater := lateLater.Stop()
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
	t.Logf("the scheduler was late by %v in the first second, by %v later", lateBy, lateByLater)
	if _, _, p99, _ := first.sorted(); p99 > testkit.Slack(readTimeout+5*time.Millisecond)+lateBy { // calls end within 5 ms of their time
		t.Errorf("in the first second p99 is the loader and %v", p99)
	}
	within := time.Millisecond
	if !testkit.Chaos {
		within = testkit.Slack(within) + lateByLater
	}
	if n, _, p99, _ := later.sorted(); n == 0 || p99 > within {
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
		NearCacheBytes: near, TTL: 50 * time.Millisecond, Jitter: -1, StaleTTL: time.Hour, SoftTimeout: 20 * time.Millisecond,
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
	if mostHard < 100*time.Millisecond || mostHard > 100*time.Millisecond+testkit.Slack(50*time.Millisecond) || mostSoft > 20*time.Millisecond+testkit.Slack(50*time.Millisecond) {
		t.Errorf("freed after %v and %v", mostHard, mostSoft)
	}
	if n := began.Load(); n != 2 {
		t.Errorf("%d loads of 2 keys", n)
	}
	for _, key := range []string{"cold", "stale"} {
		testkit.Eventually(t, "another process can load", func() bool {
			v, err := b.GetOrLoad(t.Context(), key, always("new"))
			return err == nil && v == "new"
		})
	}
	freed := time.Since(start)
	t.Logf("another process had loaded after %v (load time-out 300 ms, backoff 50 ms, lease 30 s)", freed)
	if freed > 350*time.Millisecond+testkit.Slack(150*time.Millisecond) {
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
	testkit.Eventually(t, "there is room again", func() bool {
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
	testkit.Eventually(t, "it can be loaded after the backoff", func() bool {
		v, err := b.GetOrLoad(t.Context(), "k", always("v"))
		return v == "v" && err == nil
	})
}
