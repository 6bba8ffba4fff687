package madcrow_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// heard collects the keys that were invalidated.
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
	got := r.GetTracked(t.Context(), []string{key})[0]
	if got.Err != nil {
		t.Fatal(got.Err)
	}
	return got
}

// believed waits until the connection has proven that changes are pushed: a busy
// machine may take longer for that than the first read waits.
func believed(t *testing.T, r *madcrow.Redis) {
	t.Helper()
	testkit.Eventually(t, "tracked reads are believed", func() bool { return tracked(t, r, "proven").Tracking.Valid() })
}

func valueOf(got madcrow.Tracked) string {
	v, _ := got.Message.ToString()
	return v
}

func TestGetTracked_TellsOfChangesByOthers(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r, other := open(t, s.Config()), open(t, s.Config())
	believed(t, r)
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
	testkit.Eventually(t, "both keys are pushed", func() bool { return h.count("a") == 1 && h.count("b") == 1 })
	mustSet(t, other, "a", "3") // not read since: not pushed again
	got := tracked(t, r, "a")
	if v, _ := got.Message.ToString(); v != "3" || h.count("a") != 1 {
		t.Errorf("read %q, invalidated %d times", v, h.count("a"))
	}
	s.Do(t, "PEXPIRE", "a", "60000")
	testkit.Eventually(t, "a new lifetime is pushed", func() bool { return h.count("a") == 2 })
	if got = tracked(t, r, "a"); got.TTL <= 59*time.Second || got.TTL > time.Minute {
		t.Errorf("TTL %v", got.TTL)
	}
	s.Do(t, "FLUSHALL")
	testkit.Eventually(t, "FLUSHALL ends the tracking", func() bool { return !got.Tracking.Valid() })
	believed(t, r)
	if next := tracked(t, r, "a"); !next.Message.IsNil() {
		t.Errorf("%+v", next)
	}
}

func TestGetTracked_EndsWithTheConnection(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := open(t, s.Config())
	believed(t, r)
	got := tracked(t, r, "a")
	s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	testkit.Eventually(t, "the tracking is over", func() bool { return !got.Tracking.Valid() })
	believed(t, r)
}

func TestGetTracked_GoesOnWhereTrackingIsRefused(t *testing.T) {
	if madcrowtest.OlderThan(t, "7.0") {
		t.Skip("a user may be refused a single subcommand from Redis 7.0 on")
	}
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
	believed(t, r)
	keys := make([]string, 700)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%d", i)
		mustSet(t, r, keys[i], keys[i])
	}
	for i, got := range r.GetTracked(t.Context(), keys) {
		if v, err := got.Message.ToString(); v != keys[i] || err != nil || !got.Tracking.Valid() {
			t.Fatalf("%s: %q %+v", keys[i], v, got)
		}
	}
	s.Kill()
	for _, got := range r.GetTracked(t.Context(), keys) {
		if got.Err == nil {
			t.Fatal("no error")
		}
	}
}

func TestGetTracked_Cluster(t *testing.T) {
	c, r := startCluster(t)
	h := listen(r)
	keys := []string{"foo", "bar", "baz", "counter", "news"}
	for _, k := range keys { // the first one finds the nodes
		testkit.Eventually(t, "the cluster serves", func() bool { err := r.Do(t.Context(), set(r, k, k)).Err(); return err == nil })
	}
	testkit.Eventually(t, "tracked reads of all nodes are believed", func() bool {
		for _, got := range r.GetTracked(t.Context(), keys) {
			if !got.Tracking.Valid() {
				return false
			}
		}
		return true
	})
	before := r.GetTracked(t.Context(), keys)
	for i, got := range before {
		if v, err := got.Message.ToString(); v != keys[i] || err != nil || !got.Tracking.Valid() {
			t.Fatalf("%s: %q %+v", keys[i], v, got)
		}
	}
	other := open(t, c.Config())
	mustSet(t, other, "bar", "2")
	testkit.Eventually(t, "the change is pushed", func() bool { return h.count("bar") == 1 })
	c.MoveSlot(t, c.Slot("foo"), otherMaster(t, c, "foo"))
	// Until the map is known, the move itself tells that the key has gone.
	testkit.Eventually(t, "the moved key is pushed", func() bool { return h.count("foo") >= 1 || !before[0].Tracking.Valid() })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		got := r.GetTracked(ctx, []string{"foo"})[0]
		if v, _ := got.Message.ToString(); got.Err != nil || v != "foo" {
			t.Fatalf("%q %+v", v, got)
		}
		if got.Tracking.Valid() {
			break
		}
	}
}

// One call begins the tracking of a connection; another waits for that no
// longer than its own deadline says.
func TestGetTracked_KeepsItsDeadlineWhileAnotherBeginsTracking(t *testing.T) {
	s, r := server(t)
	s.Pause()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.GetTracked(t.Context(), []string{"a"}, madcrow.Timeout(450*time.Millisecond)) })
	time.Sleep(20 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	got := r.GetTracked(ctx, []string{"a"})[0]
	if took := time.Since(start); got.Err == nil || took > 50*time.Millisecond+testkit.Slack(25*time.Millisecond) {
		t.Errorf("a deadline of 50 ms took %v: %v", took, got.Err)
	}
}

// A server that is busy for a moment does not refuse for good.
func TestGetTracked_TracksAgainAfterABusyMoment(t *testing.T) {
	s, r := server(t)
	s.Do(t, "CONFIG", "SET", "lua-time-limit", "20")
	go func() {
		_ = r.Do(context.Background(), arbitrary(r, "EVAL", "local n = redis.call('TIME') repeat local m = redis.call('TIME') until (m[1]-n[1])*1000000+m[2]-n[2] > 200000", "0"), madcrow.Blocking(time.Second)).Err()
	}()
	time.Sleep(60 * time.Millisecond)
	r.GetTracked(t.Context(), []string{"a"}, madcrow.Timeout(50*time.Millisecond))
	testkit.Eventually(t, "reads are tracked again", func() bool {
		got := r.GetTracked(t.Context(), []string{"a"})[0]
		return got.Err == nil && got.Tracking.Valid()
	})
}

// haltingConn holds back PTTL for a while.
type haltingConn struct {
	net.Conn
	pause time.Duration
}

func (c haltingConn) Write(p []byte) (int, error) {
	at := bytes.Index(p, []byte("*2\r\n$4\r\nPTTL"))
	if at < 0 {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:at])
	if err != nil {
		return n, err
	}
	time.Sleep(c.pause)
	m, err := c.Conn.Write(p[at:])
	return n + m, err
}

// A value whose life ends between the reading of the two is at its end: it is
// not one without a lifetime.
func TestGetTracked_EndOfLifeIsNotLifeWithoutEnd(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return haltingConn{c, 100 * time.Millisecond}, err
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	s.Do(t, "SET", "a", "1", "PX", "60")
	got := tracked(t, r, "a")
	if got.Message.IsNil() {
		t.Skip("the machine was too slow")
	}
	if got.TTL != 0 {
		t.Errorf("a value that is gone by now has a lifetime of %v", got.TTL)
	}
}

// What a node that is away was to tell is not heard: until it is back on the
// same connection nothing that it was asked is believed.
func TestGetTracked_IsNotBelievedWhileRedisIsAway(t *testing.T) {
	s, r := server(t)
	believed(t, r)
	got := tracked(t, r, "a")
	s.Pause()
	testkit.Eventually(t, "Redis is away", func() bool {
		_ = r.Do(t.Context(), get(r, "b")).Err()
		return r.State() == madcrow.StateDown
	})
	if got.Tracking.Valid() {
		t.Error("believed while Redis is away")
	}
	s.Resume()
	await(t, r, madcrow.StateUp, 5*time.Second)
	if next := tracked(t, r, "a"); next.Tracking == got.Tracking && !got.Tracking.Valid() {
		t.Error("not believed after that")
	}
}
