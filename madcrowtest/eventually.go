package madcrowtest

import (
	"testing"

	"github.com/madcrow-go/madcrow/internal/testkit"
)

// Eventually waits until ok returns true, and ends the test when it does not within 15
// seconds; what says which state was expected. ok is called every 2 ms, by the
// goroutine of the test. It is for what is right a moment later: a near copy that goes,
// a worker that has done its message, a Redis that is back.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	testkit.Eventually(t, what, ok)
}
