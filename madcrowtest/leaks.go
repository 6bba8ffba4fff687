package madcrowtest

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"
)

// leakPatience is how long goroutines may take to end after the test.
const leakPatience = 5 * time.Second

// CheckLeaks notes the goroutines that run now, and fails the test when others
// are still there 5 seconds after its end, showing what they do. Call it
// first: clean-up runs in reverse, so what the test registers later has ended
// before it looks. It is not for tests that run in parallel with others, whose
// goroutines it would blame.
func CheckLeaks(t testing.TB) {
	t.Helper()
	checkLeaks(t, leakPatience)
}

func checkLeaks(t testing.TB, patience time.Duration) {
	t.Helper()
	before := goroutines()
	t.Cleanup(func() {
		t.Helper()
		var extra []string
		for deadline := time.Now().Add(patience); ; {
			extra = extra[:0]
			for id, stack := range goroutines() {
				if _, old := before[id]; !old && !ofTesting(stack) {
					extra = append(extra, stack)
				}
			}
			if len(extra) == 0 {
				return
			}
			if time.Now().After(deadline) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("madcrowtest: %d goroutines were left behind:\n\n%s", len(extra), strings.Join(extra, "\n\n"))
	})
}

// goroutines returns the stack of each goroutine by its id.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := map[string]string{}
	for stack := range bytes.SplitSeq(bytes.TrimSpace(buf), []byte("\n\n")) {
		// "goroutine 7 [running]:"
		if id, _, ok := strings.Cut(strings.TrimPrefix(string(stack), "goroutine "), " "); ok {
			all[id] = string(stack)
		}
	}
	return all
}

// ofTesting says whether a goroutine is one of the test framework's, the
// test's own included, or of the runtime's signal handling.
func ofTesting(stack string) bool {
	for _, frame := range []string{
		"testing.tRunner(", "testing.(*T).Run(", "testing.(*M).", "testing.runFuzzing(", "testing.(*B).",
		"os/signal.loop(", "os/signal.signal_recv(", "runtime.ensureSigM",
	} {
		if strings.Contains(stack, "\n"+frame) {
			return true
		}
	}
	return false
}
