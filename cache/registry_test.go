package cache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// A process-wide table of caches held every Redis for ever that had a cache which
// was not closed.
func TestCache_ThatIsNotClosedDoesNotHoldItsRedis(t *testing.T) {
	r := func() weak.Pointer[madcrow.Redis] {
		r, err := madcrow.Open(context.Background(), ownConfig(t))
		if err != nil {
			t.Fatal(err)
		}
		c, err := cache.New(r, "c", cache.Options[string]{NearCacheBytes: near})
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
	testkit.Eventually(t, "the Redis is collected", func() bool {
		runtime.GC()
		return r.Value() == nil
	})
}

// Several caches of one name or one tag in a process are one.
func TestCache_ChangesAreSeenByAllCachesOfTheProcess(t *testing.T) {
	r := open(t)
	a := newCache(t, r, cache.Options[int]{NearCacheBytes: near})
	b := newCache(t, r, cache.Options[int]{NearCacheBytes: near})
	other, err := cache.New(r, "other", cache.Options[string]{NearCacheBytes: near, Tags: []string{"x"}})
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

// Two caches of one name with different types were made, and each took what the
// other had stored for a miss, for ever.
func TestNew_TwoCachesOfOneNameStoreTheSame(t *testing.T) {
	r := open(t)
	users := newCache(t, r, cache.Options[user]{})
	_ = newCache(t, r, cache.Options[user]{NearCacheBytes: near}) // the same type
	var bad *madcrow.ArgumentError
	_, err := cache.New(r, "c", cache.Options[string]{})
	if !errors.As(err, &bad) || bad.Argument != "name" || bad.Name != "c" || !strings.Contains(bad.Reason, "cache_test.user") || !strings.Contains(bad.Reason, "string") {
		t.Errorf("another type: %v", err)
	}
	_, err = cache.New(r, "c", cache.Options[user]{Codec: ownCodec{madcrow.JSON[user]()}})
	if !errors.As(err, &bad) || !strings.Contains(bad.Reason, "codec 1,") || !strings.Contains(bad.Reason, "codec 200") {
		t.Errorf("another codec: %v", err)
	}
	_ = newCache(t, open(t), cache.Options[string]{}) // of another Redis
	other, err := cache.New(r, "d", cache.Options[string]{})
	if err != nil {
		t.Fatal(err)
	}
	_ = other.Close(t.Context())
	if other, err := cache.New(r, "d", cache.Options[int]{}); err != nil {
		t.Errorf("after Close: %v", err)
	} else {
		_ = other.Close(t.Context())
	}
	if err := users.Set(t.Context(), "k", user{}); err != nil {
		t.Error(err)
	}
}

type ownCodec struct{ madcrow.Codec[user] }

func (ownCodec) ID() byte { return 200 }

func TestGet_AnEntryOfAnotherCodecIsAMissAndSaidOnce(t *testing.T) {
	log, events := &testkit.Log{}, &listener{}
	cfg := ownConfig(t)
	a := newCache(t, openConfig(t, cfg), cache.Options[string]{})
	cfg.Recorder = events
	b := newCache(t, openConfig(t, cfg), cache.Options[int]{Logger: log.Logger()})
	for _, key := range []string{"j", "k"} {
		if err := a.Set(t.Context(), key, "text"); err != nil {
			t.Fatal(err)
		}
		if _, found, err := b.Get(t.Context(), key); found || err != nil {
			t.Errorf("%v %v", found, err)
		}
	}
	lines := log.With("another codec")
	if len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "written by codec 2, this cache has codec 1") {
		t.Errorf("%q", lines)
	}
	if found := events.of(madcrow.EventCacheUndecodable); len(found) != 2 || found[0].Reason != "codec" || found[0].Err == nil {
		t.Errorf("%+v", found)
	}
}

func TestNew_SaysAllThatIsWrongAtOnce(t *testing.T) {
	r := open(t)
	_, err := cache.New(r, "bad name!", cache.Options[string]{TTL: -1, Jitter: 2, NearCacheBytes: -1})
	for _, field := range []string{"name ", "TTL must be from 10ms to 10 years", "Jitter ", "NearCacheBytes must not be negative"} {
		if !strings.Contains(fmt.Sprint(err), field) {
			t.Errorf("%q is not in %v", field, err)
		}
	}
	if strings.Contains(fmt.Sprint(err), "MaxLoads") {
		t.Errorf("what was not set is blamed: %v", err)
	}
}
