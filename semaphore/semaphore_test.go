package semaphore_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/semaphore"
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

func TestSemaphore_LeasesAreRenewedAndEnd(t *testing.T) {
	c := must[*semaphore.Semaphore](t)(semaphore.New(open(t), "jobs", semaphore.Options{Limit: 2, FailPolicy: madcrow.FailClosed, LeaseTTL: 300 * time.Millisecond}))
	a, _, err := c.TryAcquire(t.Context(), "x")
	if err != nil || a == nil {
		t.Fatal(err)
	}
	b, d, err := c.TryAcquire(t.Context(), "x")
	if err != nil || b == nil || d.Remaining != 0 {
		t.Fatalf("%+v %v", d, err)
	}
	time.Sleep(700 * time.Millisecond)
	if none, d, err := c.TryAcquire(t.Context(), "x"); err != nil || none != nil || d.Allowed || d.RetryAfter <= 0 {
		t.Fatalf("%+v %v", d, err)
	}
	if err := a.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again, err := c.Acquire(t.Context(), "x"); err != nil || again == nil {
		t.Fatal(err)
	} else if err := c.Reset(t.Context(), "x"); err != nil {
		t.Fatal(err)
	} else {
		<-again.Context().Done()
		if cause := context.Cause(again.Context()); !errors.Is(cause, semaphore.ErrLeaseLost) {
			t.Errorf("cause %v", cause)
		}
	}
	<-b.Context().Done()
}

func TestSemaphore_AHolderWithoutRedisIsNotifiedBeforeAnotherAcquires(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	open := func(cfg madcrow.Config) *semaphore.Semaphore {
		cfg.CommandTimeout, cfg.Require = 10*time.Second, true
		r, err := madcrow.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close(context.Background()) })
		c, err := semaphore.New(r, "place", semaphore.Options{Limit: 1, FailPolicy: madcrow.FailClosed, LeaseTTL: 1200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	wire := madcrowtest.StartProxy(t, s.Addr())
	cfg := s.Config()
	cfg.Port = wire.Port()
	ours, theirs := open(cfg), open(s.Config())
	lease, _, err := ours.TryAcquire(t.Context(), "a")
	if err != nil || lease == nil {
		t.Fatal(err)
	}
	wire.BlackHole(true)
	var other *semaphore.Lease
	for other == nil { // more often than Acquire
		if other, _, err = theirs.TryAcquire(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case <-lease.Context().Done():
	case <-time.After(250 * time.Millisecond): // the scheduler's
		t.Error("two hold the place")
	}
	if err := other.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSemaphore_OfABlockedSubjectNothingRemains(t *testing.T) {
	c := must[*semaphore.Semaphore](t)(semaphore.New(open(t), "places", semaphore.Options{Limit: 3, FailPolicy: madcrow.FailClosed}))
	if err := c.Block(t.Context(), "a", time.Minute); err != nil {
		t.Fatal(err)
	}
	if d, err := c.Peek(t.Context(), "a"); err != nil || d.Allowed || d.Remaining != 0 {
		t.Errorf("%+v %v", d, err)
	}
}

func TestNew_NamesEveryProblem(t *testing.T) {
	r := open(t)
	_, err := semaphore.New(r, "two words", semaphore.Options{Limit: 0, FailPolicy: madcrow.FailPolicy{}, LeaseTTL: time.Millisecond, Timeout: -1, LocalSubjects: -1})
	var wrong *madcrow.ArgumentError
	if !errors.As(err, &wrong) {
		t.Fatalf("%v", err)
	}
	for _, name := range []string{"name", "Options.Limit", "Options.FailPolicy", "Options.LeaseTTL", "Options.Timeout", "Options.LocalSubjects"} {
		if !strings.Contains(wrong.Argument, name) || !strings.Contains(wrong.Reason, name) {
			t.Errorf("%s is missing: %v", name, err)
		}
	}
	if p := problem.From(err); p.Status != 500 {
		t.Errorf("%+v", p)
	}
}

// A peek and a denial write nothing, and the keys expire with the lease.
func TestSemaphore_KeysLiveAsLongAsALeaseAndADenialWritesNothing(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	c := must[*semaphore.Semaphore](t)(semaphore.New(openConfig(t, s.Config()), "places", semaphore.Options{Limit: 1, FailPolicy: madcrow.FailClosed, LeaseTTL: 9 * time.Second}))
	began := time.Now()
	lease, _, err := c.TryAcquire(t.Context(), "full")
	if err != nil || lease == nil {
		t.Fatal(err)
	}
	const key = "m1:limit:places:c:{full}" // part of the stored data
	if ttl, _ := s.Do(t, "PTTL", key).(int64); ttl > 9002 || ttl+time.Since(began).Milliseconds()+1 < 9000 {
		t.Errorf("the key lives for %d ms", ttl)
	}
	before := changes(t, s)
	for range 3 {
		if none, d, err := c.TryAcquire(t.Context(), "full"); err != nil || none != nil {
			t.Errorf("%+v %v", d, err)
		}
		if _, err := c.Peek(t.Context(), "full"); err != nil {
			t.Fatal(err)
		}
	}
	if after := changes(t, s); after != before {
		t.Errorf("%s changes became %s", before, after)
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if n := s.Do(t, "EXISTS", key); n != int64(0) {
		t.Error("the key outlives the last lease")
	}
}

// changes is how many writes a server has seen.
func changes(t *testing.T, s *madcrowtest.Server) string {
	t.Helper()
	info, _ := s.Do(t, "INFO", "persistence").(string)
	for line := range strings.Lines(info) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "rdb_changes_since_last_save:"); ok {
			return n
		}
	}
	t.Fatal("no number of changes")
	return ""
}

// A value of another program under the keys of a semaphore failed each call for
// ever.
func TestSemaphore_ForeignValuesAreReplacedAndLogged(t *testing.T) {
	for _, policy := range []madcrow.FailPolicy{madcrow.FailClosed, madcrow.FailOpen} {
		t.Run(policy.String(), func(t *testing.T) {
			var log strings.Builder
			cfg := config
			cfg.KeyPrefix, cfg.Logger = t.Name()+":", slog.New(slog.NewTextHandler(&log, nil))
			r := openConfig(t, cfg)
			c := must[*semaphore.Semaphore](t)(semaphore.New(r, "leases", semaphore.Options{Limit: 1, FailPolicy: policy}))
			for _, foreign := range [][]string{{"HSET", "a", "b"}, {"SET", "text"}} {
				for _, end := range []string{"", ":block"} {
					key := cfg.KeyPrefix + "m1:limit:leases:c:{a}" + end
					if err := r.Do(t.Context(), r.B().Arbitrary(foreign[0]).Keys(key).Args(foreign[1:]...).Build()).Err(); err != nil {
						t.Fatal(err)
					}
					lease, d, err := c.TryAcquire(t.Context(), "a")
					if err != nil || !d.Allowed || d.Degraded {
						t.Fatalf("%s under %s: %+v %v", foreign[0], key, d, err)
					}
					if err := lease.Release(t.Context()); err != nil {
						t.Error(err)
					}
					if n := strings.Count(log.String(), "key="+key+" "); n != 1 {
						t.Errorf("%s: logged %d times: %s", key, n, log.String())
					}
				}
			}
		})
	}
}

func TestOptions_TimeoutBoundsACall(t *testing.T) {
	t.Parallel()
	_, far, _, wire := throughWire(t, 30*time.Second)
	c := must[*semaphore.Semaphore](t)(semaphore.New(far, "places", semaphore.Options{Limit: 1, FailPolicy: madcrow.FailOpen, Timeout: 50 * time.Millisecond}))
	wire.SetDelay(10 * time.Second)
	start := time.Now()
	_, d, err := c.TryAcquire(t.Context(), "x")
	if took := time.Since(start); took > 5*time.Second || err != nil || !d.Degraded {
		t.Errorf("%+v %v after %v", d, err, took)
	}
	wire.SetDelay(0)
}
