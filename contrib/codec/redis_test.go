package codec_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/contrib/codec"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// open connects to the server of the package, under a key prefix of the test's
// own.
func open(t *testing.T) *madcrow.Redis {
	t.Helper()
	cfg := config
	cfg.KeyPrefix = t.Name() + ":"
	return madcrowtest.Open(t, cfg)
}

func newCache(t *testing.T, r *madcrow.Redis, c madcrow.Codec[page]) *cache.Cache[page] {
	t.Helper()
	pages, err := cache.New(r, "pages", cache.Options[page]{Codec: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pages.Close(context.Background()) })
	return pages
}

func TestCache_KeepsCompressedValuesInRedis(t *testing.T) {
	want := onePage(1000)
	sizes := map[string]int64{}
	for name, c := range pages() {
		pages := newCache(t, open(t), c)
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
	caches := map[string]*cache.Cache[page]{}
	for name, c := range pages() {
		caches[name] = newCache(t, open(t), c)
	}
	for _, words := range []int{1, 1000} { // as it is, and compressed
		for wrote, c := range caches {
			if err := c.Set(t.Context(), "k", onePage(words)); err != nil {
				t.Fatal(err)
			}
			for reads, c := range caches {
				_, found, err := c.Get(t.Context(), "k")
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

// The bound of near copies counted what Redis holds: values that compress well took a hundred times
// the memory that it allowed.
func TestCache_NearBoundsWhatIsDecompressed(t *testing.T) {
	const bound, size, values = 8 << 20, 1 << 20, 100
	c, err := cache.New(open(t), "blobs", cache.Options[string]{Codec: codec.Zstd[string](nil), NearCacheBytes: bound})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	blob := strings.Repeat("0", size)
	for i := range values {
		if err := c.Set(t.Context(), strconv.Itoa(i), blob); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := c.Get(t.Context(), "0"); err != nil { // what the codec itself needs
		t.Fatal(err)
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, near := m.HeapAlloc, 0
	for i := range values {
		key := strconv.Itoa(i)
		for range 3 { // the first may come before the write is pushed
			if _, _, err := c.Get(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		if res, err := c.GetResult(t.Context(), key); err != nil {
			t.Fatal(err)
		} else if res.Source == cache.SourceNear {
			near++
		}
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) { // what is too much goes in the background
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		if m.HeapAlloc <= before+2*bound || time.Now().After(end) {
			break
		}
	}
	t.Logf("NearCacheBytes %d MiB: %d of %d values near at once or later, heap %d MiB, before %d", bound>>20, near, values, m.HeapAlloc>>20, before>>20)
	if m.HeapAlloc > before+2*bound {
		t.Errorf("NearCacheBytes %d MiB: %d MiB more than before", bound>>20, (m.HeapAlloc-before)>>20)
	}
	if near == 0 {
		t.Error("nothing is near")
	}
	runtime.KeepAlive(c)
}
