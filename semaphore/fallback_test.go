package semaphore_test

import (
	"errors"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/semaphore"
)

func TestSemaphore_WithoutRedisThePolicyDecides(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	r := openConfig(t, s.Config())
	s.Kill()
	acquire := func(policy madcrow.FailPolicy) (*semaphore.Lease, semaphore.Decision, semaphore.Health, error) {
		c := must[*semaphore.Semaphore](t)(semaphore.New(r, "x", semaphore.Options{Limit: 4, FailPolicy: policy}))
		var lease *semaphore.Lease
		var d semaphore.Decision
		var err error
		for range 3 {
			lease, d, err = c.TryAcquire(t.Context(), "a")
		}
		return lease, d, c.Health(), err
	}
	lease, d, health, err := acquire(madcrow.FailClosed)
	if lease != nil || d.Allowed || !errors.Is(err, madcrow.ErrUnavailable) || !health.Degraded {
		t.Errorf("closed: %+v %v %+v", d, err, health)
	}
	var e *madcrow.Error
	if !errors.As(err, &e) || e.Name != "x" || e.Op != "semaphore.acquire" {
		t.Errorf("closed: %#v", err)
	}
	if p := problem.From(err); p.Status != 503 || p.RetryAfter == 0 || p.Table != "" {
		t.Errorf("closed: %+v", p)
	}
	lease, d, _, err = acquire(madcrow.FailOpen)
	if err != nil || lease == nil || !lease.Degraded() || !d.Degraded || d.Cause == nil || lease.Context().Err() != nil {
		t.Errorf("open: %+v %v", d, err)
	}
	if err := lease.Release(t.Context()); err != nil || lease.Context().Err() == nil {
		t.Error(err)
	}
	lease, d, _, err = acquire(madcrow.FailLocal(2))
	if err != nil || lease != nil || d.Allowed || !d.Degraded || d.Limit != 2 || d.RetryAfter <= 0 {
		t.Errorf("local: %+v %v", d, err)
	}
}
