package madcrow_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// A frozen master of a cluster: no call outlives its deadline, keys of other
// nodes are served all the time, and its own once its replica has taken over.
func TestChaosCluster_MasterFrozen(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	c, r := startCluster(t)
	frozen := c.MasterOf(t, "foo")
	other := ""
	for i := 0; other == ""; i++ {
		if k := fmt.Sprint("other", i); c.MasterOf(t, k) != frozen {
			other = k
		}
	}
	frozen.Pause()
	defer frozen.Resume()
	start := time.Now()
	kinds := map[madcrow.Kind]int{}
	var worst time.Duration
	for {
		mustSet(t, r, other, "1")
		began := time.Now()
		_, err := r.Do(t.Context(), set("foo", "1"))
		worst = max(worst, time.Since(began))
		if err == nil {
			break
		}
		var e *madcrow.Error
		if !errors.As(err, &e) || e.Kind != madcrow.KindTimeout && e.Kind != madcrow.KindUnavailable {
			t.Errorf("unexpected: %v", err)
		} else {
			kinds[e.Kind]++
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("still: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
	t.Logf("its slots were written again after %v; failures by kind %v; slowest call %v", time.Since(start), kinds, worst)
	if worst > 500*time.Millisecond+slack(50*time.Millisecond) {
		t.Errorf("a call took %v", worst)
	}
}
