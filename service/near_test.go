package service

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// counter counts operations that were sent, and hits.
type counter struct {
	madcrow.NopRecorder
	sent, hits atomic.Int64
}

func (c *counter) Operation(context.Context, madcrow.Operation) { c.sent.Add(1) }

func (c *counter) Event(_ context.Context, ev madcrow.Event) {
	if ev.Type == madcrow.EventServiceHitNear {
		c.hits.Add(int64(ev.N))
	}
}

// startNear returns a service with a near cache on a Redis of its own.
func startNear(t *testing.T, opts ...madcrowtest.Option) (*Service, *madcrowtest.Server, *counter) {
	t.Helper()
	srv := madcrowtest.StartRedis(t, opts...)
	rec := &counter{}
	plain := open(t, srv, func(c *madcrow.Config) { c.Recorder, c.KeyPrefix = rec, "app:" })
	return New(plain.redis, Options{NearCacheBytes: 1 << 20}), srv, rec
}

// reads wants a value of key, from near or from Redis.
func reads(t *testing.T, s *Service, rec *counter, key, want string, near bool) {
	t.Helper()
	sent := rec.sent.Load()
	v, found, err := s.GetCache(t.Context(), key)
	if v != want || found != (want != "") || err != nil {
		t.Errorf("%s: %q %v %v, want %q", key, v, found, err, want)
	}
	if asked := rec.sent.Load() > sent; asked == near {
		t.Errorf("%s: asked %v, near wanted %v", key, asked, near)
	}
}

func TestNear_ServesWhatWasReadWithoutAsking(t *testing.T) {
	s, srv, rec := startNear(t)
	srv.Do(t, "SET", "app:k", "v")
	srv.Do(t, "SET", "app:life", "v", "PX", "60000")
	reads(t, s, rec, "k", "v", false)
	reads(t, s, rec, "k", "v", true)
	reads(t, s, rec, "none", "", false)
	reads(t, s, rec, "none", "", true)
	reads(t, s, rec, "life", "v", false)
	sent := rec.sent.Load()
	for key, want := range map[string]Entry{"k": {"v", true, NoLifetime}, "life": {"v", true, time.Minute}, "none": {}} {
		e, err := s.GetCacheWithTTL(t.Context(), key)
		if e.TTL > want.TTL || e.TTL < want.TTL-30*time.Second || err != nil {
			t.Errorf("%s: %+v %v", key, e, err)
		}
		if e.TTL = want.TTL; e != want {
			t.Errorf("%s: %+v", key, e)
		}
	}
	if rec.sent.Load() != sent || rec.hits.Load() != 5 {
		t.Errorf("%d asked, %d hits", rec.sent.Load()-sent, rec.hits.Load())
	}
}

func TestNear_ForeignChangesAreSeen(t *testing.T) {
	s, srv, _ := startNear(t)
	ctx := t.Context()
	for n, step := range []struct {
		command []string
		want    string
	}{
		{[]string{"SET", "app:k", "one"}, "one"},
		{[]string{"SET", "app:k", "two"}, "two"},
		{[]string{"APPEND", "app:k", "!"}, "two!"},
		{[]string{"DEL", "app:k"}, ""},
		{[]string{"SETEX", "app:k", "100", "three"}, "three"},
		{[]string{"EXPIRE", "app:k", "0"}, ""},
		{[]string{"SET", "app:k", "four"}, "four"},
		{[]string{"FLUSHALL"}, ""},
		{[]string{"MSET", "app:k", "five"}, "five"},
		{[]string{"RENAME", "app:k", "app:other"}, ""},
	} {
		for range 3 { // it is near now
			if _, _, err := s.GetCache(ctx, "k"); err != nil {
				t.Fatal(err)
			}
		}
		srv.Do(t, step.command...)
		within(t, func() bool {
			v, found, err := s.GetCache(ctx, "k")
			return v == step.want && found == (step.want != "") && err == nil
		}, "%d: %s", n, step.command)
	}
	// A lifetime that another program gives holds for the copy too.
	srv.Do(t, "SET", "app:k", "short")
	within(t, func() bool { v, _, _ := s.GetCache(ctx, "k"); return v == "short" }, "SET")
	srv.Do(t, "PEXPIRE", "app:k", "300")
	begin := time.Now()
	within(t, func() bool { _, found, _ := s.GetCache(ctx, "k"); return !found }, "PEXPIRE")
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it was served for %v", took)
	}
}

func within(t *testing.T, ok func() bool, format string, args ...any) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not seen within 5 s: "+format, args...)
		}
	}
}

func TestNear_OwnWritesAreReadAtOnce(t *testing.T) {
	s, _, rec := startNear(t)
	ctx := t.Context()
	var wg sync.WaitGroup
	for w := range 4 { // each on a key of its own, with readers on all
		key := "k" + strconv.Itoa(w)
		stop := make(chan struct{})
		for range 2 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_, _, _ = s.GetCache(ctx, key)
					}
				}
			})
		}
		wg.Go(func() {
			defer close(stop)
			for i := range 300 {
				want := strconv.Itoa(i)
				if err := s.SetCache(ctx, key, want, time.Minute); err != nil {
					t.Error(err)
					return
				}
				if got, found, err := s.GetCache(ctx, key); got != want || !found || err != nil {
					t.Errorf("%s: %q %v %v after SetCache of %s", key, got, found, err, want)
					return
				}
				if i%3 != 0 {
					continue
				}
				if existed, err := s.DeleteCache(ctx, key); !existed || err != nil {
					t.Error(existed, err)
				}
				if got, found, err := s.GetCache(ctx, key); found || err != nil {
					t.Errorf("%s: %q %v after DeleteCache", key, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if rec.hits.Load() == 0 {
		t.Error("nothing was near")
	}
}

// Changes that come while no connection listens are seen after it.
func TestNear_NoStaleEntryAfterTheConnectionIsKilled(t *testing.T) {
	s, srv, rec := startNear(t)
	ctx := t.Context()
	for i := range 10 {
		want := strconv.Itoa(i)
		srv.Do(t, "SET", "app:k", want)
		within(t, func() bool { v, _, _ := s.GetCache(ctx, "k"); return v == want }, "SET %s", want)
		reads(t, s, rec, "k", want, true)
		next := want + "!"
		// No one receives invalidations now.
		srv.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		srv.Do(t, "SET", "app:k", next)
		within(t, func() bool { v, _, _ := s.GetCache(ctx, "k"); return v == next }, "after the kill")
	}
}

func TestNear_WithoutRedisThereIsNoCopy(t *testing.T) {
	s, srv, rec := startNear(t)
	srv.Do(t, "SET", "app:k", "v")
	reads(t, s, rec, "k", "v", false)
	reads(t, s, rec, "k", "v", true)
	srv.Stop()
	within(t, func() bool {
		_, _, err := s.GetCache(t.Context(), "k")
		var ours *madcrow.Error
		return errors.Is(err, madcrow.ErrUnavailable) && errors.As(err, &ours) && ours.Name == TableCache
	}, "the end of the connection")
	srv.Start()
	srv.Do(t, "SET", "app:k", "new")
	within(t, func() bool { v, _, _ := s.GetCache(t.Context(), "k"); return v == "new" }, "the restart")
	within(t, func() bool {
		sent := rec.sent.Load()
		_, _, err := s.GetCache(t.Context(), "k")
		return err == nil && rec.sent.Load() == sent
	}, "near again")
	if err := s.redis.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.GetCache(t.Context(), "k"); !errors.Is(err, madcrow.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestNear_WhereTrackingIsRefusedThereIsNoCopy(t *testing.T) {
	if madcrowtest.OlderThan(t, "7.0") {
		t.Skip("a user may be refused a single subcommand from Redis 7.0 on")
	}
	s, srv, rec := startNear(t, madcrowtest.WithUser("app", "secret", "~*", "&*", "+@all", "-client|tracking"))
	srv.Do(t, "SET", "app:k", "v")
	for range 3 {
		reads(t, s, rec, "k", "v", false)
	}
	srv.Do(t, "SET", "app:k", "new")
	reads(t, s, rec, "k", "new", false)
}

func TestNear_KeysOfOtherKindsAreErrorsAsWithout(t *testing.T) {
	s, srv, _ := startNear(t)
	srv.Do(t, "LPUSH", "app:list", "a")
	for range 2 {
		if _, _, err := s.GetCache(t.Context(), "list"); !errors.Is(err, madcrow.ErrWrongType) {
			t.Errorf("%v", err)
		}
	}
	var wrong *madcrow.ArgumentError
	if _, _, err := s.GetCache(t.Context(), "session:1"); !errors.As(err, &wrong) {
		t.Errorf("%v", err)
	}
}

func TestNear_IsBounded(t *testing.T) {
	s, _, _ := startNear(t)
	ctx := t.Context()
	for i := range 5000 {
		if _, _, err := s.GetCache(ctx, fmt.Sprintf("missing:%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := s.near.entries.Size(); n*nearOverhead > 1<<20 {
		t.Errorf("%d copies", n)
	}
}

// A near hit allocates nothing.
func BenchmarkGetCache_Near(b *testing.B) {
	cfg := benchConfig(b)
	r, err := madcrow.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.Close(context.Background()) })
	for name, s := range map[string]*Service{"near": New(r, Options{NearCacheBytes: 1 << 20}), "redis": New(r, Options{})} {
		if err := s.SetCache(b.Context(), "user:42", "a value of some length", time.Hour); err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, found, err := s.GetCache(context.Background(), "user:42"); !found || err != nil {
						b.Error(found, err)
						return
					}
				}
			})
		})
	}
}

func benchConfig(b *testing.B) madcrow.Config {
	cfg := madcrowtest.StartRedis(b).Config()
	cfg.Require, cfg.KeyPrefix = true, "app:"
	return cfg
}
