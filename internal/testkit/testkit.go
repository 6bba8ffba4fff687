// Package testkit has the helpers that the tests of all packages share: waiting
// for a state, bounds on time with their slack, a log to read, and the tiers of
// tests. It uses the standard library alone, so that the tests inside of any
// package can import it. Servers are madcrowtest's.
package testkit

import (
	"testing"
	"time"
)

// patience is how long Eventually waits. It is never a promise: a test that
// asserts a bound measures it.
const patience = 15 * time.Second

// Eventually waits until ok returns true, for 15 seconds at most. The test ends
// where it does not; what says which state was expected.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	EventuallyWithin(t, patience, what, ok)
}

// EventuallyWithin is Eventually with a limit of its own.
func EventuallyWithin(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Within runs fn and reports an error when it takes longer than limit with its
// [Slack]. A call that hangs is left behind 8 seconds after that.
func Within(t testing.TB, what string, limit time.Duration, fn func()) {
	t.Helper()
	limit = Slack(limit)
	start := time.Now()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(limit + 8*time.Second):
	}
	if took := time.Since(start); took > limit {
		t.Errorf("%s took %v, want at most %v", what, took, limit)
	}
}

// NoError ends the test when err is not nil.
func NoError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Must returns a function that returns the value of a call, and ends the test
// when the call fails: testkit.Must[int64](t)(topic.Publish(ctx, "a")).
func Must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
