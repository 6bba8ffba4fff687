package ratelimit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
)

var config madcrow.Config

func TestMain(m *testing.M) {
	madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { config = s.Config() })
}

// open connects to the server of the package, under a key prefix of its own.
func open(t testing.TB) *madcrow.Redis {
	t.Helper()
	cfg := config
	cfg.KeyPrefix = t.Name() + ":"
	return openConfig(t, cfg)
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

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

var algorithms = map[string]ratelimit.Algorithm{
	"log": ratelimit.SlidingLog(), "set": ratelimit.SortedSetLog(),
	"window": ratelimit.SlidingWindow(10), "gcra": ratelimit.GCRA(5),
}

func TestLimiter_AdmitsItsLimitAndReportsTheRest(t *testing.T) {
	r := open(t)
	for name, a := range algorithms {
		t.Run(name, func(t *testing.T) {
			l := must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.PerMinute(5), ratelimit.FailClosed, ratelimit.WithAlgorithm(a)))
			for i := range 5 {
				d, err := l.Allow(t.Context(), "alice")
				if err != nil || !d.Allowed || d.Remaining != int64(4-i) || d.RetryAfter != 0 || d.Limit != 5 || d.Source != ratelimit.SourceRedis {
					t.Fatalf("request %d: %+v, %v", i, d, err)
				}
			}
			d, err := l.Allow(t.Context(), "alice")
			if err != nil || d.Allowed || d.Remaining != 0 || d.RetryAfter <= 0 || d.RetryAfter > 66*time.Second || d.Source != ratelimit.SourceRedis {
				t.Errorf("the sixth: %+v, %v", d, err)
			}
			if d, err = l.Allow(t.Context(), "alice"); err != nil || d.Allowed || d.Source != ratelimit.SourceLocal || d.RetryAfter <= 0 {
				t.Errorf("the seventh: %+v, %v", d, err)
			}
			if d, err = l.Allow(t.Context(), "bob"); err != nil || !d.Allowed {
				t.Errorf("another subject: %+v, %v", d, err)
			}
			if d, err = l.AllowN(t.Context(), "alice", 6); err != nil || d.Allowed || d.RetryAfter != ratelimit.Never {
				t.Errorf("more than the limit: %+v, %v", d, err)
			}
			if d, err = l.Peek(t.Context(), "alice"); err != nil || d.Allowed || d.RetryAfter <= 0 {
				t.Errorf("peek: %+v, %v", d, err)
			}
			if err := l.Reset(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
			if d, err = l.Peek(t.Context(), "alice"); err != nil || !d.Allowed || d.Remaining != 5 {
				t.Errorf("after the reset: %+v, %v", d, err)
			}
			if err := l.Block(t.Context(), "alice", time.Minute); err != nil {
				t.Fatal(err)
			}
			if d, err = l.Allow(t.Context(), "alice"); err != nil || d.Allowed || d.RetryAfter <= 59*time.Second || d.RetryAfter > time.Minute {
				t.Errorf("blocked: %+v, %v", d, err)
			}
		})
	}
}

func TestTokenBucket_Verbs(t *testing.T) {
	b := must[*ratelimit.TokenBucket](t)(ratelimit.NewTokenBucket(open(t), "b", ratelimit.PerHour(60), 10, ratelimit.FailClosed))
	n, d, err := b.AllowAtMost(t.Context(), "a", 7)
	if err != nil || n != 7 || !d.Allowed || d.Remaining != 3 {
		t.Fatalf("%d %+v %v", n, d, err)
	}
	if n, d, err = b.AllowAtMost(t.Context(), "a", 7); err != nil || n != 3 || !d.Allowed || d.Remaining != 0 {
		t.Fatalf("%d %+v %v", n, d, err)
	}
	if n, d, err = b.AllowAtMost(t.Context(), "a", 7); err != nil || n != 0 || d.Allowed || d.RetryAfter <= 0 {
		t.Fatalf("%d %+v %v", n, d, err)
	}
	res, err := b.Reserve(t.Context(), "a", 2, time.Second)
	if err != nil || res.OK || res.Wait < 119*time.Second || res.Wait > 2*time.Minute {
		t.Fatalf("%+v %v", res, err)
	}
	if res, err = b.Reserve(t.Context(), "a", 2, 3*time.Minute); err != nil || !res.OK || res.Wait < 119*time.Second || res.Wait > 2*time.Minute {
		t.Fatalf("%+v %v", res, err)
	}
	if d, err = b.Peek(t.Context(), "a"); err != nil || d.RetryAfter < 179*time.Second || d.RetryAfter > 3*time.Minute {
		t.Fatalf("%+v %v", d, err)
	}
	if err := res.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err = b.Peek(t.Context(), "a"); err != nil || d.RetryAfter < 59*time.Second || d.RetryAfter > time.Minute {
		t.Fatalf("%+v %v", d, err)
	}
	if d, err = b.Reward(t.Context(), "a", 4); err != nil || d.Remaining != 4 {
		t.Fatalf("%+v %v", d, err)
	}
	if d, err = b.Penalize(t.Context(), "a", 100); err != nil || d.Remaining != 0 {
		t.Fatalf("%+v %v", d, err)
	}
}

func TestGroup_AllOrNothing(t *testing.T) {
	r := open(t)
	var limits []*ratelimit.Limiter
	for name, a := range algorithms {
		limits = append(limits, must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.PerMinute(5), ratelimit.FailClosed, ratelimit.WithAlgorithm(a), ratelimit.WithDeniedKeys(0))))
	}
	narrow := must[*ratelimit.Limiter](t)(ratelimit.New(r, "narrow", ratelimit.PerSecond(2), ratelimit.FailClosed))
	g := must[*ratelimit.Group](t)(ratelimit.Join(append(limits, narrow)...))
	for i := range 2 {
		if j, err := g.Allow(t.Context(), "a"); err != nil || !j.Allowed || j.Policy != "narrow" || j.Remaining != int64(1-i) || len(j.Limits) != 5 {
			t.Fatalf("%+v %v", j, err)
		}
	}
	j, err := g.Allow(t.Context(), "a")
	if err != nil || j.Allowed || len(j.Violated) != 1 || j.Violated[0] != "narrow" {
		t.Fatalf("%+v %v", j, err)
	}
	for _, l := range limits {
		if d, err := l.Peek(t.Context(), "a"); err != nil || d.Remaining != 3 {
			t.Errorf("%s: %+v %v", l.Name(), d, err)
		}
	}
}

func TestConcurrency_LeasesEndAndAreProlonged(t *testing.T) {
	c := must[*ratelimit.Concurrency](t)(ratelimit.NewConcurrency(open(t), "jobs", 2, 300*time.Millisecond, ratelimit.FailClosed))
	a, _, err := c.Acquire(t.Context(), "x")
	if err != nil || a == nil {
		t.Fatal(err)
	}
	b, d, err := c.Acquire(t.Context(), "x")
	if err != nil || b == nil || d.Remaining != 0 {
		t.Fatalf("%+v %v", d, err)
	}
	time.Sleep(700 * time.Millisecond)
	if none, d, err := c.Acquire(t.Context(), "x"); err != nil || none != nil || d.Allowed || d.RetryAfter <= 0 {
		t.Fatalf("%+v %v", d, err)
	}
	if err := a.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again, _, err := c.Wait(t.Context(), "x"); err != nil || again == nil {
		t.Fatal(err)
	} else if err := c.Reset(t.Context(), "x"); err != nil {
		t.Fatal(err)
	} else {
		<-again.Context().Done()
		if cause := context.Cause(again.Context()); !errors.Is(cause, ratelimit.ErrLeaseLost) {
			t.Errorf("cause %v", cause)
		}
	}
	<-b.Context().Done()
}

func TestLimiter_WithoutRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := openConfig(t, s.Config())
	l := must[*ratelimit.Limiter](t)(ratelimit.New(r, "x", ratelimit.PerMinute(10), ratelimit.FailClosed))
	if d, err := l.Allow(t.Context(), "a"); err != nil || !d.Allowed || l.Health().Degraded {
		t.Fatalf("%+v %v", d, err)
	}
	s.Kill()
	if d, err := l.Allow(t.Context(), "a"); err == nil || d.Allowed || !errors.Is(err, madcrow.ErrUnavailable) || !l.Health().Degraded {
		t.Errorf("closed: %+v %v", d, err)
	}
	if d, err := l.OnFailure(ratelimit.FailOpen).Allow(t.Context(), "a"); err != nil || !d.Allowed || !d.Degraded || d.Source != ratelimit.SourceFallback || d.Err == nil {
		t.Errorf("open: %+v %v", d, err)
	}
	local := l.OnFailure(ratelimit.FailLocal(2))
	for i := range 6 {
		d, err := local.Allow(t.Context(), "a")
		if err != nil || d.Allowed != (i < 5) || !d.Degraded || d.Limit != 5 || i >= 5 && d.RetryAfter <= 0 {
			t.Errorf("local, request %d: %+v %v", i, d, err)
		}
	}
	s.Restart()
	for end := time.Now().Add(5 * time.Second); ; {
		if d, err := local.Allow(t.Context(), "a"); err == nil && !d.Degraded {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not return to Redis")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if l.Health().Degraded {
		t.Error("still degraded")
	}
}
