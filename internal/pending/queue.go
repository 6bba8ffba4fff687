package pending

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

var (
	// ErrFull is returned by [Queue.Add] beyond the bounds.
	ErrFull = errors.New("the queue is full")
	// ErrClosed is returned by [Queue.Add] after Close, Drain, or the end of the
	// Redis.
	ErrClosed = errors.New("the queue is closed")
)

// QueueOptions configures a [Queue] of items of type T. Send, MaxItems and
// MaxBatch must be set.
type QueueOptions[T any] struct {
	RunnerOptions

	// MaxItems bounds the items of the queue.
	MaxItems int
	// MaxSize bounds their sizes together, but for a single item. 0 is no bound.
	MaxSize int
	// MaxBatch and MaxBatchSize bound one call of Send in the same way.
	MaxBatch, MaxBatchSize int
	// Size returns the size of an item. It may be nil where no size is bounded.
	Size func(T) int
	// Send does the work of a batch and returns, in their order, the items that
	// are to be tried again. It must not keep or change the batch.
	Send func(ctx context.Context, batch []T) (unsent []T)
}

// Queue holds items until Redis is usable, and then sends them in order: first
// one, then twice as many each time, so that little is lost on a connection that
// has just come back, and the queue becomes empty however fast others fill it.
// It is safe for concurrent use. Make it with [NewQueue].
type Queue[T any] struct {
	options QueueOptions[T]
	redis   Redis
	runner  *Runner

	mu     sync.Mutex
	items  []T // one that is being sent stays until that has ended
	size   int // of items
	closed bool
}

// NewQueue returns an empty queue.
func NewQueue[T any](r Redis, options QueueOptions[T]) *Queue[T] {
	if options.Size == nil {
		options.Size = func(T) int { return 0 }
	}
	q := &Queue[T]{options: options, redis: r}
	q.runner = NewRunner(r, options.RunnerOptions, q.send)
	return q
}

// Len returns how many items wait or are being sent.
func (q *Queue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// Add appends an item. The error is [ErrFull] or [ErrClosed].
func (q *Queue[T]) Add(item T) error {
	size := q.options.Size(item)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed || q.runner.Stopped():
		return ErrClosed
	case len(q.items) >= q.options.MaxItems, exceeds(len(q.items), q.size+size, q.options.MaxSize):
		return ErrFull
	}
	q.items = append(q.items, item)
	q.size += size
	q.runner.Wake()
	return nil
}

// exceeds says whether an item that makes the size of a list size is too much
// for the list. An empty list takes any item.
func exceeds(have, size, most int) bool { return have > 0 && most > 0 && size > most }

// send sends until nothing is left or Redis fails.
func (q *Queue[T]) send(ctx context.Context) Progress {
	progress := None
	for n := 1; ; n = min(2*n, q.options.MaxBatch) {
		batch := q.batch(n)
		if len(batch) == 0 {
			return Done
		}
		unsent := q.options.Send(ctx, batch)
		if ctx.Err() != nil {
			return progress
		}
		q.keep(len(batch), unsent)
		if len(unsent) < len(batch) {
			progress = Some
		}
		if len(unsent) > 0 {
			return progress
		}
	}
}

// batch returns the first items, n at most.
func (q *Queue[T]) batch(n int) []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		q.items, q.size = nil, 0 // nor is the memory of a long queue kept
		return nil
	}
	i, size := 0, 0
	for i < min(n, len(q.items)) {
		if size += q.options.Size(q.items[i]); exceeds(i, size, q.options.MaxBatchSize) {
			break
		}
		i++
	}
	return slices.Clone(q.items[:i])
}

// keep replaces the first n items by those that were not sent.
func (q *Queue[T]) keep(n int, unsent []T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, item := range q.items[:n] {
		q.size -= q.options.Size(item)
	}
	for _, item := range unsent {
		q.size += q.options.Size(item)
	}
	rest := n - len(unsent)
	clear(q.items[:rest]) // they are garbage from now on
	q.items = q.items[rest:]
	copy(q.items, unsent)
}

// Drain refuses further items, and waits until nothing is left, Redis is away,
// the queue is closed or ctx ends. It returns how many items are left.
func (q *Queue[T]) Drain(ctx context.Context) int {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		left := q.Len()
		if left == 0 || q.runner.Stopped() || !q.redis.Available() {
			return left
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return left
		}
	}
}

// Close refuses further items, ends the current Send and drops what is left.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.runner.Stop()
}
