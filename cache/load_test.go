package cache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestGetOrLoad_ShortDeadlineOfOneCallerHarmsNoOther(t *testing.T) {
	cfg := ownConfig(t)
	p := madcrowtest.StartProxy(t, fmt.Sprintf("%s:%d", cfg.Host, cfg.Port))
	other := newCache(t, openConfig(t, cfg), cache.Options[string]{})
	cfg.Port = p.Port()
	cfg.CommandTimeout = 5 * time.Second
	c := newCache(t, openConfig(t, cfg), cache.Options[string]{ReadTimeout: 5 * time.Second})
	mustLoad(t, c, "warm", always("v"), "v")
	p.SetDelay(40 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.GetOrLoad(ctx, "k", slowly(300*time.Millisecond, "v")); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, madcrow.ErrTimeout) {
		t.Errorf("%v", err)
	}
	if _, err := c.GetOrLoadMany(ctx, []string{"m"}, func(context.Context, []string) (map[string]string, error) {
		return map[string]string{"m": "v"}, nil
	}); err == nil {
		t.Error("no error")
	}
	mustLoad(t, c, "k", slowly(100*time.Millisecond, "v"), "v")
	if v, found, err := other.Get(t.Context(), "k"); v != "v" || !found || err != nil {
		t.Errorf("what was loaded is not stored: %q %v %v", v, found, err)
	}
}

func TestGetOrLoad_RefreshesAheadFromNear(t *testing.T) {
	for _, many := range []bool{false, true} {
		c := newCache(t, open(t), cache.Options[int]{NearCacheBytes: near, TTL: 3 * time.Second, Jitter: -1, RefreshAhead: 0.05})
		var loads [20]atomic.Int64
		get := func(i int) {
			key := fmt.Sprint("k", many, i)
			if many {
				if _, err := c.GetOrLoadMany(t.Context(), []string{key}, func(_ context.Context, missing []string) (map[string]int, error) {
					loads[i].Add(1)
					return map[string]int{key: i}, nil
				}); err != nil {
					t.Error(err)
				}
				return
			}
			mustLoad(t, c, key, func(context.Context) (int, error) { loads[i].Add(1); return i, nil }, i)
		}
		for i := range loads {
			get(i)
			get(i) // near
		}
		time.Sleep(200 * time.Millisecond)
		for i := range loads {
			get(i)
		}
		testkit.Eventually(t, fmt.Sprintf("many %v: each is loaded again", many), func() bool {
			for i := range loads {
				if loads[i].Load() < 2 {
					return false
				}
			}
			return true
		})
		for i := range loads {
			if n := loads[i].Load(); n != 2 {
				t.Errorf("many %v: %d loads", many, n)
			}
		}
	}
}

func TestLoad_SetTTLHoldsAlsoBeyondTheLifeOfTags(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := newCache(t, openConfig(t, s.Config()), cache.Options[string]{TTL: time.Minute, Jitter: -1, Tags: []string{"x"}})
	const long = 30 * 24 * time.Hour
	_, err := c.GetOrLoadWith(t.Context(), "k", func(_ context.Context, l *cache.Load[string]) (string, error) {
		l.SetTTL(long)
		return "v", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	life := s.Do(t, "PTTL", "m1:cache:c:{k}").(int64)
	for _, key := range []string{"m1:tag:{x}", "m1:cache:c:gen"} {
		if tag := s.Do(t, "PTTL", key).(int64); tag < life-1000 {
			t.Errorf("%s lives %v, the entry %v", key, time.Duration(tag)*time.Millisecond, time.Duration(life)*time.Millisecond)
		}
	}
	mustLoad(t, c, "k", always("no"), "v")
}

func TestGetOrLoad_LoaderThatEndsItsGoroutineIsAnError(t *testing.T) {
	r, other := openTwice(t)
	opt := cache.Options[string]{NearCacheBytes: near, Backoff: 50 * time.Millisecond}
	c, o := newCache(t, r, opt), newCache(t, other, opt)
	gone := func(context.Context) (string, error) { runtime.Goexit(); return "", nil }
	if v, err := c.GetOrLoad(t.Context(), "k", gone); err == nil {
		t.Errorf("it loaded %q", v)
	}
	got, err := c.GetOrLoadMany(t.Context(), []string{"a", "b", "c"}, func(context.Context, []string) (map[string]string, error) {
		runtime.Goexit()
		return nil, nil
	})
	if err == nil {
		t.Errorf("it loaded %v", got)
	}
	time.Sleep(60 * time.Millisecond)
	start := time.Now()
	for _, key := range []string{"k", "a", "b", "c"} {
		mustLoad(t, o, key, always("v"), "v")
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("others could load after %v", took)
	}
}

func TestGetOrLoad_ValueThatIsTooLargeDoesNotKeepOthersWaiting(t *testing.T) {
	cfg := ownConfig(t)
	other := newCache(t, openConfig(t, cfg), cache.Options[string]{})
	cfg.MaxValueSize = 1 << 10
	c := newCache(t, openConfig(t, cfg), cache.Options[string]{})
	big := strings.Repeat("x", 2<<10)
	mustLoad(t, c, "k", always(big), big)
	start := time.Now()
	mustLoad(t, other, "k", always("v"), "v")
	if took := time.Since(start); took > time.Second {
		t.Errorf("others could load after %v", took)
	}
}

func TestGetOrLoad_AbsenceThatIsNotCachedRemovesTheOldValue(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{TTL: 100 * time.Millisecond, Jitter: -1, StaleTTL: time.Hour, NegativeTTL: -1, Backoff: time.Millisecond})
	mustLoad(t, c, "k", always("v"), "v")
	time.Sleep(120 * time.Millisecond)
	none := func(context.Context) (string, error) { return "", cache.ErrNotFound }
	if _, err := c.GetOrLoad(t.Context(), "k", none); !errors.Is(err, cache.ErrNotFound) {
		t.Error(err)
	}
	if v, err := c.GetOrLoad(t.Context(), "k", func(context.Context) (string, error) { return "", errors.New("boom") }); err == nil {
		t.Errorf("what does not exist is served: %q", v)
	}
}

// A value that is loaded again ahead of its end is there to compare with.
func TestLoad_RefreshSeesThePreviousValue(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{NearCacheBytes: near, TTL: 2 * time.Second, Jitter: -1, RefreshAhead: 0.05})
	var seen atomic.Value
	load := func(_ context.Context, l *cache.Load[string]) (string, error) {
		if l.Found {
			seen.Store(l.Previous + l.ETag)
			l.NotModified()
			return "", nil
		}
		l.SetETag("e1")
		return "v", nil
	}
	for range 2 {
		if _, err := c.GetOrLoadWith(t.Context(), "k", load); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(150 * time.Millisecond)
	if _, err := c.GetOrLoadWith(t.Context(), "k", load); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the refresh sees what there is", func() bool { return seen.Load() == "ve1" })
	testkit.Eventually(t, "it lives again", func() bool {
		res, err := c.GetResult(t.Context(), "k")
		return err == nil && res.Value == "v" && res.ETag == "e1" && res.TTL > 1900*time.Millisecond
	})
}

func TestGetOrLoad_ExpiredAbsenceIsNoStaleValue(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{NearCacheBytes: near, StaleTTL: time.Hour, Tags: []string{"x"}, Backoff: time.Millisecond})
	if _, err := c.GetOrLoad(t.Context(), "k", func(context.Context) (string, error) { return "", cache.ErrNotFound }); !errors.Is(err, cache.ErrNotFound) {
		t.Error(err)
	}
	if err := c.ExpireTag(t.Context(), "x"); err != nil {
		t.Error(err)
	}
	boom := errors.New("boom")
	if v, err := c.GetOrLoad(t.Context(), "k", func(context.Context) (string, error) { return "", boom }); !errors.Is(err, boom) {
		t.Errorf("%q %v", v, err)
	}
}

func TestLoad_UsesTheLoaderOfTheOptions(t *testing.T) {
	_, err := newCache(t, open(t), cache.Options[string]{}).Load(t.Context(), "k")
	if bad := (*madcrow.ArgumentError)(nil); !errors.As(err, &bad) || bad.Argument != "Options.Load" {
		t.Errorf("%v", err)
	}
	calls := 0
	c := newCache(t, open(t), cache.Options[string]{NearCacheBytes: near, Load: func(_ context.Context, key string) (string, error) { calls++; return key, nil }})
	testkit.Eventually(t, "a near copy", func() bool {
		v, failure := c.Load(t.Context(), "k")
		res, err := c.GetResult(t.Context(), "k")
		return v == "k" && err == nil && failure == nil && res.Source == cache.SourceNear
	})
	if n := testing.AllocsPerRun(100, func() { _, _ = c.Load(t.Context(), "k") }); n > 0 {
		t.Errorf("a near hit takes %v allocations", n)
	}
	if calls != 1 {
		t.Errorf("%d loads", calls)
	}
}
