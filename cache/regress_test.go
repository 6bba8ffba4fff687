package cache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/madcrowtest"
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

// soon waits for what other goroutines do.
func soon(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal(what)
}

// A large value takes a while to arrive; a load that begins meanwhile is older
// than Set.
func TestSet_KeepsALoadThatBeganWhileItRanFromBeingStored(t *testing.T) {
	cfg := ownConfig(t)
	p := madcrowtest.StartProxy(t, fmt.Sprintf("%s:%d", cfg.Host, cfg.Port))
	slow := cfg
	slow.Port = p.Port()
	slow.CommandTimeout = 5 * time.Second
	slow.BulkThreshold = 32 << 20
	a := newCache(t, openConfig(t, slow), cache.Options[string]{})
	b := newCache(t, openConfig(t, cfg), cache.Options[string]{})
	if err := a.Set(t.Context(), "other", "warm"); err != nil {
		t.Fatal(err)
	}
	for _, many := range []bool{false, true} {
		key := fmt.Sprintf("k%v", many)
		p.SetBandwidth(1 << 20)
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(50 * time.Millisecond)
			mustLoad(t, b, key, slowly(500*time.Millisecond, "old"), "old")
		})
		fresh := strings.Repeat("new", 100<<10)
		var err error
		if many {
			err = a.SetMany(t.Context(), map[string]string{key: fresh})
		} else {
			err = a.Set(t.Context(), key, fresh)
		}
		if err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		p.SetBandwidth(0)
		if v, found, err := a.Get(t.Context(), key); found && v != fresh || err != nil {
			t.Errorf("SetMany %v: after Set: %.10q %v %v", many, v, found, err)
		}
	}
}

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

// The value of a tag that somebody else has written is made again.
func TestTags_ForeignValueIsMadeAnew(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := newCache(t, openConfig(t, s.Config()), cache.Options[string]{Near: near})
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

func TestCache_WithoutRedis_RemovalsTakeWhatWasLoadedMeanwhile(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := openConfig(t, s.Config())
	c := newCache(t, r, cache.Options[string]{Near: near, NearTTL: 10 * time.Second, NegativeTTL: 10 * time.Millisecond, Tags: []string{"x"}})
	s.Kill()
	soon(t, "Redis is away", func() bool { return r.State() == madcrow.StateDown })
	for name, remove := range map[string]func() error{
		"clear":  func() error { return c.Clear(t.Context()) },
		"tag":    func() error { return c.DeleteTag(t.Context(), "x") },
		"expire": func() error { return c.ExpireTag(t.Context(), "x") },
		"delete": func() error { return c.Delete(t.Context(), "a") },
	} {
		mustLoad(t, c, "a", always("old"+name), "old"+name)
		if _, err := c.GetOrLoad(t.Context(), "b", func(context.Context) (string, error) { return "", cache.ErrNotFound }); !errors.Is(err, cache.ErrNotFound) {
			t.Error(err)
		}
		time.Sleep(20 * time.Millisecond) // the absence is no longer known
		if err := remove(); !errors.Is(err, cache.ErrQueued) {
			t.Errorf("%s: %v", name, err)
		}
		if v, found, _ := c.Get(t.Context(), "a"); found {
			t.Errorf("after %s: %q", name, v)
		}
	}
}

func TestGetOrLoad_WithATagDoesNotShareALoadFromBeforeItsRemoval(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{Near: near})
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

// A load that runs here is not shared by those who come after another process
// has changed the key or a tag.
func TestGetOrLoad_DoesNotShareALoadFromBeforeAChangeElsewhere(t *testing.T) {
	ra, rb := openTwice(t)
	opt := cache.Options[string]{Near: near, Tags: []string{"all"}, LeaseTTL: time.Second}
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

func TestGetOrLoad_RefreshesAheadFromNear(t *testing.T) {
	for _, many := range []bool{false, true} {
		c := newCache(t, open(t), cache.Options[int]{Near: near, TTL: 3 * time.Second, Jitter: -1, RefreshAhead: 0.05})
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
		soon(t, fmt.Sprintf("many %v: each is loaded again", many), func() bool {
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

func TestTouch_HoldsAlsoBeyondTheLifeOfTags(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := newCache(t, openConfig(t, s.Config()), cache.Options[string]{TTL: time.Hour, Jitter: -1})
	if err := c.Set(t.Context(), "k", "v", cache.WithTags("x")); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"m1:tag:{x}", "m1:cache:c:gen"} {
		s.Do(t, "PEXPIRE", key, "60000") // a day has nearly passed
	}
	if ok, err := c.Touch(t.Context(), "k"); !ok || err != nil {
		t.Fatalf("%v %v", ok, err)
	}
	for _, key := range []string{"m1:tag:{x}", "m1:cache:c:gen"} {
		if tag := time.Duration(s.Do(t, "PTTL", key).(int64)) * time.Millisecond; tag < 59*time.Minute {
			t.Errorf("%s lives %v, the entry an hour", key, tag)
		}
	}
	if v, found, err := c.Get(t.Context(), "k"); v != "v" || !found || err != nil {
		t.Errorf("%q %v %v", v, found, err)
	}
}

func TestGetOrLoad_LoaderThatEndsItsGoroutineIsAnError(t *testing.T) {
	r, other := openTwice(t)
	opt := cache.Options[string]{Near: near, Backoff: 50 * time.Millisecond}
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

// badCodec panics.
type badCodec struct{ encode, decode bool }

func (badCodec) ID() byte { return 200 }

func (c badCodec) Append(dst []byte, v string) ([]byte, error) {
	if c.encode {
		panic("encode")
	}
	return append(dst, v...), nil
}

func (c badCodec) Decode(data []byte) (string, error) {
	if c.decode {
		panic("decode")
	}
	return string(data), nil
}

func TestCache_PanicOfTheCodecIsLikeItsError(t *testing.T) {
	r := open(t)
	good := newCache(t, r, cache.Options[string]{Codec: badCodec{}})
	mustLoad(t, good, "k", always("v"), "v")
	bad := newCache(t, r, cache.Options[string]{Codec: badCodec{decode: true}})
	if _, found, err := bad.Get(t.Context(), "k"); found || err != nil {
		t.Errorf("%v %v", found, err)
	}
	mustLoad(t, bad, "k", always("w"), "w")
	worse := newCache(t, r, cache.Options[string]{Codec: badCodec{encode: true}})
	mustLoad(t, worse, "l", always("v"), "v")
	if err := worse.Set(t.Context(), "l", "v"); err == nil {
		t.Error("Set: no error")
	}
	if err := worse.SetMany(t.Context(), map[string]string{"l": "v"}); err == nil {
		t.Error("SetMany: no error")
	}
	start := time.Now()
	mustLoad(t, good, "l", always("v"), "v")
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
	c := newCache(t, open(t), cache.Options[string]{TTL: 100 * time.Millisecond, Jitter: -1, StaleFor: time.Hour, NegativeTTL: -1, Backoff: time.Millisecond})
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

// Several caches of one name or one tag in a process are one.
func TestCache_ChangesAreSeenByAllCachesOfTheProcess(t *testing.T) {
	r := open(t)
	a := newCache(t, r, cache.Options[int]{Near: near})
	b := newCache(t, r, cache.Options[int]{Near: near})
	other, err := cache.New(r, "other", cache.Options[string]{Near: near, Tags: []string{"x"}})
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

func TestCache_ValueOfAnotherTypeIsAMiss(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := newCache(t, openConfig(t, s.Config()), cache.Options[string]{Near: near})
	s.Do(t, "RPUSH", "m1:cache:c:{k}", "a", "b")
	if _, found, err := c.Get(t.Context(), "k"); found || err != nil {
		t.Errorf("Get: %v %v", found, err)
	}
	if got, err := c.GetMany(t.Context(), []string{"k"}); len(got) != 0 || err != nil {
		t.Errorf("GetMany: %v %v", got, err)
	}
	mustLoad(t, c, "k", always("v"), "v")
	mustLoad(t, c, "k", always("w"), "v")
	s.Do(t, "DEL", "m1:cache:c:{k}")
	s.Do(t, "RPUSH", "m1:cache:c:{k}", "a", "b")
	if err := c.Set(t.Context(), "k", "x"); err != nil {
		t.Error(err)
	}
	mustLoad(t, c, "k", always("w"), "x")
}

func TestClose_EndsEverything(t *testing.T) {
	r := open(t)
	c, err := cache.New(r, "c", cache.Options[string]{Near: near})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	_, _, get := c.Get(ctx, "k")
	_, many := c.GetMany(ctx, []string{"k"})
	_, load := c.GetOrLoad(ctx, "k", always("v"))
	_, touch := c.Touch(ctx, "k")
	for name, err := range map[string]error{
		"Get": get, "GetMany": many, "GetOrLoad": load, "Touch": touch,
		"Set": c.Set(ctx, "k", "v"), "SetMany": c.SetMany(ctx, map[string]string{"k": "v"}), "Delete": c.Delete(ctx, "k"),
		"DeleteTag": c.DeleteTag(ctx, "x"), "ExpireTag": c.ExpireTag(ctx, "x"), "Clear": c.Clear(ctx),
	} {
		if !errors.Is(err, cache.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClose_LoadThatItEndsIsNoFailureForOthers(t *testing.T) {
	ra, rb := openTwice(t)
	a, err := cache.New(ra, "c", cache.Options[string]{})
	if err != nil {
		t.Fatal(err)
	}
	b := newCache(t, rb, cache.Options[string]{Backoff: time.Minute})
	loading := make(chan struct{})
	go func() {
		_, _ = a.GetOrLoad(context.Background(), "k", func(ctx context.Context) (string, error) {
			close(loading)
			<-ctx.Done()
			return "", ctx.Err()
		})
	}()
	<-loading
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_ = a.Close(ctx)
	start := time.Now()
	mustLoad(t, b, "k", always("v"), "v")
	if took := time.Since(start); took > time.Second {
		t.Errorf("others could load after %v", took)
	}
}

func TestClose_DoesNotWaitForALoadThatWasGivenUp(t *testing.T) {
	c, err := cache.New(open(t), "c", cache.Options[string]{LoadTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	hung := make(chan struct{})
	defer close(hung)
	if _, err := c.GetOrLoad(t.Context(), "k", func(context.Context) (string, error) { <-hung; return "", nil }); !errors.Is(err, cache.ErrLoadTimeout) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestLease_WithoutALifetimeBlocksNobody(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := newCache(t, openConfig(t, s.Config()), cache.Options[string]{LeaseTTL: 200 * time.Millisecond})
	s.Do(t, "SET", "m1:cache:c:{k}:lease", "foreign")
	start := time.Now()
	mustLoad(t, c, "k", always("v"), "v")
	if took := time.Since(start); took > time.Second {
		t.Errorf("%v", took)
	}
}

// A bulkhead is for loads, not for those who wait for another process.
func TestGetOrLoad_WaitingForAnotherProcessTakesNoneOfMaxLoads(t *testing.T) {
	ra, rb := openTwice(t)
	a := newCache(t, ra, cache.Options[string]{})
	b := newCache(t, rb, cache.Options[string]{MaxLoads: 2})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { mustLoad(t, a, "slow"+strconv.Itoa(i), slowly(600*time.Millisecond, "v"), "v") })
	}
	time.Sleep(50 * time.Millisecond)
	for i := range 4 {
		wg.Go(func() { mustLoad(t, b, "slow"+strconv.Itoa(i), always("w"), "v") })
	}
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	mustLoad(t, b, "own", always("v"), "v")
	if took := time.Since(start); took > 300*time.Millisecond {
		t.Errorf("a load of its own began after %v", took)
	}
	wg.Wait()
}

// A value that is loaded again ahead of its end is there to compare with.
func TestLoad_RefreshSeesThePreviousValue(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{Near: near, TTL: 2 * time.Second, Jitter: -1, RefreshAhead: 0.05})
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
	soon(t, "the refresh sees what there is", func() bool { return seen.Load() == "ve1" })
	soon(t, "it lives again", func() bool {
		res, err := c.GetResult(t.Context(), "k")
		return err == nil && res.Value == "v" && res.ETag == "e1" && res.TTL > 1900*time.Millisecond
	})
}

func TestGetOrLoad_ExpiredAbsenceIsNoStaleValue(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{Near: near, StaleFor: time.Hour, Tags: []string{"x"}, Backoff: time.Millisecond})
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
