package semaphore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/semaphore"
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

// No one has a lease whose Acquire had no reply. It is free again long before its
// TTL has passed.
func TestSemaphore_ALeaseWhoseAcquireHadNoReplyIsReleased(t *testing.T) {
	t.Parallel()
	for _, fail := range []madcrow.FailPolicy{madcrow.FailOpen, madcrow.FailClosed, madcrow.FailLocal(2)} {
		t.Run(fail.String(), func(t *testing.T) {
			t.Parallel()
			direct, far, _, wire := throughWire(t, 20*time.Second)
			c := must[*semaphore.Semaphore](t)(semaphore.New(far, "c", semaphore.Options{Limit: 1, FailPolicy: fail, LeaseTTL: time.Hour}))
			look := must[*semaphore.Semaphore](t)(semaphore.New(direct, "c", semaphore.Options{Limit: 1, FailPolicy: fail, LeaseTTL: time.Hour}))
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
				lease *semaphore.Lease
				err   error
			}
			done := make(chan result)
			go func() {
				lease, _, err := c.TryAcquire(t.Context(), "x")
				done <- result{lease, err}
			}()
			eventually(t, "it is acquired", free(false))
			wire.ResetAll() // before the reply
			wire.SetDelay(0)
			got := <-done
			if fail == madcrow.FailClosed && (got.err == nil || got.lease != nil) || fail != madcrow.FailClosed && (got.err != nil || !got.lease.Degraded()) {
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

func TestSemaphore_AReleaseThatFailedIsRetried(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	c := must[*semaphore.Semaphore](t)(semaphore.New(openConfig(t, s.Config()), "c", semaphore.Options{Limit: 1, FailPolicy: madcrow.FailClosed, LeaseTTL: time.Hour}))
	ctx, cancel := context.WithCancel(t.Context())
	lease, _, err := c.TryAcquire(ctx, "x")
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

	if lease, _, err = c.TryAcquire(t.Context(), "x"); err != nil {
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
