package cache_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
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

// A renewal that failed was next tried after another third of LeaseTTL, and one
// whose read failed was left out.
func TestLease_IsRenewedSoonAfterAStallThatIsShorterThanIt(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	opt := cache.Options[string]{LeaseTTL: 3 * time.Second, ReadTimeout: 100 * time.Millisecond}
	a, b := newCache(t, openConfig(t, s.Config()), opt), newCache(t, openConfig(t, s.Config()), opt)
	mustLoad(t, a, "warm", always("v"), "v")
	mustLoad(t, b, "warm", always("v"), "v")
	began := time.Now()
	at := func(d time.Duration) { time.Sleep(time.Until(began.Add(d))) }
	var wg sync.WaitGroup
	wg.Go(func() { mustLoad(t, a, "k", slowly(4*time.Second, "v"), "v") })
	at(900 * time.Millisecond)
	s.Pause()
	at(2300 * time.Millisecond)
	s.Resume()
	at(3300 * time.Millisecond)
	mustLoad(t, b, "k", always("w"), "v")
	wg.Wait()
}

// The lease was read every NearTTL also where Redis notifies of its changes.
func TestLease_IsNotReadWhileRedisNotifiesOfItsChanges(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	c := newCache(t, openConfig(t, s.Config()), cache.Options[string]{NearTTL: 20 * time.Millisecond, LeaseTTL: time.Minute})
	mustLoad(t, c, "warm", always("v"), "v")
	reads := func() (n int) {
		for line := range strings.Lines(s.Do(t, "INFO", "commandstats").(string)) {
			if rest, ok := strings.CutPrefix(line, "cmdstat_get:calls="); ok {
				text, _, _ := strings.Cut(rest, ",")
				n, _ = strconv.Atoi(text)
			}
		}
		return n
	}
	var wg sync.WaitGroup
	began, end := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		mustLoad(t, c, "k", func(context.Context) (string, error) { close(began); <-end; return "old", nil }, "old")
	})
	<-began
	time.Sleep(200 * time.Millisecond) // Redis notifies
	before := reads()
	time.Sleep(300 * time.Millisecond)
	if n := reads() - before; before == 0 || n > 0 {
		t.Errorf("%d reads of the lease, %d before", n, before)
	}
	s.Do(t, "DEL", "m1:cache:c:{k}:lease") // a change by another process
	testkit.Eventually(t, "a later caller does not share the load", func() bool {
		// A call before the notification shares it, and would wait for its end.
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		v, err := c.GetOrLoad(ctx, "k", always("new"), cache.WithTTL(time.Hour))
		return err == nil && v == "new"
	})
	close(end)
	wg.Wait()
}
