package ratelimit

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// crowded lets many ask at once, and says when each was let in, between two
// instants.
func crowded(t *testing.T, l *Limiter, length time.Duration) (began, ended []int64) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := clock.Now() + int64(length)
	for range 16 {
		wg.Go(func() {
			for clock.Now() < end {
				a := clock.Now()
				d, err := l.Allow(context.Background(), "a")
				b := clock.Now()
				if err != nil {
					t.Error(err)
					return
				}
				if d.Allowed {
					mu.Lock()
					began, ended = append(began, a), append(ended, b)
					mu.Unlock()
				}
				time.Sleep(10 * time.Microsecond)
			}
		})
	}
	wg.Wait()
	return began, ended
}

func TestFailLocal_NeverMoreThanItsShareUnderConcurrency(t *testing.T) {
	t.Parallel()
	cfg := madcrow.Config{Host: "127.0.0.1", Port: madcrowtest.FreePort(t)} // no server is there
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close(context.Background()) }()
	const window, share = 60 * time.Millisecond, 25
	l, err := New(r, "x", Options{Rate: Per(window, 4*share), FailPolicy: madcrow.FailLocal(4), Algorithm: GCRA(4 * share)})
	if err != nil {
		t.Fatal(err)
	}
	began, ended := crowded(t, l, 600*time.Millisecond)
	if len(began) < share {
		t.Errorf("only %d were let in", len(began))
	}
	for i := range began { // surely within one window: began after one's start, ended before its end
		n := 0
		for j := range began {
			if began[j] >= began[i] && ended[j] < began[i]+int64(window) {
				n++
			}
		}
		if n > share {
			t.Fatalf("%d of %d within %v", n, share, window)
		}
	}
}
