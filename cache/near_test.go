package cache_test

import (
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// A near hit takes no memory and no round trip.
func TestNearHit_AllocatesNothing(t *testing.T) {
	c := newCache(t, open(t), cache.Options[user]{NearCacheBytes: near, TTL: time.Hour, RefreshAhead: 0.9, Tags: []string{"a", "b"}})
	load := always(user{1, "Alice"})
	ctx := t.Context()
	testkit.Eventually(t, "a near copy", func() bool {
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

// The bound of near copies was a bound of what Redis holds: maps and lists took five times that and
// more in this process.
func TestNear_BoundsTheMemoryOfDecodedValues(t *testing.T) {
	const bound = 8 << 20
	c := newCache(t, open(t), cache.Options[map[string]any]{NearCacheBytes: bound, TTL: time.Hour})
	ctx := t.Context()
	value := map[string]any{}
	for i := range 400 {
		value[strconv.Itoa(i)] = []any{i, "x"}
	}
	const values = 600 // some 40 MB when they are decoded, 4 MB in Redis
	for i := range values {
		if err := c.Set(ctx, strconv.Itoa(i), value); err != nil {
			t.Fatal(err)
		}
	}
	before := heap()
	for i := range values {
		for range 2 { // the first may come before the notification
			if _, found, err := c.Get(ctx, strconv.Itoa(i)); err != nil || !found {
				t.Fatal(found, err)
			}
		}
	}
	took := int64(heap()) - int64(before)
	for end := time.Now().Add(10 * time.Second); took > bound*3/2 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		took = int64(heap()) - int64(before) // what is too much goes in the background
	}
	t.Logf("NearCacheBytes %d KiB: %d KiB in use", bound>>10, took>>10)
	if took > bound*3/2 || took < bound/4 {
		t.Errorf("NearCacheBytes %d KiB: %d KiB in use", bound>>10, took>>10)
	}
	if _, _, err := c.Get(ctx, "0"); err != nil { // it lives until here
		t.Fatal(err)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkNearHit(b *testing.B) {
	c := newCache(b, open(b), cache.Options[user]{NearCacheBytes: near, TTL: time.Hour})
	load := always(user{1, "Alice"})
	ctx := b.Context()
	testkit.Eventually(b, "a near copy", func() bool {
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
