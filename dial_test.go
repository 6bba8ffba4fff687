package madcrow_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// dialVia returns a Dialer that does first before each dial.
func dialVia(first func(context.Context) error) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if err := first(ctx); err != nil {
			return nil, err
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
}

func pauseFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// untilServed calls until a call succeeds, and returns how long that took. No
// call may wait for longer than its deadline.
func untilServed(t *testing.T, deadline, within time.Duration, call func(context.Context) error) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		before := time.Now()
		err := call(ctx)
		cancel()
		if d := time.Since(before); d > deadline+testkit.Slack(50*time.Millisecond) {
			t.Errorf("a call took %v", d)
		}
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > within {
			t.Fatalf("not served within %v: %v", within, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// A dial whose packets are lost took its whole time-out, 1 s, before it was
// made again.
func TestDial_LostPacketCostsMilliseconds(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := madcrowtest.StartRedis(t)
	var lose atomic.Int32
	cfg := s.Config()
	cfg.Dialer = dialVia(func(ctx context.Context) error {
		if lose.Add(-1) >= 0 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	mustSet(t, r, "a", "1")
	lose.Store(1)
	s.Do(t, "CLIENT", "KILL", "TYPE", "normal")
	took := untilServed(t, 500*time.Millisecond, 5*time.Second, func(ctx context.Context) error { err := r.Do(ctx, get(r, "a")).Err(); return err })
	t.Logf("served again after %v", took)
	if took > testkit.Slack(200*time.Millisecond) {
		t.Errorf("served again after %v, want 45 ms and a dial", took)
	}
}

// Dials that take long, of a process that gets little time or to a Redis that
// is far away, were given up after 45 ms or three times the usual, again and
// again, and the process never got its connections back.
func TestDial_SlowDialHasTheTimeOfTheSetting(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := madcrowtest.StartRedis(t)
	var slow atomic.Int64
	cfg := s.Config()
	cfg.Dialer = dialVia(func(ctx context.Context) error { return pauseFor(ctx, time.Duration(slow.Load())) })
	cfg.CommandTimeout = 200 * time.Millisecond
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	slow.Store(int64(400 * time.Millisecond))
	s.Do(t, "CLIENT", "KILL", "TYPE", "normal")
	took := untilServed(t, 200*time.Millisecond, 10*time.Second, func(ctx context.Context) error { err := r.Do(ctx, incr(r, "a")).Err(); return err })
	byDedicated := untilServed(t, 200*time.Millisecond, 10*time.Second, func(ctx context.Context) error { err := r.Do(ctx, incr(r, "a"), madcrow.Dedicated).Err(); return err })
	t.Logf("with dials of 0.4 s and deadlines of 0.2 s: served again after %v, on a dedicated connection after %v more", took, byDedicated)
	if took > testkit.Slack(1200*time.Millisecond) || byDedicated > testkit.Slack(600*time.Millisecond) {
		t.Error("want two dials, and then one")
	}
}
