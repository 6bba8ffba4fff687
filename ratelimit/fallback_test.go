package ratelimit_test

import (
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

func TestOptions_TimeoutHoldsForALimitAndAGroup(t *testing.T) {
	t.Parallel()
	_, far, _, wire := throughWire(t, 30*time.Second)
	limit := func(name string, opts ...ratelimit.Options) *ratelimit.Limiter {
		return newLimit(t, far, name, ratelimit.PerMinute(10), madcrow.FailOpen, opts...)
	}
	soon := ratelimit.Options{Timeout: 50 * time.Millisecond}
	alone := limit("alone", soon)
	group := must[*ratelimit.Group](t)(ratelimit.Join(limit("a"), limit("b", soon), limit("c", ratelimit.Options{Timeout: time.Minute})))
	wire.SetDelay(10 * time.Second)
	for name, ask := range map[string]func() (ratelimit.Decision, error){
		"a limit": func() (ratelimit.Decision, error) { return alone.Allow(t.Context(), "x") },
		"a group": func() (ratelimit.Decision, error) {
			j, err := group.Allow(t.Context(), "x")
			return j.Decision, err
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

// A cost above this process's share alone is no denial for ever, and a Reset
// forgets what was counted here.
func TestFailLocal_WaitAndReset(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	l := must[*ratelimit.Limiter](t)(ratelimit.New(openConfig(t, s.Config()), "x", ratelimit.Options{Rate: ratelimit.PerHour(10), FailPolicy: madcrow.FailLocal(4)}))
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

func TestLimiter_WithoutRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := openConfig(t, s.Config())
	l := must[*ratelimit.Limiter](t)(ratelimit.New(r, "x", ratelimit.Options{Rate: ratelimit.PerMinute(10), FailPolicy: madcrow.FailClosed}))
	if d, err := l.Allow(t.Context(), "a"); err != nil || !d.Allowed || l.Health().Degraded {
		t.Fatalf("%+v %v", d, err)
	}
	s.Kill()
	if d, err := l.Allow(t.Context(), "a"); err == nil || d.Allowed || !errors.Is(err, madcrow.ErrUnavailable) || !l.Health().Degraded {
		t.Errorf("closed: %+v %v", d, err)
	}
	if d, err := l.OnFailure(madcrow.FailOpen).Allow(t.Context(), "a"); err != nil || !d.Allowed || !d.Degraded || d.Source != ratelimit.SourceFallback || d.Cause == nil {
		t.Errorf("open: %+v %v", d, err)
	}
	local := l.OnFailure(madcrow.FailLocal(2))
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
