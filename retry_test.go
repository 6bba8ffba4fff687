package madcrow_test

import (
	"context"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// What the loop of tries costs a call that succeeds at once: nothing. The
// figures of a pipeline and of a tracked read are their results and commands.
func TestRoute_ACallThatSucceedsAllocatesNothingForItsTries(t *testing.T) {
	_, r := server(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	script := madcrow.NewScript("one", "return 1")
	keys, args := []string{"k"}, []string{"a"}
	for name, tc := range map[string]struct {
		most float64
		call func()
	}{
		"Do":   {0, func() { _ = r.Do(ctx, get(r, "k")).Err() }},
		"Eval": {0, func() { _ = r.Eval(ctx, script, keys, args).Err() }},
		"SplitKeys": {0, func() {
			_ = r.SplitKeys(ctx, "k", func(ctx context.Context) error {
				err := r.Eval(ctx, script, keys, args).Err()
				return err
			}, func(context.Context) error { return nil })
		}},
		"DoMulti": {5, func() {
			_, _ = r.DoMulti(ctx, r.B().Get().Key("k").Build(), r.B().Get().Key("k").Build())
		}},
		"GetTracked": {6, func() { _ = r.GetTracked(ctx, []string{"k"}) }},
	} {
		least := testing.AllocsPerRun(1000, tc.call)
		for range 4 {
			least = min(least, testing.AllocsPerRun(1000, tc.call))
		}
		if testkit.Race {
			tc.most += 2 // make chaos runs without the race detector
		}
		if least > tc.most {
			t.Errorf("%s: %v allocations, want at most %v", name, least, tc.most)
		}
	}
}
