package cache_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// slowText is text that takes its time to be decoded: a queued removal is sent
// meanwhile.
type slowText struct{ madcrow.Codec[string] }

func (slowText) ID() uint8 { return 200 }

func (c slowText) Decode(data []byte) (string, error) {
	time.Sleep(300 * time.Millisecond)
	return string(data), nil
}

// What a removal waits for is removed for this process, whatever it reads
// before, during and after the sending.
func TestQueued_IsRemovedForEveryWayToRead(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(context.Context, *cache.Cache[string]) error{
		"value": func(ctx context.Context, c *cache.Cache[string]) error { return c.Delete(ctx, "k") },
		"tag":   func(ctx context.Context, c *cache.Cache[string]) error { return c.DeleteTag(ctx, "t") },
		"all":   func(ctx context.Context, c *cache.Cache[string]) error { return c.Clear(ctx) },
	} {
		for way, read := range map[string]func(*cache.Cache[string]) (string, error){
			"Get": func(c *cache.Cache[string]) (string, error) {
				v, _, err := c.Get(t.Context(), "k")
				return v, err
			},
			"GetMany": func(c *cache.Cache[string]) (string, error) {
				v, err := c.GetMany(t.Context(), []string{"k"})
				return v["k"], err
			},
			"GetOrLoad": func(c *cache.Cache[string]) (string, error) {
				v, err := c.GetOrLoad(t.Context(), "k", always("new"))
				if v == "new" {
					v = ""
				}
				return v, err
			},
		} {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				for _, opt := range []cache.Options[string]{{Tags: []string{"t"}}, {Tags: []string{"t"}, Codec: slowText{madcrow.Text()}}} {
					c := newCache(t, openConfig(t, madcrowtest.StartRedis(t).Config()), opt)
					if err := c.Set(t.Context(), "k", "old"); err != nil {
						t.Fatal(err)
					}
					if _, _, err := c.Get(t.Context(), "other"); err != nil { // the tags are known
						t.Fatal(err)
					}
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					if err := remove(ctx, c); !errors.Is(err, cache.ErrQueued) {
						t.Fatal(err)
					}
					if v, err := read(c); err != nil || v != "" {
						t.Errorf("%q %v", v, err)
					}
				}
			})
		}
	}
}

// A negative LeaseTTL is no lease that others wait for, and no crash.
func TestLeaseTTL_Negative(t *testing.T) {
	c := newCache(t, openConfig(t, madcrowtest.StartRedis(t).Config()), cache.Options[string]{LeaseTTL: -1})
	mustLoad(t, c, "k", func(context.Context) (string, error) {
		time.Sleep(50 * time.Millisecond) // it is looked after
		return "v", nil
	}, "v")
}
