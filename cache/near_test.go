package cache_test

import (
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/cache"
)

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
