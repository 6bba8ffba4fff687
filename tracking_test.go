package madcrow_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// heard collects the keys that were told of.
type heard struct {
	mu   sync.Mutex
	keys map[string]int
}

func listen(r *madcrow.Redis) *heard {
	h := &heard{keys: map[string]int{}}
	r.OnInvalidate(func(key string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.keys[key]++
	})
	return h
}

func (h *heard) count(key string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keys[key]
}

func tracked(t *testing.T, r *madcrow.Redis, key string) madcrow.Tracked {
	t.Helper()
	got := r.GetTracked(t.Context(), 0, key)[0]
	if got.Err != nil {
		t.Fatal(got.Err)
	}
	return got
}

func valueOf(got madcrow.Tracked) string {
	v, _ := got.Message.ToString()
	return v
}

func TestGetTracked_TellsOfChangesByOthers(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r, other := open(t, s.Config()), open(t, s.Config())
	h := listen(r)
	mustSet(t, other, "a", "1")
	if v := valueOf(tracked(t, r, "a")); v != "1" {
		t.Fatalf("read %q", v)
	}
	missing := tracked(t, r, "b")
	if !missing.Message.IsNil() || !missing.Tracking.Valid() || missing.TTL != -1 {
		t.Fatalf("%+v", missing)
	}
	mustSet(t, other, "a", "2")
	mustSet(t, other, "b", "1")
	eventually(t, "both keys are told", func() bool { return h.count("a") == 1 && h.count("b") == 1 })
	mustSet(t, other, "a", "3") // not read since: not told again
	got := tracked(t, r, "a")
	if v, _ := got.Message.ToString(); v != "3" || h.count("a") != 1 {
		t.Errorf("read %q, told %d times", v, h.count("a"))
	}
	s.Do(t, "PEXPIRE", "a", "60000")
	eventually(t, "a new lifetime is told", func() bool { return h.count("a") == 2 })
	if got = tracked(t, r, "a"); got.TTL <= 59*time.Second || got.TTL > time.Minute {
		t.Errorf("TTL %v", got.TTL)
	}
	s.Do(t, "FLUSHALL")
	eventually(t, "FLUSHALL ends the tracking", func() bool { return !got.Tracking.Valid() })
	if next := tracked(t, r, "a"); !next.Tracking.Valid() || !next.Message.IsNil() {
		t.Errorf("%+v", next)
	}
}

func TestGetTracked_EndsWithTheConnection(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := open(t, s.Config())
	got := tracked(t, r, "a")
	s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	eventually(t, "the tracking is over", func() bool { return !got.Tracking.Valid() })
	if next := tracked(t, r, "a"); !next.Tracking.Valid() {
		t.Error("no new tracking")
	}
}

func TestGetTracked_GoesOnWhereTrackingIsRefused(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithUser("app", "pw", "~*", "&*", "+@all", "-client|tracking"))
	r := open(t, s.Config())
	mustSet(t, r, "a", "1")
	got := tracked(t, r, "a")
	if v, _ := got.Message.ToString(); v != "1" || got.Tracking != nil {
		t.Errorf("%q %+v", v, got)
	}
}

func TestGetTracked_ManyKeysWithoutRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := open(t, s.Config())
	keys := make([]string, 700)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%d", i)
		mustSet(t, r, keys[i], keys[i])
	}
	for i, got := range r.GetTracked(t.Context(), 0, keys...) {
		if v, err := got.Message.ToString(); v != keys[i] || err != nil || !got.Tracking.Valid() {
			t.Fatalf("%s: %q %+v", keys[i], v, got)
		}
	}
	s.Kill()
	for _, got := range r.GetTracked(t.Context(), 0, keys...) {
		if got.Err == nil {
			t.Fatal("no error")
		}
	}
}

func TestGetTracked_Cluster(t *testing.T) {
	c, r := startCluster(t)
	h := listen(r)
	keys := []string{"foo", "bar", "baz", "counter", "news"}
	for _, k := range keys {
		mustSet(t, r, k, k)
	}
	before := r.GetTracked(t.Context(), 0, keys...)
	for i, got := range before {
		if v, err := got.Message.ToString(); v != keys[i] || err != nil || !got.Tracking.Valid() {
			t.Fatalf("%s: %q %+v", keys[i], v, got)
		}
	}
	other := open(t, c.Config())
	mustSet(t, other, "bar", "2")
	eventually(t, "the change is told", func() bool { return h.count("bar") == 1 })
	c.MoveSlot(t, c.Slot("foo"), otherMaster(t, c, "foo"))
	// Until the map is known, the move itself tells that the key has gone.
	eventually(t, "the moved key is told", func() bool { return h.count("foo") >= 1 || !before[0].Tracking.Valid() })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		got := r.GetTracked(ctx, 0, "foo")[0]
		if v, _ := got.Message.ToString(); got.Err != nil || v != "foo" {
			t.Fatalf("%q %+v", v, got)
		}
		if got.Tracking.Valid() {
			break
		}
	}
}
