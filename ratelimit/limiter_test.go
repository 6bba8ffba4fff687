package ratelimit_test

import (
	"context"
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
			l := must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.PerMinute(5), FailPolicy: madcrow.FailClosed, Algorithm: a}))
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
	b := must[*ratelimit.TokenBucket](t)(ratelimit.NewTokenBucket(open(t), "b", ratelimit.TokenBucketOptions{Rate: ratelimit.PerHour(60), Burst: 10, FailPolicy: madcrow.FailClosed}))
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

func TestWait_SeesAReset(t *testing.T) {
	t.Parallel()
	l := must[*ratelimit.Limiter](t)(ratelimit.New(openConfig(t, madcrowtest.StartRedis(t).Config()), "w", ratelimit.Options{Rate: ratelimit.PerHour(1), FailPolicy: madcrow.FailClosed}))
	if d, err := l.Allow(t.Context(), "x"); err != nil || !d.Allowed {
		t.Fatal(d, err)
	}
	done := make(chan error)
	go func() {
		_, err := l.Wait(t.Context(), "x")
		done <- err
	}()
	time.Sleep(50 * time.Millisecond)
	if err := l.Reset(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(15 * time.Second):
		t.Error("it sleeps on")
	}
}

func TestLimiter_OfABlockedSubjectNothingRemains(t *testing.T) {
	r := open(t)
	var all []*ratelimit.Limiter
	for name, a := range algorithms {
		l := must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.PerMinute(5), FailPolicy: madcrow.FailClosed, Algorithm: a, DeniedSubjects: -1}))
		all = append(all, l)
		if err := l.Block(t.Context(), "a", time.Minute); err != nil {
			t.Fatal(err)
		}
		if d, err := l.Allow(t.Context(), "a"); err != nil || d.Allowed || d.Remaining != 0 {
			t.Errorf("%s: %+v %v", name, d, err)
		}
		if d, err := l.Peek(t.Context(), "a"); err != nil || d.Allowed || d.Remaining != 0 {
			t.Errorf("%s: %+v %v", name, d, err)
		}
	}
	g := must[*ratelimit.Group](t)(ratelimit.Join(all...))
	j, err := g.Allow(t.Context(), "a")
	if err != nil || j.Allowed {
		t.Fatalf("%+v %v", j, err)
	}
	for _, d := range j.Limits {
		if d.Allowed || d.Remaining != 0 {
			t.Errorf("%+v", d)
		}
	}
}

func TestLimiter_AWindowThatBecomesLongerForgetsNothing(t *testing.T) {
	r := open(t)
	for name, a := range map[string][2]ratelimit.Algorithm{
		"log": {ratelimit.SlidingLog(), ratelimit.SlidingLog()},
		"set": {ratelimit.SortedSetLog(), ratelimit.SortedSetLog()},
		// Of the same width, so that the buckets stay.
		"window": {ratelimit.SlidingWindow(1), ratelimit.SlidingWindow(20)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := func(window time.Duration, a ratelimit.Algorithm) *ratelimit.Limiter {
				return must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.Per(window, 5), FailPolicy: madcrow.FailClosed, Algorithm: a, DeniedSubjects: -1}))
			}
			if d, err := limit(time.Second, a[0]).AllowN(t.Context(), "a", 5); err != nil || !d.Allowed {
				t.Fatalf("%+v %v", d, err)
			}
			longer := limit(20*time.Second, a[1])
			for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if d, err := longer.Allow(t.Context(), "a"); err != nil || d.Allowed || d.RetryAfter < 10*time.Second {
					t.Fatalf("%+v %v", d, err)
				}
			}
		})
	}
}
