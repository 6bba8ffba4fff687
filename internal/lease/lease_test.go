package lease_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/lease"
)

var errAway = errors.New("away")

// script answers the renewals of a lease, and notes when they came.
type script struct {
	start time.Time
	reply func(n int) (held bool, err error)
	at    []time.Duration
	lost  []time.Duration
}

func (s *script) options(ttl time.Duration) lease.Options {
	s.start = time.Now()
	return lease.Options{
		TTL: ttl,
		Renew: func(context.Context) (bool, error) {
			s.at = append(s.at, time.Since(s.start))
			return s.reply(len(s.at))
		},
		Lost: func() { s.lost = append(s.lost, time.Since(s.start)) },
	}
}

func always(int) (bool, error) { return true, nil }

func TestKeep_RenewsEveryThirdUntilItIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{reply: always}
		l := lease.Keep(t.Context(), time.Now(), s.options(3*time.Second))
		time.Sleep(10500 * time.Millisecond)
		l.Stop()
		l.Stop()
		time.Sleep(time.Minute)
		if len(s.at) != 10 || s.at[0] != time.Second || s.at[9] != 10*time.Second || len(s.lost) != 0 {
			t.Errorf("renewed at %v, lost at %v", s.at, s.lost)
		}
	})
}

func TestKeep_StoppedBeforeTheFirstRenewalDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{reply: always}
		l := lease.Keep(t.Context(), time.Now(), s.options(3*time.Second))
		time.Sleep(999 * time.Millisecond)
		l.Stop()
		time.Sleep(time.Minute)
		if len(s.at) != 0 || len(s.lost) != 0 {
			t.Errorf("renewed at %v, lost at %v", s.at, s.lost)
		}
	})
}

func TestKeep_ALeaseOfAnotherHolderIsLostAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{reply: func(n int) (bool, error) { return n < 3, nil }}
		l := lease.Keep(t.Context(), time.Now(), s.options(3*time.Second))
		time.Sleep(time.Minute)
		l.Stop()
		if len(s.at) != 3 || len(s.lost) != 1 || s.lost[0] != 3*time.Second {
			t.Errorf("renewed at %v, lost at %v", s.at, s.lost)
		}
	})
}

// The goroutine went on renewing for the rest of TTL after Redis.Close.
func TestKeep_ALeaseIsLostWhenTheRedisIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{reply: func(int) (bool, error) { return false, fmt.Errorf("GET: %w", fault.ErrClosed) }}
		l := lease.Keep(t.Context(), time.Now(), s.options(3*time.Second))
		time.Sleep(time.Minute)
		l.Stop()
		if len(s.lost) != 1 || s.lost[0] != time.Second {
			t.Errorf("renewed at %v, lost at %v", s.at, s.lost)
		}
	})
}

// The lease may belong to another holder once TTL has passed since the last
// renewal was sent, so it is lost not a moment later.
func TestKeep_WithoutRedisALeaseIsLostWhenItsTTLHasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{reply: func(n int) (bool, error) {
			if n == 2 {
				return true, nil
			}
			return false, errAway
		}}
		l := lease.Keep(t.Context(), time.Now(), s.options(3*time.Second))
		time.Sleep(time.Minute)
		l.Stop()
		// At 1 s it fails, at 1.25 s it succeeds: it lives until 4.25 s.
		if len(s.lost) != 1 || s.lost[0] < 4250*time.Millisecond || s.lost[0] > 4252*time.Millisecond {
			t.Errorf("renewed at %v, lost at %v", s.at, s.lost)
		}
	})
}

func TestKeep_ARenewalEndsWithTheLeaseAndWithStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var ends []time.Duration
		var lost time.Duration
		o := lease.Options{
			TTL:  3 * time.Second,
			Lost: func() { lost = time.Since(start) },
			Renew: func(ctx context.Context) (bool, error) { // Redis is silent
				<-ctx.Done()
				ends = append(ends, time.Since(start))
				return false, ctx.Err()
			},
		}
		l := lease.Keep(t.Context(), start, o)
		time.Sleep(time.Minute)
		l.Stop()
		if lost != 3*time.Second || ends[0] != 2*time.Second {
			t.Errorf("renewals ended at %v, lost at %v", ends, lost)
		}
		start, ends, lost = time.Now(), nil, 0
		l = lease.Keep(t.Context(), start, o)
		time.Sleep(1500 * time.Millisecond)
		l.Stop()
		if len(ends) != 1 || ends[0] != 1500*time.Millisecond || lost != 0 {
			t.Errorf("stopped in a renewal: ended at %v, lost at %v", ends, lost)
		}
	})
}

func TestKeep_EndsWithItsContextAndIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{reply: always}
		ctx, cancel := context.WithCancel(t.Context())
		l := lease.Keep(ctx, time.Now(), s.options(3*time.Second))
		time.Sleep(1500 * time.Millisecond)
		cancel()
		time.Sleep(time.Minute)
		if len(s.at) != 1 || len(s.lost) != 0 {
			t.Errorf("renewed at %v, lost at %v", s.at, s.lost)
		}
		l.Stop()
	})
}

func TestKeep_WakeCausesARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{reply: always}
		o := s.options(0) // it never expires by itself
		o.Every, o.First = time.Second, 5*time.Millisecond
		wake := make(chan struct{}, 1)
		var watched atomic.Int32
		o.Wake = func() (<-chan struct{}, func()) {
			watched.Add(1)
			return wake, func() { watched.Add(-1) }
		}
		l := lease.Keep(t.Context(), time.Now(), o)
		time.Sleep(100 * time.Millisecond)
		wake <- struct{}{}
		time.Sleep(100 * time.Millisecond)
		if watched.Load() != 1 {
			t.Error("nothing wakes it")
		}
		l.Stop()
		if len(s.at) != 2 || s.at[0] != 5*time.Millisecond || s.at[1] != 100*time.Millisecond || watched.Load() != 0 {
			t.Errorf("renewed at %v, %d still watch", s.at, watched.Load())
		}
	})
}

// All parts of a renewal had to share the time between two renewals, though the
// lease does not expire.
func TestKeep_WithoutTTLARenewalHasNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bounded, ended bool
		l := lease.Keep(t.Context(), time.Now(), lease.Options{
			Every: time.Second,
			Renew: func(ctx context.Context) (bool, error) {
				_, bounded = ctx.Deadline()
				<-ctx.Done()
				ended = true
				return true, nil
			},
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if bounded || ended {
			t.Errorf("a deadline: %v, ended: %v", bounded, ended)
		}
		if l.Stop(); !ended {
			t.Error("Stop did not end it")
		}
	})
}

func TestKeep_ALeaseThatIsKnownToBeHeldIsRenewedOnlyWhenWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{reply: always}
		o := s.options(0)
		o.Every = time.Second
		o.Known = func() bool { return len(s.at) > 0 && time.Since(s.start) < 10*time.Second }
		wake := make(chan struct{}, 1)
		o.Wake = func() (<-chan struct{}, func()) { return wake, func() {} }
		l := lease.Keep(t.Context(), time.Now(), o)
		time.Sleep(4500 * time.Millisecond)
		wake <- struct{}{}
		time.Sleep(6 * time.Second)
		l.Stop()
		if len(s.at) != 3 || s.at[0] != time.Second || s.at[1] != 4500*time.Millisecond || s.at[2] < 10*time.Second || len(s.lost) != 0 {
			t.Errorf("renewed at %v, lost at %v", s.at, s.lost)
		}
	})
}
