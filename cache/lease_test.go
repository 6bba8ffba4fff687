package cache_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestLease_WithoutALifetimeBlocksNoOne(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := newCache(t, openConfig(t, s.Config()), cache.Options[string]{LeaseTTL: 200 * time.Millisecond})
	s.Do(t, "SET", "m1:cache:c:{k}:lease", "foreign")
	start := time.Now()
	mustLoad(t, c, "k", always("v"), "v")
	if took := time.Since(start); took > time.Second {
		t.Errorf("%v", took)
	}
}

// A bulkhead is for loads, not for those who wait for another process.
func TestGetOrLoad_WaitingForAnotherProcessTakesNoneOfMaxLoads(t *testing.T) {
	ra, rb := openTwice(t)
	a := newCache(t, ra, cache.Options[string]{})
	b := newCache(t, rb, cache.Options[string]{MaxLoads: 2})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { mustLoad(t, a, "slow"+strconv.Itoa(i), slowly(600*time.Millisecond, "v"), "v") })
	}
	time.Sleep(50 * time.Millisecond)
	for i := range 4 {
		wg.Go(func() { mustLoad(t, b, "slow"+strconv.Itoa(i), always("w"), "v") })
	}
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	mustLoad(t, b, "own", always("v"), "v")
	if took := time.Since(start); took > 300*time.Millisecond {
		t.Errorf("a load of its own began after %v", took)
	}
	wg.Wait()
}
