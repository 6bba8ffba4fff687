package madcrow_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// Calls of every kind at once, with cancellations, killed connections and Close.
// It is for the race detector, too.
func TestRedis_EverythingAtOnceLeaksNothing(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	for range int(testkit.Length(1, 4)) {
		s := madcrowtest.StartRedis(t)
		r, err := madcrow.Open(t.Context(), s.Config())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() { everythingAtOnce(ctx, r, i) })
			wg.Go(func() {
				for ctx.Err() == nil {
					c, stop := context.WithCancel(ctx)
					time.AfterFunc(time.Duration(i*20)*time.Microsecond, stop)
					_ = r.Do(c, get(r, "a")).Err()
					stop()
					_ = r.Status()
					_ = r.Err()
				}
			})
		}
		for ctx.Err() == nil {
			s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			time.Sleep(50 * time.Millisecond)
		}
		short, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
		_ = r.Close(short)
		stop()
		cancel()
		wg.Wait()
		if err := r.Do(context.Background(), get(r, "a")).Err(); !errors.Is(err, madcrow.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}
