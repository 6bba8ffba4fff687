package semaphore_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/semaphore"
)

func one(t testing.TB, r *madcrow.Redis, name string, policy madcrow.FailPolicy) *semaphore.Semaphore {
	t.Helper()
	return must[*semaphore.Semaphore](t)(semaphore.New(r, name, semaphore.Options{Limit: 1, FailPolicy: policy}))
}

func take(t testing.TB, s *semaphore.Semaphore, subject string) *semaphore.Lease {
	t.Helper()
	lease, d, err := s.TryAcquire(context.Background(), subject)
	if err != nil || lease == nil {
		t.Fatalf("%+v %v", d, err)
	}
	return lease
}

// A place that was free after 100 ms was seen after a second.
func TestAcquire_AReleaseWakesAWaitingCallHereAndInAnotherProcess(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	r, other := openConfig(t, s.Config()), openConfig(t, s.Config())
	holder := one(t, r, "woken", madcrow.FailClosed)
	for name, waiter := range map[string]*semaphore.Semaphore{"here": holder, "in another process": one(t, other, "woken", madcrow.FailClosed)} {
		t.Run(name, func(t *testing.T) {
			best := time.Hour
			for range 3 { // the machine may be busy at one of them
				held := take(t, holder, name)
				got := make(chan time.Duration)
				var released time.Time
				go func() {
					lease, err := waiter.Acquire(t.Context(), name)
					took := time.Since(released)
					if err == nil {
						err = lease.Release(t.Context())
					}
					if err != nil {
						t.Error(err)
					}
					got <- took
				}()
				time.Sleep(1200 * time.Millisecond) // it has asked again by itself, and sleeps
				released = time.Now()
				if err := held.Release(t.Context()); err != nil {
					t.Fatal(err)
				}
				best = min(best, <-got)
			}
			if best > 150*time.Millisecond {
				t.Errorf("acquired %v after the release", best)
			}
		})
	}
}

func TestAcquire_CallsOfAProcessAreServedInTheirOrder(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	c := one(t, openConfig(t, s.Config()), "queue", madcrow.FailClosed)
	held := take(t, c, "x")
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			lease, err := c.Acquire(t.Context(), "x")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			if err := lease.Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(30 * time.Millisecond)
	}
	before := calls(t, s)
	time.Sleep(500 * time.Millisecond)
	if n := calls(t, s) - before; n > 3 {
		t.Errorf("8 calls that wait asked %d times in half a second: only the first asks", n)
	}
	began := time.Now()
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if took := time.Since(began); !slices.IsSorted(order) || len(order) != 8 || took > 2*time.Second {
		t.Errorf("served %v in %v", order, took)
	}
}

// calls is how many scripts a server has run.
func calls(t testing.TB, s *madcrowtest.Server) int {
	t.Helper()
	info, _ := s.Do(t, "INFO", "commandstats").(string)
	n := 0
	for line := range strings.Lines(info) {
		if stats, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
			n, _ = strconv.Atoi(strings.SplitN(stats, ",", 2)[0])
		}
	}
	return n
}

// Each call that waits learns at once that Redis is away, and not one after the
// other.
func TestAcquire_WithoutRedisNoCallWaitsBehindAnother(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	c := one(t, openConfig(t, s.Config()), "away", madcrow.FailClosed)
	take(t, c, "x")
	failed := make(chan error)
	for range 20 {
		go func() {
			_, err := c.Acquire(t.Context(), "x")
			failed <- err
		}()
	}
	time.Sleep(200 * time.Millisecond)
	s.Kill()
	began := time.Now()
	for range 20 {
		if err := <-failed; !errors.Is(err, madcrow.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the last one learned of it after %v", took)
	}
}

func TestAcquire_ErrBusyWhenTheTimeToWaitIsOver(t *testing.T) {
	t.Parallel()
	c := one(t, open(t), "busy", madcrow.FailClosed)
	held := take(t, c, "x")
	if _, err := c.Acquire(t.Context(), "x", semaphore.MaxWait(50*time.Millisecond)); !errors.Is(err, semaphore.ErrBusy) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Acquire(ctx, "x"); !errors.Is(err, semaphore.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	// The wait ends, and the lease goes on.
	time.AfterFunc(50*time.Millisecond, func() { _ = held.Release(context.Background()) })
	lease, err := c.Acquire(t.Context(), "x", semaphore.MaxWait(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, limited := lease.Context().Deadline(); limited || lease.Context().Err() != nil {
		t.Error("MaxWait bounds the lease")
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// A call that has left the queue while it was woken passes that on.
func TestAcquire_WhoLeavesTheQueueWakesTheNext(t *testing.T) {
	t.Parallel()
	c := one(t, open(t), "leaves", madcrow.FailClosed)
	for range 20 {
		held := take(t, c, "x")
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		wait := func(ctx context.Context, to chan error) {
			lease, err := c.Acquire(ctx, "x")
			if err == nil {
				err = lease.Release(context.Background())
			}
			to <- err
		}
		go wait(ctx, first)
		time.Sleep(10 * time.Millisecond)
		go wait(t.Context(), second)
		time.Sleep(10 * time.Millisecond)
		began := time.Now()
		go cancel()
		if err := held.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-first
		if err := <-second; err != nil || time.Since(began) > 3*time.Second {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
	}
}

func TestClose_ReleasesAndLeavesNothingBehind(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	madcrowtest.CheckLeaks(t)
	r := openConfig(t, s.Config())
	c := one(t, r, "close", madcrow.FailClosed)
	held := take(t, c, "x")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { _, err := c.Acquire(ctx, "x"); done <- err }()
	time.Sleep(100 * time.Millisecond)
	cancel()
	<-done
	if err := held.Release(ctx); err == nil { // it is released in the background
		t.Error("released with a context that has ended")
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if d, err := c.Peek(t.Context(), "x"); err != nil || !d.Allowed {
		t.Errorf("%+v %v", d, err)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
