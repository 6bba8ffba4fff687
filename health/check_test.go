package health_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// without is a Redis that is never there: a check does not need it.
func without(t *testing.T) *madcrow.Redis {
	t.Helper()
	r := testkit.Must[*madcrow.Redis](t)(madcrow.Open(t.Context(), madcrow.Config{Host: "127.0.0.1", Port: madcrowtest.FreePort(t)}))
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

// broken returns a check that fails with an error of its own until it is mended.
func broken(every time.Duration) (health.Check, *atomic.Pointer[error]) {
	var now atomic.Pointer[error]
	err := errors.New("dial 10.0.0.7: no database here")
	now.Store(&err)
	return health.Check{Name: "database", Every: every, Run: func(context.Context) error {
		if err := now.Load(); err != nil {
			return *err
		}
		return nil
	}}, &now
}

func TestCheck_RequiredOneDecidesReady(t *testing.T) {
	check, err := broken(time.Millisecond)
	m := monitor(t, without(t), health.Options{Optional: true, Checks: []health.Check{check}})
	want(t, m.Ready(), 503, "CHECK_FAILED", "database")
	want(t, m.Detail(), 200, `"database":"unavailable"`, `"reason":"failed"`)
	err.Store(nil)
	want(t, m.Ready(), 200, `{"status":"degraded","unavailable":["redis"]}`)
}

func TestCheck_OptionalOneLeavesTheProcessReady(t *testing.T) {
	check, _ := broken(time.Millisecond)
	check.Optional = true
	m := monitor(t, without(t), health.Options{Optional: true, Checks: []health.Check{check}})
	want(t, m.Detail(), 200, `"reason":"failed"`)
	want(t, m.Ready(), 200, `"unavailable":["redis","database"]`)
}

func TestCheck_TextOfTheErrorIsShownOnlyInDetails(t *testing.T) {
	check, _ := broken(time.Hour)
	r := without(t)
	public := monitor(t, r, health.Options{Checks: []health.Check{check}})
	operator := monitor(t, r, health.Options{Details: true, Checks: []health.Check{check}})
	want(t, operator.Detail(), 200, "no database here")
	want(t, public.Detail(), 200, `"reason":"failed"`)
	if text := report(t, public).Checks["database"].Error; text != "" {
		t.Errorf("it is public: %q", text)
	}
}

func TestCheck_SinceIsWhenItBegan(t *testing.T) {
	check, err := broken(time.Millisecond)
	m := monitor(t, without(t), health.Options{Checks: []health.Check{check}})
	want(t, m.Detail(), 200, `"reason":"failed"`)
	first := report(t, m).Checks["database"].Since
	time.Sleep(20 * time.Millisecond) // many runs
	if again := report(t, m).Checks["database"]; !again.Since.Equal(first) {
		t.Errorf("it began at %v, and at %v", first, again.Since)
	}
	err.Store(nil)
	want(t, m.Detail(), 200, `"database":"healthy"`)
	if res := report(t, m).Checks["database"]; !res.Since.After(first) || res.Reason != "" {
		t.Errorf("%+v began at %v", res, first)
	}
}

// A check that ignores its context made a health page hang where checks ran for each
// request.
func TestCheck_ThatHangsIsSaidAndNotStartedAgain(t *testing.T) {
	var running, most atomic.Int32
	free := make(chan struct{})
	m := monitor(t, without(t), health.Options{Details: true, Checks: []health.Check{{
		Name: "disk", Every: time.Millisecond, Timeout: 5 * time.Millisecond,
		Run: func(context.Context) error {
			defer running.Add(-1)
			most.Store(max(most.Load(), running.Add(1)))
			<-free
			return nil
		},
	}}})
	want(t, m.Detail(), 200, `"reason":"timeout"`, "no result within 5ms: it has not returned yet")
	begin := time.Now()
	ask(m.Ready())
	if took := time.Since(begin); took > time.Second {
		t.Errorf("Ready took %v", took)
	}
	close(free)
	want(t, m.Detail(), 200, `"disk":"healthy"`)
	if most.Load() != 1 {
		t.Errorf("%d runs at one time", most.Load())
	}
}

func TestCheck_ThatPanicsIsAFailureWithItsStackInTheLog(t *testing.T) {
	var log testkit.Log
	m := monitor(t, without(t), health.Options{Details: true, Logger: log.Logger(), Checks: []health.Check{{
		Name: "mail", Every: time.Millisecond, Run: func(context.Context) error { panic("no mail") },
	}}})
	want(t, m.Detail(), 200, `"reason":"panic"`, "panic: no mail")
	log.Await(t, 1, "check_test.go", 5*time.Second)
}

func TestCheck_FailureIsLoggedOnceAndItsEndOnce(t *testing.T) {
	var log testkit.Log
	check, err := broken(time.Millisecond)
	var runs atomic.Int32
	run := check.Run
	check.Run = func(ctx context.Context) error { runs.Add(1); return run(ctx) }
	m := monitor(t, without(t), health.Options{Logger: log.Logger(), Checks: []health.Check{check}})
	for round := range 2 {
		testkit.Eventually(t, "many runs", func() bool { return int(runs.Load()) >= 10*(round+1) })
		if lines := log.With("no database here"); len(lines) != round+1 {
			t.Fatalf("round %d: %q", round, lines)
		}
		was := err.Swap(nil)
		log.Await(t, round+1, "passes again", 5*time.Second)
		runs.Store(int32(10 * (round + 1)))
		err.Store(was)
		want(t, m.Detail(), 200, `"reason":"failed"`)
	}
	if lines := log.With("passes again"); len(lines) != 2 {
		t.Errorf("%q", lines)
	}
}

func TestClose_WaitsForACheckUntilItsContextEnds(t *testing.T) {
	started, free := make(chan struct{}), make(chan struct{})
	m := testkit.Must[*health.Monitor](t)(health.New(without(t), health.Options{Checks: []health.Check{{
		Name: "slow", Run: func(context.Context) error { close(started); <-free; return nil },
	}}}))
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := m.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(free)
	testkit.NoError(t, m.Close(t.Context()))
}

func TestClose_LeavesNothingBehind(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	check, _ := broken(time.Hour)
	m := monitor(t, without(t), health.Options{Checks: []health.Check{check}})
	want(t, m.Detail(), 200, `"reason":"failed"`)
}
