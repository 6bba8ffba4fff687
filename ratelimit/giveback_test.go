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

// throughWire is a Redis, and one behind a wire that can be spoilt.
func throughWire(t *testing.T, timeout time.Duration) (direct, far *madcrow.Redis, s *madcrowtest.Server, wire *madcrowtest.Proxy) {
	t.Helper()
	s = madcrowtest.StartRedis(t)
	wire = madcrowtest.StartProxy(t, s.Addr())
	cfg := s.Config()
	cfg.Port, cfg.CommandTimeout = wire.Port(), timeout
	return openConfig(t, s.Config()), openConfig(t, cfg), s, wire
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// A place whose taking was not heard of is nobody's, and comes back long before
// its length has passed.
func TestConcurrency_APlaceThatNobodyHeardOfIsGivenBack(t *testing.T) {
	t.Parallel()
	for _, fail := range []ratelimit.FailPolicy{ratelimit.FailOpen, ratelimit.FailClosed, ratelimit.FailLocal(2)} {
		t.Run(fail.String(), func(t *testing.T) {
			t.Parallel()
			direct, far, _, wire := throughWire(t, 20*time.Second)
			c := must[*ratelimit.Concurrency](t)(ratelimit.NewConcurrency(far, "c", 1, time.Hour, fail))
			look := must[*ratelimit.Concurrency](t)(ratelimit.NewConcurrency(direct, "c", 1, time.Hour, fail))
			free := func(want bool) func() bool {
				return func() bool {
					d, err := look.Peek(t.Context(), "x")
					return err == nil && d.Allowed == want
				}
			}
			if _, err := c.Peek(t.Context(), "x"); err != nil { // the script is known
				t.Fatal(err)
			}
			wire.SetDelay(5 * time.Second)
			type result struct {
				lease *ratelimit.Lease
				err   error
			}
			done := make(chan result)
			go func() {
				lease, _, err := c.Acquire(t.Context(), "x")
				done <- result{lease, err}
			}()
			eventually(t, "it is taken", free(false))
			wire.ResetAll() // before the reply
			wire.SetDelay(0)
			got := <-done
			if fail == ratelimit.FailClosed && (got.err == nil || got.lease != nil) || fail != ratelimit.FailClosed && (got.err != nil || !got.lease.Degraded()) {
				t.Fatalf("%+v", got)
			}
			eventually(t, "it is free", free(true))
			if got.lease != nil {
				if err := got.lease.Release(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestConcurrency_AReleaseThatFailedIsMadeUpFor(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	c := must[*ratelimit.Concurrency](t)(ratelimit.NewConcurrency(openConfig(t, s.Config()), "c", 1, time.Hour, ratelimit.FailClosed))
	ctx, cancel := context.WithCancel(t.Context())
	lease, _, err := c.Acquire(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	cancel() // the client has left
	if err := lease.Release(ctx); !errors.Is(err, madcrow.ErrCanceled) {
		t.Errorf("%v", err)
	}
	eventually(t, "it is free", func() bool {
		d, err := c.Peek(t.Context(), "x")
		return err == nil && d.Allowed
	})

	if lease, _, err = c.Acquire(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	if err := lease.Release(t.Context()); err == nil {
		t.Error("released while Redis was stopped")
	}
	s.Resume()
	eventually(t, "it is free again", func() bool {
		d, err := c.Peek(t.Context(), "x")
		return err == nil && d.Allowed
	})
}

// WithTimeout holds for each way to ask.
func TestWithTimeout_HoldsForGroupsAndPlaces(t *testing.T) {
	t.Parallel()
	_, far, _, wire := throughWire(t, 30*time.Second)
	limit := func(name string, opts ...ratelimit.Option) *ratelimit.Limiter {
		return must[*ratelimit.Limiter](t)(ratelimit.New(far, name, ratelimit.PerMinute(10), ratelimit.FailOpen, opts...))
	}
	soon := ratelimit.WithTimeout(50 * time.Millisecond)
	alone := limit("alone", soon)
	group := must[*ratelimit.Group](t)(ratelimit.Join(limit("a"), limit("b", soon), limit("c", ratelimit.WithTimeout(time.Minute))))
	places := must[*ratelimit.Concurrency](t)(ratelimit.NewConcurrency(far, "places", 1, time.Minute, ratelimit.FailOpen, soon))
	wire.SetDelay(10 * time.Second)
	for name, ask := range map[string]func() (ratelimit.Decision, error){
		"a limit": func() (ratelimit.Decision, error) { return alone.Allow(t.Context(), "x") },
		"a group": func() (ratelimit.Decision, error) {
			j, err := group.Allow(t.Context(), "x")
			return j.Decision, err
		},
		"a place": func() (ratelimit.Decision, error) {
			_, d, err := places.Acquire(t.Context(), "x")
			return d, err
		},
	} {
		start := time.Now()
		d, err := ask()
		if took := time.Since(start); took > 5*time.Second || err != nil || !d.Degraded {
			t.Errorf("%s: %+v %v after %v", name, d, err, took)
		}
	}
	wire.SetDelay(0)
}

func TestWait_SeesAReset(t *testing.T) {
	t.Parallel()
	l := must[*ratelimit.Limiter](t)(ratelimit.New(openConfig(t, madcrowtest.StartRedis(t).Config()), "w", ratelimit.PerHour(1), ratelimit.FailClosed))
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

// A cost above this process's share alone is no denial for ever, and a Reset
// forgets what was counted here.
func TestFailLocal_WaitAndReset(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	l := must[*ratelimit.Limiter](t)(ratelimit.New(openConfig(t, s.Config()), "x", ratelimit.PerHour(10), ratelimit.FailLocal(4)))
	s.Kill()
	if d, err := l.WaitN(t.Context(), "a", 3); errors.Is(err, ratelimit.ErrNever) || !errors.Is(err, madcrow.ErrUnavailable) || !d.Degraded {
		t.Errorf("%+v %v", d, err)
	}
	for i := range 3 {
		if d, err := l.Allow(t.Context(), "a"); err != nil || d.Allowed != (i < 2) {
			t.Errorf("%+v %v", d, err)
		}
	}
	s.Restart()
	eventually(t, "a Reset", func() bool { return l.Reset(t.Context(), "a") == nil })
	s.Kill()
	eventually(t, "that Redis is away", func() bool { d, err := l.Allow(t.Context(), "a"); return err == nil && d.Degraded })
	if d, err := l.Allow(t.Context(), "a"); err != nil || !d.Allowed {
		t.Errorf("%+v %v", d, err)
	}
}
