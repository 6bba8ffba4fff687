package cache_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"weak"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// A process-wide table of caches held every Redis for ever that had a cache which
// was not closed.
func TestCache_ThatIsNotClosedDoesNotHoldItsRedis(t *testing.T) {
	r := func() weak.Pointer[madcrow.Redis] {
		r, err := madcrow.Open(context.Background(), ownConfig(t))
		if err != nil {
			t.Fatal(err)
		}
		c, err := cache.New(r, "c", cache.Options[string]{NearCacheBytes: near})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.GetOrLoad(t.Context(), "k", func(context.Context) (string, error) { return "v", nil }); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		return weak.Make(r)
	}()
	testkit.Eventually(t, "the Redis is collected", func() bool {
		runtime.GC()
		return r.Value() == nil
	})
}

// Several caches of one name or one tag in a process are one.
func TestCache_ChangesAreSeenByAllCachesOfTheProcess(t *testing.T) {
	r := open(t)
	a := newCache(t, r, cache.Options[int]{NearCacheBytes: near})
	b := newCache(t, r, cache.Options[int]{NearCacheBytes: near})
	other, err := cache.New(r, "other", cache.Options[string]{NearCacheBytes: near, Tags: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	for i := range 2000 {
		if err := a.Set(t.Context(), "k", i); err != nil && !errors.Is(err, cache.ErrQueued) {
			t.Fatal(err)
		}
		if v, found, _ := b.Get(t.Context(), "k"); found && v != i {
			t.Fatalf("set to %d, the other one gets %d", i, v)
		}
		_ = other.Set(t.Context(), "k", "v")
		_, _, _ = other.Get(t.Context(), "k")
		if err := a.DeleteTag(t.Context(), "x"); err != nil && !errors.Is(err, cache.ErrQueued) {
			t.Fatal(err)
		}
		if _, found, _ := other.Get(t.Context(), "k"); found {
			t.Fatalf("round %d: the tag's entry in another cache is still served", i)
		}
	}
}
