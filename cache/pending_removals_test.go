package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func (o *pendingRemovals) waits() int { return int(o.pending.Load()) }

func mustQueue(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, ErrQueued) {
		t.Errorf("not queued: %v", err)
	}
}

// A removal that comes while its forerunner is being sent is another one.
func TestPendingRemovals_RemovalDuringAReplayIsNotLost(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := makeCache(t, startRedis(t, s, nil), Options[string]{})
	s.Kill()
	mustQueue(t, c.Delete(t.Context(), "k"))
	mustQueue(t, c.DeleteTag(t.Context(), "x"))
	o := c.removals.pendingRemovals
	o.mu.Lock()
	value, tag := o.values[c.valueKey("k")], o.tags["m1:tag:{x}"]
	o.mu.Unlock()
	mustQueue(t, c.Delete(t.Context(), "k"))
	mustQueue(t, c.ExpireTag(t.Context(), "x"))
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.values[c.valueKey("k")] == value || o.tags["m1:tag:{x}"] == tag {
		t.Error("the second removal is taken for the first")
	}
	if o.tags["m1:tag:{x}"].how != tagDelete {
		t.Error("what was to be deleted is only to expire")
	}
}

func TestPendingRemovals_TooManyRemovalsClearTheCache(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--appendonly", "yes"))
	r := startRedis(t, s, nil)
	opt := Options[string]{NearCacheBytes: 1 << 20}
	c := makeCache(t, r, opt)
	other := makeCache(t, startRedis(t, s, nil), opt)
	for _, key := range []string{"k5", "untouched"} {
		if err := c.Set(t.Context(), key, "old"); err != nil {
			t.Fatal(err)
		}
	}
	s.Kill()
	testkit.Eventually(t, "Redis is away", func() bool { return r.State() == madcrow.StateDown })
	for i := range maxQueued + 10 {
		mustQueue(t, c.Delete(t.Context(), fmt.Sprintf("k%d", i)))
	}
	if n := c.removals.waits(); n > maxQueued {
		t.Errorf("%d removals wait", n)
	}
	if f := c.lastKnown("untouched", nil); f.State != Missing {
		t.Error("a copy is served though all was given up")
	}
	s.Start()
	testkit.Eventually(t, "the removals are sent", func() bool { return c.removals.waits() == 0 })
	for _, cc := range []*Cache[string]{c, other} {
		for _, key := range []string{"k5", "untouched"} {
			testkit.Eventually(t, "they can be read", func() bool { _, err := cc.Exists(t.Context(), key); return err == nil })
			if v, found, err := cc.Get(t.Context(), key); found || err != nil {
				t.Errorf("%s: %q %v %v", key, v, found, err)
			}
		}
	}
	if err := c.Set(t.Context(), "k5", "new"); err != nil {
		t.Fatal(err)
	}
	if v, _, _ := other.Get(t.Context(), "k5"); v != "new" {
		t.Errorf("%q", v)
	}
}

// A removal that can never succeed is given up, and the others are sent.
func TestPendingRemovals_RemovalThatFailsForGoodBlocksNoOther(t *testing.T) {
	if madcrowtest.OlderThan(t, "7.0") {
		t.Skip("ACL selectors came with Redis 7.0")
	}
	s := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--appendonly", "yes"),
		madcrowtest.WithUser("app", "pw", "~*", "&*", "+@all", "(+eval +evalsha ~forbidden)"))
	r := startRedis(t, s, nil)
	c := makeCache(t, r, Options[string]{})
	if err := c.Set(t.Context(), "k", "old"); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	testkit.Eventually(t, "Redis is away", func() bool { return r.State() == madcrow.StateDown })
	mustQueue(t, c.DeleteTag(t.Context(), "x"))
	mustQueue(t, c.Delete(t.Context(), "k"))
	s.Start()
	s.Do(t, "ACL", "SETUSER", "app", "-evalsha", "-eval")
	testkit.Eventually(t, "nothing waits any more", func() bool { return c.removals.waits() == 0 })
	if got := s.Do(t, "GET", c.valueKey("k")); got != nil {
		t.Errorf("the value is there: %q", got)
	}
}

// While Redis takes no writes, removals wait, and this process serves nothing of
// what was removed.
func TestPendingRemovals_MasterThatIsReadOnly(t *testing.T) {
	if madcrowtest.OlderThan(t, "7.0") {
		t.Skip("min-replicas-to-write holds inside of scripts from Redis 7.0 on")
	}
	s := madcrowtest.StartRedis(t)
	r := startRedis(t, s, nil)
	c := makeCache(t, r, Options[string]{NearCacheBytes: 1 << 20})
	for _, key := range []string{"a", "b", "c"} {
		if err := c.Set(t.Context(), key, "old", WithTags(key)); err != nil {
			t.Fatal(err)
		}
		if v, _, _ := c.Get(t.Context(), key); v != "old" {
			t.Fatal("not stored")
		}
	}
	s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1") // NOREPLICAS
	mustQueue(t, c.Delete(t.Context(), "a"))
	mustQueue(t, c.DeleteTag(t.Context(), "b"))
	mustQueue(t, c.Set(t.Context(), "c", "new"))
	for range 2 {
		for _, key := range []string{"a", "b", "c"} {
			if v, found, err := c.Get(t.Context(), key); found || err != nil {
				t.Errorf("%s: %q %v %v", key, v, found, err)
			}
		}
	}
	if v, err := c.GetOrLoad(t.Context(), "a", func(context.Context) (string, error) { return "loaded", nil }); v != "loaded" || err != nil {
		t.Errorf("%q %v", v, err)
	}
	s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "0")
	testkit.Eventually(t, "the removals are sent", func() bool { return c.removals.waits() == 0 })
	for _, key := range []string{"a", "c"} {
		if got := s.Do(t, "EXISTS", c.valueKey(key)); got != int64(0) {
			t.Errorf("%s is still there", key)
		}
	}
}

func TestPendingRemovals_RedisThatIsFull(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := startRedis(t, s, nil)
	c := makeCache(t, r, Options[string]{NearCacheBytes: 1 << 20})
	for _, key := range []string{"a", "b"} {
		if err := c.Set(t.Context(), key, "old", WithTags(key)); err != nil {
			t.Fatal(err)
		}
	}
	s.Do(t, "CONFIG", "SET", "maxmemory", "1")
	if err := c.Delete(t.Context(), "a"); err != nil {
		t.Errorf("a removal needs no memory: %v", err)
	}
	mustQueue(t, c.Set(t.Context(), "b", "new"))
	if v, found, err := c.Get(t.Context(), "b"); found || err != nil {
		t.Errorf("%q %v %v", v, found, err)
	}
	loads := 0
	for range 3 {
		v, err := c.GetOrLoad(t.Context(), "d", func(context.Context) (string, error) { loads++; return "v", nil })
		if v != "v" || err != nil {
			t.Errorf("%q %v", v, err)
		}
	}
	if loads != 1 {
		t.Errorf("%d loads: the value was not kept near", loads)
	}
	testkit.Eventually(t, "the removal is sent", func() bool { return c.removals.waits() == 0 })
	if got := s.Do(t, "EXISTS", c.valueKey("b")); got != int64(0) {
		t.Error("the old value is still there")
	}
}

// A new value that was stored while an old removal waited is not lost to it for
// good, and never an old one served.
func TestPendingRemovals_ReplayRacesWithSet(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	p := madcrowtest.StartProxy(t, s.Addr())
	r := startRedis(t, s, func(cfg *madcrow.Config) { cfg.Port = p.Port(); cfg.CommandTimeout = 100 * time.Millisecond })
	c := makeCache(t, r, Options[int]{NearCacheBytes: 1 << 20})
	lost := 0
	for round := range 15 {
		if err := c.Set(t.Context(), "k", round*100); err != nil {
			mustQueue(t, err)
		}
		p.ResetAll()
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.Delete(t.Context(), "k") })
		for i := range 10 {
			n := round*100 + i
			err := c.Set(t.Context(), "k", n)
			v, found, getErr := c.Get(t.Context(), "k")
			switch {
			case found && v != n: // a Set that failed may have been stored all the same
				t.Fatalf("set %d, got %d: %v", n, v, err)
			case err == nil && getErr == nil && !found:
				lost++
			}
			time.Sleep(5 * time.Millisecond)
		}
		wg.Wait()
	}
	t.Logf("%d of 150 values were lost to a removal", lost)
}

// Without Redis the values of one cache take no more memory than with it.
func TestDegraded_CountsWithItsSize(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := startRedis(t, s, nil)
	c := makeCache(t, r, Options[string]{NearCacheBytes: 1 << 20, NearTTL: time.Minute})
	s.Kill()
	testkit.Eventually(t, "Redis is away", func() bool { return r.State() == madcrow.StateDown })
	for i := range 100 {
		if _, err := c.GetOrLoad(t.Context(), fmt.Sprint(i), func(context.Context) (string, error) { return strings.Repeat("x", 100<<10), nil }); err != nil {
			t.Fatal(err)
		}
	}
	n, bytes := c.near.Size()
	if bytes > 1<<20 {
		t.Errorf("%d bytes", bytes)
	}
	if n > 10 || n == 0 {
		t.Errorf("%d values of 100 KB in 1 MB", n)
	}
}

// Who reads with a tag shares what was loaded with it while Redis is away.
func TestDegraded_IsServedForItsTags(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := startRedis(t, s, nil)
	c := makeCache(t, r, Options[string]{NearCacheBytes: 1 << 20, NearTTL: time.Minute})
	s.Kill()
	loads := 0
	load := func(context.Context) (string, error) { loads++; return "v", nil }
	for range 3 {
		if v, err := c.GetOrLoad(t.Context(), "k", load, WithTags("x")); v != "v" || err != nil {
			t.Errorf("%q %v", v, err)
		}
	}
	if loads != 1 {
		t.Errorf("%d loads", loads)
	}
	if _, err := c.GetOrLoad(t.Context(), "k", load, WithTags("y")); err != nil || loads != 2 {
		t.Errorf("with another tag: %d loads, %v", loads, err)
	}
	mustQueue(t, c.DeleteTag(t.Context(), "y"))
	if _, err := c.GetOrLoad(t.Context(), "k", load); err != nil || loads != 3 {
		t.Errorf("after the removal: %d loads, %v", loads, err)
	}
}

// A tag that this process no longer remembers hears of no changes: what was
// read of it is never believed later.
func TestTags_ForgottenOneIsNeverBelieved(t *testing.T) {
	for _, name := range []string{"plain", "not plain", strings.Repeat("long", 50)} {
		s := madcrowtest.StartRedis(t)
		c := makeCache(t, startRedis(t, s, nil), Options[string]{NearCacheBytes: 1 << 20})
		state := c.tags.state(name)
		states := []*tagState{state}
		// The push about its own making may come after it was learned.
		for end := time.Now().Add(5 * time.Second); state.cur.Load() == nil; time.Sleep(time.Millisecond) {
			if _, err := c.tags.fetch(t.Context(), 0, 0, states); err != nil || time.Now().After(end) {
				t.Fatalf("not learned: %v", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		c.tags.states.Invalidate(name)
		if state.cur.Load() != nil {
			t.Error("believed when it is forgotten")
		}
		if _, err := c.tags.fetch(t.Context(), 0, 0, states); err != nil || state.cur.Load() != nil {
			t.Errorf("believed after that: %v", err)
		}
		// Both states are of one tag.
		fl, _, err := c.flights.join("k", states)
		if err != nil {
			t.Fatal(err)
		}
		if other, lead, _ := c.flights.join("k", []*tagState{c.tags.state(name)}); lead || other != fl {
			t.Error("the load is not shared")
		}
		if err := c.DeleteTag(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if _, lead, _ := c.flights.join("k", states); !lead {
			t.Error("the load is shared after the removal")
		}
		c.flights.all.Add(-2)
		n := 0
		c.tags.hashed.Range(func(any, any) bool { n++; return true })
		if want := min(1, len(c.tags.encKeyOf(state.key))-len(name)) != 0; want && n != 1 || !want && n != 0 {
			t.Errorf("%s: %d hashed ones", name, n)
		}
	}
}

// More tags than a process remembers: a removal still counts at once.
func TestTags_MoreThanAProcessRemembers(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := makeCache(t, startRedis(t, s, nil), Options[string]{NearCacheBytes: 64 << 20})
	for i := range maxTagStates + 4000 {
		c.tags.state(fmt.Sprint("filler", i))
	}
	for i := range 300 {
		tag := fmt.Sprint("t", i)
		if err := c.Set(t.Context(), tag, "old", WithTags(tag)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if v, _, err := c.Get(t.Context(), tag); v != "old" || err != nil {
				t.Fatalf("%q %v", v, err)
			}
		}
		if err := c.DeleteTag(t.Context(), tag); err != nil {
			t.Fatal(err)
		}
		if v, found, err := c.Get(t.Context(), tag); found || err != nil {
			t.Fatalf("%s: %q %v", tag, v, err)
		}
	}
}

func TestTags_ForeignKeyOfTheirKindHarmsNoOne(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := startRedis(t, s, nil)
	c := makeCache(t, r, Options[string]{})
	for _, key := range []string{"m1:tag:{", "m1:tag:{}", "m1:tag:{x", "m1:cache:c:{", "m1:cache:c:{}", "m1:cache:c:"} {
		c.invalidated(key)
		r.GetTracked(t.Context(), []string{key})
		s.Do(t, "SET", key, "x")
	}
	if err := c.Set(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
}
