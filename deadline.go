package madcrow

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// sweepEvery is how late a deadline or a cancellation may be noticed. One
// sweeper for all calls costs nothing per call; a timer for each call costs
// 5 to 16 % of the throughput.
const sweepEvery = 5 * time.Millisecond

// callContext bounds one call: it ends with its parent, or at its deadline,
// whichever is sooner. It is reused, so nothing may keep it after the call.
type callContext struct {
	parent   context.Context
	deadline int64
	done     chan struct{}
	err      error // written once, before done is closed
	splits   bool  // it is a call of SplitKeys
	fired    atomic.Bool

	shard      *callShard
	prev, next *callContext
}

func (c *callContext) Deadline() (time.Time, bool) {
	return clock.Time(c.deadline), true
}

func (c *callContext) Done() <-chan struct{} { return c.done }

func (c *callContext) Err() error {
	if c.fired.Load() {
		return c.err
	}
	return c.parent.Err()
}

func (c *callContext) Value(key any) any {
	if c.splits {
		if _, ok := key.(topology.SplitsKeys); ok {
			return true
		}
	}
	return c.parent.Value(key)
}

// callShards keeps the lists of running calls apart, so that they do not
// contend for one lock.
const callShards = 8

type callShard struct {
	mu   sync.Mutex
	root callContext
	_    [64]byte
}

// deadlines gives every call a context that ends in time.
type deadlines struct {
	timeout int64
	free    sync.Pool
	next    atomic.Uint32
	shards  [callShards]callShard
	running atomic.Bool
	stop    chan struct{}
	mu      sync.Mutex // of stop and swept together
	swept   sync.WaitGroup
}

func newDeadlines(timeout time.Duration) *deadlines {
	d := &deadlines{timeout: int64(timeout), stop: make(chan struct{})}
	for i := range d.shards {
		root := &d.shards[i].root
		root.prev, root.next = root, root
	}
	d.free.New = func() any {
		return &callContext{
			done:  make(chan struct{}),
			shard: &d.shards[d.next.Add(1)%callShards],
		}
	}
	return d
}

// enter returns the context of a call that starts now. When ctx itself ends
// soon enough it serves, and the callContext is nil.
func (d *deadlines) enter(ctx context.Context, now int64) (context.Context, *callContext) {
	return d.within(ctx, now, d.timeout)
}

// within is enter with a time-out of its own.
func (d *deadlines) within(ctx context.Context, now, timeout int64) (context.Context, *callContext) {
	if t, ok := ctx.Deadline(); ok && clock.At(t) <= now+timeout {
		return ctx, nil
	}
	return d.add(ctx, now+timeout, false)
}

// enterSplit is enter for SplitKeys, whose context is marked.
func (d *deadlines) enterSplit(ctx context.Context, now int64, marked bool) (context.Context, *callContext) {
	if !marked {
		return d.enter(ctx, now)
	}
	end := now + d.timeout
	if t, ok := ctx.Deadline(); ok {
		end = min(end, clock.At(t))
	}
	return d.add(ctx, end, true)
}

func (d *deadlines) add(ctx context.Context, end int64, splits bool) (context.Context, *callContext) {
	c, _ := d.free.Get().(*callContext)
	c.parent, c.deadline, c.splits = ctx, end, splits
	s := c.shard
	s.mu.Lock()
	c.prev, c.next = &s.root, s.root.next
	s.root.next.prev = c
	s.root.next = c
	s.mu.Unlock()
	if !d.running.Load() {
		d.wake()
	}
	return c, c
}

// leave ends a call. A context that fired is not reused: its channel is closed.
func (d *deadlines) leave(c *callContext) {
	if c == nil {
		return
	}
	s := c.shard
	s.mu.Lock()
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
	fired := c.fired.Load()
	s.mu.Unlock()
	if !fired {
		c.parent = nil
		d.free.Put(c)
	}
}

// wake starts the sweeper, which stops by itself when there is nothing to do.
func (d *deadlines) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.running.CompareAndSwap(false, true) {
		return
	}
	select {
	case <-d.stop:
		d.running.Store(false)
		return
	default:
	}
	d.swept.Add(1)
	go d.sweep()
}

func (d *deadlines) sweep() {
	defer d.swept.Done()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	const idleTicks = int(time.Second / sweepEvery)
	for idle := 0; ; {
		stopped := false
		select {
		case <-tick.C:
		case <-d.stop:
			stopped = true
		}
		if d.sweepOnce() == 0 {
			idle++
		} else {
			idle = 0
		}
		if !stopped && idle < idleTicks {
			continue
		}
		d.running.Store(false)
		// A call may have entered between the sweep and the line above.
		if stopped || d.empty() || !d.running.CompareAndSwap(false, true) {
			return
		}
		idle = 0
	}
}

func (d *deadlines) sweepOnce() (running int) {
	now := clock.Now()
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.Lock()
		for c := s.root.next; c != &s.root; c = c.next {
			running++
			if c.fired.Load() {
				continue
			}
			if err := c.parent.Err(); err != nil {
				c.fire(err)
			} else if now >= c.deadline {
				c.fire(context.DeadlineExceeded)
			}
		}
		s.mu.Unlock()
	}
	return running
}

func (c *callContext) fire(err error) {
	c.err = err
	c.fired.Store(true)
	close(c.done)
}

func (d *deadlines) empty() bool {
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.Lock()
		none := s.root.next == &s.root
		s.mu.Unlock()
		if !none {
			return false
		}
	}
	return true
}

// close ends the sweeper. Calls that still run are no longer bounded here, so
// it comes after they are drained or their connections are closed.
func (d *deadlines) close() {
	d.mu.Lock()
	close(d.stop)
	d.mu.Unlock()
	d.swept.Wait()
}
