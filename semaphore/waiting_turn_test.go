package semaphore_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/semaphore"
)

// Each call left before it was its turn to ask, so no one ever asked: after the end of
// a holder that does not say so, all were refused for as long as any waited.
func TestAcquire_ShortWaitsFindTheLeaseOfAHolderThatDied(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	r, dying := openConfig(t, s.Config()), openConfig(t, s.Config())
	o := semaphore.Options{Limit: 1, FailPolicy: madcrow.FailClosed, LeaseTTL: 3 * time.Second}
	take(t, must[*semaphore.Semaphore](t)(semaphore.New(dying, "died", o)), "x")
	if err := dying.Close(t.Context()); err != nil { // its lease is no longer renewed
		t.Fatal(err)
	}
	c := must[*semaphore.Semaphore](t)(semaphore.New(r, "died", o))
	var got atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	// One call begins every 30 ms and waits for 100 ms: some always wait.
	for end := time.Now().Add(8 * time.Second); !got.Load(); time.Sleep(30 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the lease has ended, and no call that waited has got it")
		}
		wg.Go(func() {
			lease, err := c.Acquire(t.Context(), "x", semaphore.MaxWait(100*time.Millisecond))
			if err == nil {
				got.Store(true)
				err = lease.Release(context.Background())
			}
			if err != nil && !errors.Is(err, semaphore.ErrBusy) {
				t.Error(err)
			}
		})
	}
}

// A wait that ended while Redis was asked counted as an outage of Redis: under FailOpen
// it gave a lease that was not free.
func TestAcquire_TheEndOfAWaitIsNoOutage(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	proxy := madcrowtest.StartProxy(t, s.Addr())
	proxy.SetDelay(100 * time.Millisecond)
	cfg := s.Config()
	cfg.Port = proxy.Port()
	c := must[*semaphore.Semaphore](t)(semaphore.New(openConfig(t, cfg), "ended", semaphore.Options{Limit: 1, FailPolicy: madcrow.FailOpen, LeaseTTL: 2 * time.Second}))
	take(t, c, "x")
	for i := range 6 { // it asks every 200 ms, for 100 ms or more: some waits end within a call
		lease, err := c.Acquire(t.Context(), "x", semaphore.MaxWait(600*time.Millisecond+time.Duration(i)*60*time.Millisecond))
		if lease != nil || !errors.Is(err, semaphore.ErrBusy) {
			t.Errorf("%v, %v", lease, err)
		}
	}
	if h := c.Health(); h.Degraded {
		t.Errorf("%+v", h)
	}
}

// Each call that waited tried to subscribe again.
func TestAcquire_WhoMayNotSubscribeWaitsAndDoesNotTryEachTime(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	s.Do(t, "ACL", "SETUSER", "limits", "on", ">secret", "~*", "+@all", "-subscribe", "resetchannels")
	cfg := s.Config()
	cfg.Username, cfg.Password = "limits", "secret"
	c := one(t, openConfig(t, cfg), "unheard", madcrow.FailClosed)
	held := take(t, c, "x")
	for range 20 {
		if _, err := c.Acquire(t.Context(), "x", semaphore.MaxWait(20*time.Millisecond)); !errors.Is(err, semaphore.ErrBusy) {
			t.Error(err)
		}
	}
	info, _ := s.Do(t, "INFO", "commandstats").(string)
	if _, tries, _ := strings.Cut(info, "cmdstat_subscribe:"); strings.Count(info, "cmdstat_subscribe:") != 1 || !strings.Contains(strings.SplitN(tries, "\n", 2)[0], "rejected_calls=1,") {
		t.Errorf("not one try: %.80s", tries)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Acquire(t.Context(), "x", semaphore.MaxWait(5*time.Second)); err != nil {
		t.Error(err)
	}
}
