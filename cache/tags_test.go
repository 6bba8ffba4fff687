package cache_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// The value of a tag that somebody else has written is made again.
func TestTags_ForeignValueIsReplaced(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := newCache(t, openConfig(t, s.Config()), cache.Options[string]{NearCacheBytes: near})
	for _, garbage := range []string{"", "x", strings.Repeat("z", 32), strings.Repeat("a", 31)} {
		for _, key := range []string{"m1:tag:{x}", "m1:cache:c:gen"} {
			s.Do(t, "SET", key, garbage)
			time.Sleep(20 * time.Millisecond) // the push
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := c.Set(ctx, "k", "v", cache.WithTags("x"))
			if err != nil {
				t.Errorf("%s = %q: Set: %v", key, garbage, err)
			}
			if v, found, err := c.Get(ctx, "k"); v != "v" || !found || err != nil {
				t.Errorf("%s = %q: %q %v %v", key, garbage, v, found, err)
			}
			cancel()
			if err := c.DeleteTag(t.Context(), "x"); err != nil {
				t.Error(err)
			}
			if _, found, _ := c.Get(t.Context(), "k"); found {
				t.Errorf("%s = %q: after DeleteTag", key, garbage)
			}
		}
	}
}

func TestGetOrLoad_WithATagDoesNotShareALoadFromBeforeItsRemoval(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{NearCacheBytes: near})
	loading, goOn := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		mustLoad(t, c, "k", func(context.Context) (string, error) { close(loading); <-goOn; return "old", nil }, "old")
	})
	<-loading
	if err := c.DeleteTag(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { close(goOn) })
	mustLoad(t, c, "k", always("new"), "new", cache.WithTags("x"))
	wg.Wait()
	mustLoad(t, c, "k", always("newer"), "new", cache.WithTags("x"))
}
