package embedded

import (
	"context"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/semaphore"
)

// Its Lua is another one than Redis's: every script of the limits runs on it.
func TestEmbedded_LimitsAdmitAsManyAsOnRedis(t *testing.T) {
	r, err := madcrow.Open(t.Context(), start(t).Config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	var all []*ratelimit.Limiter
	for _, a := range []ratelimit.Algorithm{ratelimit.SlidingLog(), ratelimit.SortedSetLog(), ratelimit.SlidingWindow(4), ratelimit.GCRA(5)} {
		t.Run(a.String(), func(t *testing.T) {
			l, err := ratelimit.New(r, a.String(), ratelimit.Options{Rate: ratelimit.PerDay(5), FailPolicy: madcrow.FailClosed, Algorithm: a, DeniedSubjects: -1})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, l)
			admitted := 0
			for range 9 {
				d, err := l.Allow(t.Context(), "u")
				if err != nil {
					t.Fatal(err)
				}
				if d.Allowed {
					admitted++
				}
			}
			if admitted != 5 {
				t.Errorf("%d of 9 were admitted, the limit is 5", admitted)
			}
			if err := l.Block(t.Context(), "v", time.Minute); err != nil {
				t.Fatal(err)
			}
			if d, err := l.Allow(t.Context(), "v"); err != nil || d.Allowed {
				t.Errorf("a blocked subject: %+v, %v", d, err)
			}
		})
	}
	group, err := ratelimit.Join(all...)
	if err != nil {
		t.Fatal(err)
	}
	if j, err := group.AllowN(t.Context(), "w", 5, 5, 5, 5); err != nil || !j.Allowed {
		t.Errorf("a group: %+v, %v", j, err)
	}
	if j, err := group.Allow(t.Context(), "w"); err != nil || len(j.Violated) != 4 {
		t.Errorf("a group with nothing left: %+v, %v", j, err)
	}
	c, err := semaphore.New(r, "c", semaphore.Options{Limit: 1, FailPolicy: madcrow.FailClosed})
	if err != nil {
		t.Fatal(err)
	}
	if _, d, err := c.TryAcquire(t.Context(), "u"); err != nil || !d.Allowed {
		t.Errorf("a lease: %+v, %v", d, err)
	}
	if _, d, err := c.TryAcquire(t.Context(), "u"); err != nil || d.Allowed {
		t.Errorf("a second lease: %+v, %v", d, err)
	}
}
