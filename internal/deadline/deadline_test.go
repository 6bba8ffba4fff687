package deadline

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

func TestDeadlines_EndInTimeAndOnCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(500 * time.Millisecond)
		defer d.Close()
		parent, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, tc := range []struct {
			name  string
			ctx   context.Context
			after time.Duration
			want  error
		}{
			{"no deadline", context.Background(), 500 * time.Millisecond, context.DeadlineExceeded},
			{"cancelled", parent, 100 * time.Millisecond, context.Canceled},
		} {
			start := time.Now()
			ctx, c := d.Enter(tc.ctx, clock.Now())
			if c == nil {
				t.Fatalf("%s: the caller's own context was used", tc.name)
			}
			if tc.ctx == parent {
				time.AfterFunc(tc.after, cancel)
			}
			<-ctx.Done()
			if took := time.Since(start); took < tc.after || took > tc.after+2*sweepEvery {
				t.Errorf("%s: ended after %v, want %v", tc.name, took, tc.after)
			}
			if !errors.Is(ctx.Err(), tc.want) {
				t.Errorf("%s: %v, want %v", tc.name, ctx.Err(), tc.want)
			}
			d.Leave(c)
		}
	})
}

func TestDeadlines_SoonerOnesServeThemselves(t *testing.T) {
	d := New(500 * time.Millisecond)
	defer d.Close()
	sooner, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if ctx, c := d.Enter(sooner, clock.Now()); c != nil || ctx != sooner {
		t.Error("a sooner deadline got a context of its own")
	}
	later, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ctx, c := d.Enter(later, clock.Now())
	if c == nil {
		t.Fatal("a later deadline was taken as it is")
	}
	if at, ok := ctx.Deadline(); !ok || time.Until(at) > 500*time.Millisecond {
		t.Errorf("deadline in %v, want at most 500 ms", time.Until(at))
	}
	d.Leave(c)
}

// TestDeadlines_ReusedContextsDoNotEndTheNextCall runs many short calls beside
// cancellations: a context that fired for one must not be given to another.
func TestDeadlines_ReusedContextsDoNotEndTheNextCall(t *testing.T) {
	d := New(time.Second)
	defer d.Close()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 300 {
				parent, cancel := context.WithCancel(context.Background())
				ctx, c := d.Enter(parent, clock.Now())
				if rand.IntN(3) == 0 {
					cancel()
					<-ctx.Done()
				} else if err := ctx.Err(); err != nil {
					t.Errorf("a fresh call has ended: %v", err)
				}
				d.Leave(c)
				cancel()
			}
		})
	}
	wg.Wait()
}

func TestDeadlines_SweeperRestsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(500 * time.Millisecond)
		_, c := d.Enter(context.Background(), clock.Now())
		d.Leave(c)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if d.running.Load() {
			t.Error("the sweeper still runs after 3 s without a call")
		}
		ctx, c := d.Enter(context.Background(), clock.Now())
		<-ctx.Done() // it is woken again
		d.Leave(c)
		d.Close()
	})
}

// What a callback starts may keep its context: it was given to the next call.
func TestDeadlines_AContextOfACallbackIsNotReusedAndEndsWithIt(t *testing.T) {
	d := New(time.Second)
	defer d.Close()
	type key struct{}
	parent := context.WithValue(t.Context(), key{}, "mine")
	for _, enter := range []func(context.Context, int64) (context.Context, *Context){d.EnterCallback, d.EnterSplit} {
		kept, c := enter(parent, clock.Now())
		derived, cancel := context.WithCancel(kept)
		defer cancel()
		if kept.Err() != nil {
			t.Errorf("it has ended before the callback: %v", kept.Err())
		}
		d.Leave(c)
		for range 100 {
			_, other := d.Enter(context.Background(), clock.Now())
			if other == c {
				t.Fatal("the next call got it")
			}
			d.Leave(other)
		}
		<-kept.Done()
		<-derived.Done()
		if !errors.Is(kept.Err(), context.Canceled) || kept.Value(key{}) != "mine" || context.WithoutCancel(kept).Value(key{}) != "mine" {
			t.Errorf("%v, %v", kept.Err(), kept.Value(key{}))
		}
	}
}
