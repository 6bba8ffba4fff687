package logonce

import (
	"testing"
	"time"
)

func TestRate_BoundsLinesAndCountsTheOthersOnce(t *testing.T) {
	r := Rate{Lines: 2, Every: time.Second}
	now := time.Unix(1000, 0)
	logged := 0
	for range 10 {
		if r.Allow(now) {
			logged++
		}
	}
	if n := r.Dropped(now, false); logged != 2 || n != 0 {
		t.Errorf("%d logged, %d counted while the span lasts", logged, n)
	}
	now = now.Add(time.Second)
	if n, again := r.Dropped(now, false), r.Dropped(now, true); n != 8 || again != 0 {
		t.Errorf("counted %d, and then %d", n, again)
	}
	for i, want := range []bool{true, true, false} {
		if r.Allow(now) != want {
			t.Errorf("line %d of the next span: want %v", i, want)
		}
	}
	if n := r.Dropped(now, true); n != 1 {
		t.Errorf("at the end: %d", n)
	}
}
