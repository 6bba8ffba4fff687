package cache_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

var config madcrow.Config

func TestMain(m *testing.M) {
	madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { config = s.Config() })
}

type user struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

// ownConfig is of the server of the package, under a key prefix that no other
// test and no other run of this one has.
func ownConfig(t testing.TB) madcrow.Config {
	cfg := config
	cfg.KeyPrefix = t.Name() + ":" + rand.Text() + ":"
	return cfg
}

func open(t testing.TB) *madcrow.Redis {
	t.Helper()
	return openConfig(t, ownConfig(t))
}

func openConfig(t testing.TB, cfg madcrow.Config) *madcrow.Redis {
	t.Helper()
	cfg.Require = true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

func newCache[T any](t testing.TB, r *madcrow.Redis, opt cache.Options[T]) *cache.Cache[T] {
	t.Helper()
	c, err := cache.New(r, "c", opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

const near = 1 << 20

func TestCache_StoresFindsAndRemoves(t *testing.T) {
	for name, size := range map[string]int64{"near": near, "far": 0} {
		t.Run(name, func(t *testing.T) {
			c := newCache(t, open(t), cache.Options[user]{NearCacheBytes: size})
			if _, found, err := c.Get(t.Context(), "a"); found || err != nil {
				t.Fatalf("an empty cache: %v %v", found, err)
			}
			alice := user{1, "Alice"}
			if err := c.Set(t.Context(), "a", alice); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if got, found, err := c.Get(t.Context(), "a"); got != alice || !found || err != nil {
					t.Fatalf("%+v %v %v", got, found, err)
				}
			}
			want := cache.SourceRedis
			if size > 0 {
				want = cache.SourceNear
			}
			// The server notifies of the Set, too, after the first read.
			testkit.Eventually(t, "a value from "+want.String(), func() bool {
				res, err := c.GetResult(t.Context(), "a")
				if err != nil || res.TTL <= 4*time.Minute || res.TTL > 5*time.Minute {
					t.Errorf("%+v %v", res, err)
				}
				return res.Source == want
			})
			if err := c.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			if _, found, err := c.Get(t.Context(), "a"); found || err != nil {
				t.Errorf("after Delete: %v %v", found, err)
			}
		})
	}
}

func TestCache_KeysMayBeAnyText(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{NearCacheBytes: near})
	for _, key := range []string{"", "{", "}", "{}", "~a", "a b", "ä", "\x00", "a}:lease"} {
		if err := c.Set(t.Context(), key, "v:"+key); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"", "{", "}", "{}", "~a", "a b", "ä", "\x00", "a}:lease"} {
		for range 2 {
			if got, found, err := c.Get(t.Context(), key); got != "v:"+key || !found || err != nil {
				t.Errorf("%q: %q %v %v", key, got, found, err)
			}
		}
	}
}

func TestCache_TagsRemoveAndExpire(t *testing.T) {
	r := open(t)
	c := newCache(t, r, cache.Options[string]{NearCacheBytes: near, StaleTTL: time.Hour, Tags: []string{"all"}})
	set := func(key string, tags ...string) {
		t.Helper()
		if err := c.Set(t.Context(), key, key, cache.WithTags(tags...)); err != nil {
			t.Fatal(err)
		}
	}
	has := func(key string) bool {
		t.Helper()
		_, found, err := c.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for name, remove := range map[string]func() error{
		"tag of the call":    func() error { return c.DeleteTag(t.Context(), "x") },
		"tag of the options": func() error { return c.DeleteTag(t.Context(), "all") },
		"clear":              func() error { return c.Clear(t.Context()) },
		"expire":             func() error { return c.ExpireTag(t.Context(), "x") },
	} {
		set("a", "x")
		set("b")
		if !has("a") || !has("b") || !has("a") || !has("b") {
			t.Fatalf("%s: not stored", name)
		}
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		others := name == "tag of the call" || name == "expire"
		if has("a") || has("b") != others {
			t.Errorf("%s: a %v, b %v", name, has("a"), has("b"))
		}
		res, err := c.GetOrLoadWith(t.Context(), "a", func(context.Context, *cache.Load[string]) (string, error) { return "", errors.New("no") })
		if stale := err == nil && res.Source == cache.SourceStale; stale != (name == "expire") {
			t.Errorf("%s: %+v %v", name, res, err)
		}
	}
}

func TestGetOrLoad_OneLoadForAllCallersAndProcesses(t *testing.T) {
	cfg := ownConfig(t)
	var loads atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		c := newCache(t, openConfig(t, cfg), cache.Options[int]{NearCacheBytes: near})
		for range 32 {
			wg.Go(func() {
				v, err := c.GetOrLoad(t.Context(), "k", func(context.Context) (int, error) {
					time.Sleep(100 * time.Millisecond)
					return int(loads.Add(1)), nil
				})
				if v != 1 || err != nil {
					t.Errorf("%d %v", v, err)
				}
			})
		}
	}
	wg.Wait()
	if n := loads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
}

func TestGetOrLoad_ChangeDuringALoadIsNotUndone(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{NearCacheBytes: near})
	for name, change := range map[string]func() error{
		"delete": func() error { return c.Delete(t.Context(), "k") },
		"set":    func() error { return c.Set(t.Context(), "k", "new") },
		"clear":  func() error { return c.Clear(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			_ = c.Delete(t.Context(), "k")
			loading, goOn := make(chan struct{}), make(chan struct{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				v, err := c.GetOrLoad(t.Context(), "k", func(context.Context) (string, error) {
					close(loading)
					<-goOn
					return "old", nil
				})
				if v != "old" || err != nil {
					t.Errorf("%q %v", v, err)
				}
			}()
			<-loading
			if err := change(); err != nil {
				t.Fatal(err)
			}
			close(goOn)
			<-done
			v, err := c.GetOrLoad(t.Context(), "k", func(context.Context) (string, error) { return "new", nil })
			if v != "new" || err != nil {
				t.Errorf("after the change: %q %v", v, err)
			}
		})
	}
}

func TestGetOrLoad_FailuresAndAbsence(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{NearCacheBytes: near, Backoff: 200 * time.Millisecond})
	boom := errors.New("boom")
	loads := 0
	fail := func(context.Context) (string, error) { loads++; return "", boom }
	for range 3 {
		if _, err := c.GetOrLoad(t.Context(), "k", fail); !errors.Is(err, boom) {
			t.Errorf("%v", err)
		}
	}
	if loads != 1 {
		t.Errorf("%d loads within the backoff", loads)
	}
	if _, err := c.GetOrLoad(t.Context(), "p", func(context.Context) (string, error) { panic("oh") }); err == nil {
		t.Error("a panic is no error")
	}
	for i := range 3 {
		res, err := c.GetOrLoadWith(t.Context(), "none", func(context.Context, *cache.Load[string]) (string, error) { loads++; return "", cache.ErrNotFound })
		if !errors.Is(err, cache.ErrNotFound) || res.Found || res.Source != cache.SourceNegative {
			t.Errorf("%d: %+v %v", i, res, err)
		}
	}
	if loads != 2 {
		t.Errorf("%d loads of what is not there", loads-1)
	}
	time.Sleep(250 * time.Millisecond)
	if v, err := c.GetOrLoad(t.Context(), "k", func(context.Context) (string, error) { return "ok", nil }); v != "ok" || err != nil {
		t.Errorf("after the backoff: %q %v", v, err)
	}
}

func TestMany_LoadsWhatIsMissingTogether(t *testing.T) {
	c := newCache(t, open(t), cache.Options[string]{NearCacheBytes: near})
	if err := c.SetMany(t.Context(), map[string]string{"a": "A", "b": "B"}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetMany(t.Context(), []string{"a", "b", "c", "a"})
	if err != nil || fmt.Sprint(got) != "map[a:A b:B]" {
		t.Errorf("%v %v", got, err)
	}
	calls := 0
	load := func(_ context.Context, missing []string) (map[string]string, error) {
		calls++
		if len(missing) != 3 {
			t.Errorf("asked for %v", missing)
		}
		return map[string]string{"c": "C", "d": "D"}, nil
	}
	for range 2 {
		got, err = c.GetOrLoadMany(t.Context(), []string{"a", "b", "c", "d", "e"}, load)
		if err != nil || fmt.Sprint(got) != "map[a:A b:B c:C d:D]" {
			t.Errorf("%v %v", got, err)
		}
	}
	if calls != 1 {
		t.Errorf("%d calls of the loader", calls)
	}
}

func TestCache_WithoutRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := openConfig(t, s.Config())
	c := newCache(t, r, cache.Options[string]{NearCacheBytes: near})
	other := newCache(t, openConfig(t, s.Config()), cache.Options[string]{})
	if err := c.Set(t.Context(), "k", "old"); err != nil {
		t.Fatal(err)
	}
	if v, _, _ := c.Get(t.Context(), "k"); v != "old" {
		t.Fatal("not stored")
	}
	s.Pause()
	err := c.Delete(t.Context(), "k")
	if !errors.Is(err, cache.ErrQueued) || !errors.Is(err, madcrow.ErrUnavailable) && !errors.Is(err, madcrow.ErrTimeout) {
		t.Errorf("Delete: %v", err)
	}
	loads := 0
	load := func(context.Context) (string, error) { loads++; return "new", nil }
	start := time.Now()
	for range 5 {
		if v, err := c.GetOrLoad(t.Context(), "k", load); v != "new" || err != nil {
			t.Errorf("%q %v", v, err)
		}
	}
	if loads != 1 || time.Since(start) > time.Second {
		t.Errorf("%d loads, %v", loads, time.Since(start))
	}
	if _, found, err := c.Get(t.Context(), "other"); found || err == nil {
		t.Errorf("Get: %v %v", found, err)
	}
	s.Resume()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, found, err := other.Get(t.Context(), "k"); !found && err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the removal was not sent")
		}
	}
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

func TestCache_ValueOfAnotherTypeIsAMiss(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := newCache(t, openConfig(t, s.Config()), cache.Options[string]{NearCacheBytes: near})
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
	c, err := cache.New(r, "c", cache.Options[string]{NearCacheBytes: near})
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

func TestCache_WithoutRedis_RemovalsTakeWhatWasLoadedMeanwhile(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := openConfig(t, s.Config())
	c := newCache(t, r, cache.Options[string]{NearCacheBytes: near, NearTTL: 10 * time.Second, NegativeTTL: 10 * time.Millisecond, Tags: []string{"x"}})
	s.Kill()
	testkit.Eventually(t, "Redis is away", func() bool { return r.State() == madcrow.StateDown })
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
