package codec_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/contrib/codec"
)

// open connects to the server of the package, under a key prefix of the test's
// own.
func open(t *testing.T) *madcrow.Redis {
	t.Helper()
	cfg := config
	cfg.Require, cfg.KeyPrefix = true, t.Name()+":"
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

func newCache(t *testing.T, r *madcrow.Redis, c cache.Codec[page]) *cache.Cache[page] {
	t.Helper()
	pages, err := cache.New(r, "pages", cache.Options[page]{Codec: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pages.Close(context.Background()) })
	return pages
}

func TestCache_KeepsCompressedValuesInRedis(t *testing.T) {
	r := open(t)
	want := onePage(1000)
	sizes := map[string]int64{}
	for name, c := range pages() {
		pages := newCache(t, r, c)
		if err := pages.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		loads := 0
		for range 3 {
			got, err := pages.GetOrLoad(t.Context(), "k", func(context.Context) (page, error) { loads++; return want, nil })
			if err != nil || !got.equal(want) {
				t.Fatalf("%s: %+v %v", name, got, err)
			}
		}
		got, err := pages.GetMany(t.Context(), []string{"k"})
		if err != nil || !got["k"].equal(want) || loads != 1 {
			t.Errorf("%s: %d loads, %v", name, loads, err)
		}
		sizes[name], _ = server.Do(t, "STRLEN", t.Name()+":m1:cache:pages:{k}").(int64)
		if sizes[name] > 20_000 || name != "msgpack" && sizes[name] > 2000 {
			t.Errorf("%s: %d bytes", name, sizes[name])
		}
	}
	t.Log(sizes)
}

func TestCache_AnotherCodecIsAMiss(t *testing.T) {
	r := open(t)
	for _, words := range []int{1, 1000} { // as it is, and compressed
		for wrote, c := range pages() {
			if err := newCache(t, r, c).Set(t.Context(), "k", onePage(words)); err != nil {
				t.Fatal(err)
			}
			for reads, c := range pages() {
				_, found, err := newCache(t, r, c).Get(t.Context(), "k")
				// The level is no other codec.
				same := wrote == reads || strings.HasPrefix(wrote, "zstd") && strings.HasPrefix(reads, "zstd") &&
					wrote != "zstd-msgpack" && reads != "zstd-msgpack"
				if found != same || err != nil {
					t.Errorf("%s wrote, %s finds %v, %v", wrote, reads, found, err)
				}
			}
		}
	}
}

func TestCache_ABombInRedisIsAMissAndAHugeValueAnError(t *testing.T) {
	r := open(t)
	if err := newCache(t, r, codec.Zstd[page](nil)).Set(t.Context(), "k", onePage(100_000)); err != nil {
		t.Fatal(err)
	}
	careful := newCache(t, r, codec.Zstd[page](nil, codec.WithMaxSize(100_000)))
	if _, found, err := careful.Get(t.Context(), "k"); found || err != nil {
		t.Errorf("%v %v", found, err)
	}
	if err := careful.Set(t.Context(), "k", onePage(100_000)); !errors.Is(err, madcrow.ErrTooLarge) {
		t.Errorf("%v", err)
	}
	for range 2 {
		got, err := careful.GetOrLoad(t.Context(), "k", func(context.Context) (page, error) { return onePage(1), nil })
		if err != nil || !got.equal(onePage(1)) {
			t.Errorf("%+v %v", got, err)
		}
	}
}
