package cache_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/cache"
)

// A load that runs here is not shared by those who come after another process
// has changed the key or a tag.
func TestGetOrLoad_DoesNotShareALoadFromBeforeAChangeElsewhere(t *testing.T) {
	ra, rb := openTwice(t)
	opt := cache.Options[string]{NearCacheBytes: near, Tags: []string{"all"}, LeaseTTL: time.Second}
	a, b := newCache(t, ra, opt), newCache(t, rb, opt)
	for name, change := range map[string]func(key string) error{
		"delete": func(key string) error { return a.Delete(t.Context(), key) },
		"set":    func(key string) error { return a.Set(t.Context(), key, "new") },
		"tag":    func(string) error { return a.DeleteTag(t.Context(), "all") },
		"expire": func(string) error { return a.ExpireTag(t.Context(), "all") },
		"clear":  func(string) error { return a.Clear(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			loading := make(chan struct{})
			wg.Go(func() {
				mustLoad(t, b, name, func(context.Context) (string, error) {
					close(loading)
					time.Sleep(600 * time.Millisecond)
					return "old", nil
				}, "old")
			})
			<-loading
			time.Sleep(30 * time.Millisecond)
			if err := change(name); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // the push
			mustLoad(t, b, name, always("new"), "new")
			wg.Wait()
			mustLoad(t, b, name, always("new"), "new")
		})
	}
}
