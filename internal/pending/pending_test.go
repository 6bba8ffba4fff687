package pending

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
)

// fakeRedis is in a state that the test sets.
type fakeRedis struct {
	mu       sync.Mutex
	status   madcrow.Status
	watchers []chan madcrow.Status
}

func (r *fakeRedis) set(s madcrow.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = s
	for _, ch := range r.watchers {
		ch <- s
	}
}

func (r *fakeRedis) Watch(ctx context.Context) <-chan madcrow.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := make(chan madcrow.Status, 100)
	ch <- r.status
	r.watchers = append(r.watchers, ch)
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.watchers = slices.DeleteFunc(r.watchers, func(c chan madcrow.Status) bool { return c == ch })
		close(ch)
	})
	return ch
}

func (r *fakeRedis) Available() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status.State == madcrow.StateUp
}

var (
	up       = madcrow.Status{State: madcrow.StateUp}
	readOnly = madcrow.Status{State: madcrow.StateDegraded, ReadOnly: true}
	down     = madcrow.Status{State: madcrow.StateDown}
	closed   = madcrow.Status{State: madcrow.StateClosed}
	backoff  = clock.Backoff{First: 10 * time.Millisecond, Most: 500 * time.Millisecond}
)

// pass lets time pass, and waits for what the other goroutines do meanwhile.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestRunner_TriesWhenRedisIsBackAndPausesLongerAfterEachFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRedis{status: down}
		var at []time.Duration
		var back time.Time
		w := NewRunner(r, RunnerOptions{Backoff: backoff}, func(context.Context) Progress {
			at = append(at, time.Since(back))
			if len(at) < 8 {
				return None
			}
			return Done
		})
		w.Wake()
		pass(time.Hour)
		if len(at) > 0 {
			t.Fatalf("%d tries while Redis is down", len(at))
		}
		back = time.Now()
		r.set(up)
		pass(time.Minute)
		if len(at) != 8 || at[0] != 0 {
			t.Fatalf("tries after %v", at)
		}
		for i, low := range []time.Duration{10, 20, 40, 80, 160, 250, 250} {
			if d := at[i+1] - at[i]; d < low*time.Millisecond || d > 2*low*time.Millisecond {
				t.Errorf("pause %d is %v", i, d)
			}
		}
		w.Stop()
	})
}

func TestRunner_WorkThatComesDuringATryIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		var w *Runner
		w = NewRunner(&fakeRedis{status: up}, RunnerOptions{Backoff: backoff}, func(context.Context) Progress {
			if tries++; tries == 1 {
				w.Wake()
			}
			return Done
		})
		w.Wake()
		pass(time.Minute)
		if tries != 2 {
			t.Errorf("%d tries", tries)
		}
		w.Wake()
		pass(time.Minute)
		if tries != 3 {
			t.Errorf("%d tries after another Wake", tries)
		}
		w.Stop()
		if w.Wake() {
			t.Error("it runs after Stop")
		}
	})
}

func TestRunner_WritableWaitsForARedisThatTakesWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRedis{status: readOnly}
		tries := 0
		try := func(context.Context) Progress { tries++; return Done }
		writes, any := NewRunner(r, RunnerOptions{Writable: true}, try), NewRunner(r, RunnerOptions{}, try)
		writes.Wake()
		pass(time.Minute)
		if tries != 0 {
			t.Error("tried on a Redis that takes no writes")
		}
		any.Wake()
		pass(time.Minute)
		if tries != 1 {
			t.Errorf("%d tries where writes do not matter", tries)
		}
		r.set(up)
		pass(time.Minute)
		if tries != 2 {
			t.Errorf("%d tries", tries)
		}
		writes.Stop()
		any.Stop()
	})
}

func TestRunner_EndsWithItsRedis(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRedis{status: down}
		w := NewRunner(r, RunnerOptions{Backoff: backoff}, func(context.Context) Progress {
			t.Error("tried")
			return Done
		})
		w.Wake()
		pass(time.Second)
		r.set(closed)
		pass(time.Second)
		if !w.Stopped() || w.Wake() {
			t.Error("it goes on without its Redis")
		}
	})
}

// newQueue sends to a list. fails says which calls of Send do not.
func newQueue(r Redis, fails func(call int) bool) (q *Queue[int], sent *[]int, batches *[]int) {
	sent, batches = new([]int), new([]int)
	q = NewQueue(r, QueueOptions[int]{
		RunnerOptions: RunnerOptions{Backoff: backoff}, MaxItems: 1000, MaxBatch: 256,
		Send: func(_ context.Context, batch []int) []int {
			*batches = append(*batches, len(batch))
			if fails != nil && fails(len(*batches)) {
				*sent = append(*sent, batch[0])
				return batch[1:]
			}
			*sent = append(*sent, batch...)
			return nil
		},
	})
	return q, sent, batches
}

func TestQueue_SendsInOrderAndMoreEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRedis{status: down}
		q, sent, batches := newQueue(r, func(call int) bool { return call == 5 })
		var want []int
		for n := range 600 {
			if err := q.Add(n); err != nil {
				t.Fatal(err)
			}
			want = append(want, n)
		}
		r.set(up)
		pass(time.Minute)
		if !slices.Equal(*sent, want) || q.Len() != 0 {
			t.Errorf("%d sent, %d left, or not in order", len(*sent), q.Len())
		}
		if !slices.Equal(*batches, []int{1, 2, 4, 8, 16, 1, 2, 4, 8, 16, 32, 64, 128, 256, 73}) {
			t.Errorf("batches of %v", *batches)
		}
		q.Close()
	})
}

func TestQueue_IsBoundedInItemsAndSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var largest int
		q := NewQueue(&fakeRedis{status: down}, QueueOptions[int]{
			MaxItems: 3, MaxSize: 100, MaxBatch: 10, MaxBatchSize: 60,
			Size: func(n int) int { return n },
			Send: func(context.Context, []int) []int { return nil },
		})
		defer q.Close()
		for _, add := range []struct {
			size int
			err  error
		}{{500, nil}, {1, ErrFull}} {
			if err := q.Add(add.size); !errors.Is(err, add.err) {
				t.Errorf("%d: %v", add.size, err)
			}
		}
		r := &fakeRedis{status: down}
		q = NewQueue(r, QueueOptions[int]{
			MaxItems: 3, MaxSize: 100, MaxBatch: 10, MaxBatchSize: 60,
			Size: func(n int) int { return n },
			Send: func(_ context.Context, batch []int) []int {
				sum := 0
				for _, n := range batch {
					sum += n
				}
				largest = max(largest, sum)
				return nil
			},
		})
		for _, add := range []struct {
			size int
			err  error
		}{{40, nil}, {61, ErrFull}, {30, nil}, {30, nil}, {0, ErrFull}} {
			if err := q.Add(add.size); !errors.Is(err, add.err) {
				t.Errorf("%d: %v", add.size, err)
			}
		}
		r.set(up)
		pass(time.Second)
		if q.Len() != 0 || largest > 60 {
			t.Errorf("%d left, the largest batch of %d", q.Len(), largest)
		}
		if err := q.Add(100); err != nil {
			t.Errorf("after it was sent: %v", err)
		}
		q.Close()
	})
}

func TestQueue_DrainCountsWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRedis{status: up}
		q, sent, _ := newQueue(r, nil)
		for n := range 10 {
			_ = q.Add(n)
		}
		if left := q.Drain(t.Context()); left != 0 || len(*sent) != 10 {
			t.Errorf("%d left, %d sent", left, len(*sent))
		}
		if err := q.Add(1); !errors.Is(err, ErrClosed) {
			t.Errorf("after Drain: %v", err)
		}
		q.Close()

		r.set(down)
		q, _, _ = newQueue(r, nil)
		_ = q.Add(1)
		if left := q.Drain(t.Context()); left != 1 {
			t.Errorf("Redis is away: %d left", left)
		}
		q.Close()
		r.set(up)
		if left := q.Drain(t.Context()); left != 1 {
			t.Errorf("after Close: %d left", left)
		}
		r.set(closed)
	})
}
