package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
)

// openTwice connects twice to the server of the package, as two processes.
func openTwice(t testing.TB) (a, b *madcrow.Redis) {
	t.Helper()
	cfg := ownConfig(t)
	return openConfig(t, cfg), openConfig(t, cfg)
}

func always[T any](v T) func(context.Context) (T, error) {
	return func(context.Context) (T, error) { return v, nil }
}

func slowly[T any](d time.Duration, v T) func(context.Context) (T, error) {
	return func(context.Context) (T, error) { time.Sleep(d); return v, nil }
}

// mustLoad loads and expects.
func mustLoad[T comparable](t testing.TB, c *cache.Cache[T], key string, load func(context.Context) (T, error), v T, opts ...cache.CallOption) {
	t.Helper()
	if got, err := c.GetOrLoad(t.Context(), key, load, opts...); got != v || err != nil {
		t.Errorf("%s: %v %v, want %v", key, got, err, v)
	}
}
