package fallback

import (
	"math/rand/v2"
	"testing"
	"time"
)

// counterModel is the promise of FailLocal itself: when requests were admitted,
// and their cost.
type counterModel struct{ at, cost []int64 }

func (m *counterModel) since(at int64) (n int64) {
	for i := len(m.at) - 1; i >= 0 && m.at[i] > at; i-- {
		n += m.cost[i]
	}
	return n
}

func TestCounter_NeverMoreThanTheShareInAnyWindow(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for schedule := range 200 {
		window := int64(10_000_000 + rng.Int64N(1e9))
		share := 1 + rng.Int64N(9)
		c := NewCounter(8, time.Duration(window))
		var m counterModel
		now := rng.Int64N(1e15)
		for step := range 500 {
			now += rng.Int64N(window/share) * rng.Int64N(3) / 2
			n := int64(1)
			if rng.IntN(4) == 0 {
				n += rng.Int64N(share)
			}
			d := c.addAt("a", n, share, now)
			if d.Allowed {
				m.at, m.cost = append(m.at, now), append(m.cost, n)
			}
			used := m.since(now - window)
			switch {
			case used > share:
				t.Fatalf("schedule %d, step %d: %d in a window, the share is %d", schedule, step, used, share)
			case !d.Allowed && m.since(now-9*c.width)+n <= share:
				t.Fatalf("schedule %d, step %d: denied beside %d", schedule, step, used)
			case d.Allowed && d.Remaining > share-used, d.ResetAfter <= 0, !d.Allowed && d.RetryAfter <= 0:
				t.Fatalf("schedule %d, step %d: %+v", schedule, step, d)
			}
			if d.Allowed || rng.IntN(2) == 0 {
				continue
			}
			now += int64(d.RetryAfter)
			if a := c.addAt("a", n, share, now-1); a.Allowed || a.RetryAfter != 1 {
				t.Fatalf("schedule %d, step %d: just before the wait ends: %+v", schedule, step, a)
			}
			if b := c.addAt("a", n, share, now); !b.Allowed {
				t.Fatalf("schedule %d, step %d: when the wait ends: %+v", schedule, step, b)
			}
			m.at, m.cost = append(m.at, now), append(m.cost, n)
		}
	}
}
