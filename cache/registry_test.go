package cache_test

import (
	"context"
	"runtime"
	"testing"
	"weak"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
)

// A process-wide table of caches held every Redis for ever that had a cache which
// was not closed.
func TestCache_ThatIsNotClosedDoesNotHoldItsRedis(t *testing.T) {
	r := func() weak.Pointer[madcrow.Redis] {
		r, err := madcrow.Open(context.Background(), ownConfig(t))
		if err != nil {
			t.Fatal(err)
		}
		c, err := cache.New(r, "c", cache.Options[string]{Near: near})
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
	soon(t, "the Redis is collected", func() bool {
		runtime.GC()
		return r.Value() == nil
	})
}
