package main

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	peer "github.com/go-redis/cache/v9"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/maypok86/otter/v2"
	"github.com/viccon/sturdyc"
)

// cacheMemory is no race: it shows how many entries of a struct of six fields
// each keeps in a MiB of this process' heap, measured after a collection.
func cacheMemory(e *environment) (race, error) {
	const entries = 20_000
	names := make([]string, entries)
	for i := range names {
		names[i] = "user:" + strconv.Itoa(i)
	}
	fmt.Printf("\ncache-memory: %d entries of a struct of six fields, which alone is %d bytes of heap\n", entries, heapOf(func() any {
		all := make([]user, entries)
		for i := range all {
			all[i] = userOf(i)
		}
		return all
	})/entries)
	show := func(name string, heap, held int64) {
		fmt.Printf("  %-46s %6d bytes an entry, %6d entries a MiB, %6d held\n", name, heap/held, held<<20/heap, held)
	}

	show("sturdyc", heapOf(func() any {
		c := sturdyc.New[user](2*entries, 16, time.Hour, 10)
		for i, k := range names {
			c.Set(strings.Clone(k), userOf(i))
		}
		return c
	}), entries)
	show("otter v2", heapOf(func() any {
		c := otter.Must(&otter.Options[string, user]{MaximumSize: 2 * entries})
		for i, k := range names {
			c.Set(strings.Clone(k), userOf(i))
		}
		return c
	}), entries)

	client := e.goRedis()
	held := int64(0)
	heap := heapOf(func() any {
		local := peer.NewTinyLFU(2*entries, time.Hour)
		c := peer.New(&peer.Options{Redis: client, LocalCache: local})
		for i, k := range names {
			_ = c.Set(&peer.Item{Key: k, Value: userOf(i), TTL: time.Hour})
		}
		for _, k := range names {
			if _, ok := local.Get(k); ok {
				held++
			}
		}
		return c
	})
	show("go-redis/cache with TinyLFU", heap, held)

	for _, bound := range []int64{1 << 30, 2 << 20} {
		var failed atomic.Pointer[error]
		held := int64(0)
		var c *cache.Cache[user]
		heap := heapOf(func() any {
			var err error
			if c, err = cache.New(e.redis, fmt.Sprintf("memory.%d", bound), cache.Options[user]{TTL: time.Hour, NearCacheBytes: bound}); err != nil {
				failed.Store(&err)
				return nil
			}
			var all sync.WaitGroup
			for g := range 64 {
				all.Go(func() {
					ctx := context.Background()
					for i := g; i < entries; i += 64 {
						err := c.Set(ctx, names[i], userOf(i))
						for range 2 {
							if err == nil {
								_, _, err = c.Get(ctx, names[i])
							}
						}
						if err != nil {
							failed.Store(&err)
						}
					}
				})
			}
			all.Wait()
			return c
		})
		if err := failed.Load(); err != nil {
			return race{}, *err
		}
		for _, k := range names {
			if res, err := c.GetResult(context.Background(), k); err == nil && res.Source == cache.SourceNear {
				held++
			}
		}
		show(fmt.Sprintf("madcrow, NearCacheBytes: %d MiB", bound>>20), heap, held)
	}
	return race{}, nil
}

// heapOf is what is left on the heap of what fill returns.
func heapOf(fill func() any) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	kept := fill()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc)
}
