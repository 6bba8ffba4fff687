package testkit_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
)

// failures counts what a helper reports, in the place of the test.
type failures struct {
	testing.TB
	errors, fatals int
}

func (f *failures) Helper()               {}
func (f *failures) Errorf(string, ...any) { f.errors++ }
func (f *failures) Fatal(...any)          { f.fatals++; panic(f) }
func (f *failures) Fatalf(string, ...any) { f.fatals++; panic(f) }

func failing(fn func(testing.TB)) (f *failures) {
	f = &failures{}
	defer func() { _ = recover() }()
	fn(f)
	return f
}

func TestEventually_FailsWhenTheStateDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		testkit.Eventually(t, "a second has passed", func() bool { return time.Since(begun) > time.Second })
		f := failing(func(t testing.TB) { testkit.Eventually(t, "never", func() bool { return false }) })
		if f.fatals != 1 || time.Since(begun) < 15*time.Second {
			t.Errorf("%d failures after %v", f.fatals, time.Since(begun))
		}
	})
}

func TestWithin_FailsWhenACallTakesLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tc := range []struct {
			takes time.Duration
			want  int
		}{{time.Second, 0}, {testkit.Slack(time.Second) + time.Millisecond, 1}, {time.Minute, 1}} {
			f := failing(func(t testing.TB) { testkit.Within(t, "it", time.Second, func() { time.Sleep(tc.takes) }) })
			if f.errors != tc.want {
				t.Errorf("%v: %d errors", tc.takes, f.errors)
			}
		}
		time.Sleep(time.Minute) // the last call ends
	})
}

func TestMust_FailsOnAnError(t *testing.T) {
	if got := testkit.Must[int](t)(7, nil); got != 7 {
		t.Errorf("got %d", got)
	}
	err := errors.New("no")
	f := failing(func(t testing.TB) { testkit.Must[int](t)(7, err) })
	g := failing(func(t testing.TB) { testkit.NoError(t, err) })
	if f.fatals != 1 || g.fatals != 1 {
		t.Errorf("%d and %d failures", f.fatals, g.fatals)
	}
}

func TestLog_KeepsLinesAndAwaitsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testkit.Log
		go func() {
			time.Sleep(time.Second)
			log.Logger().Info("ready", "n", 1)
		}()
		log.Await(t, 1, "ready n=1", 2*time.Second)
		f := failing(func(t testing.TB) { log.Await(t, 2, "ready", time.Second) })
		if f.fatals != 1 || len(log.With("absent")) != 0 {
			t.Errorf("%d failures, %q", f.fatals, log.With("absent"))
		}
	})
}

func TestLateness_IsTheWorstOfTheSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testkit.MeasureLateness()
		time.Sleep(time.Second)
		if late := l.Stop(); late != 0 { // the fake clock is never late
			t.Errorf("late by %v", late)
		}
	})
}
