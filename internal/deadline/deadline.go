// Package deadline gives every call a context that ends in time.
package deadline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

// sweepEvery is how late a deadline or a cancellation may be noticed. One
// sweeper for all calls costs nothing per call; a timer for each call costs
// 5 to 16 % of the throughput.
const sweepEvery = 5 * time.Millisecond

// Context bounds one call: it ends with its parent, or at its deadline,
// whichever is sooner. That of one call to Redis is reused, so nothing may keep
// it after the call. That of a callback is not, since what the callback starts
// may keep it: it ends with the call.
type Context struct {
	parent   context.Context
	deadline int64
	done     chan struct{}
	err      error // written once, before done is closed
	splits   bool  // it is a call of SplitKeys
	callback bool  // a callback has it
	fired    atomic.Bool

	shard      *callShard
	prev, next *Context
}

func (c *Context) Deadline() (time.Time, bool) {
	return clock.Time(c.deadline), true
}

func (c *Context) Done() <-chan struct{} { return c.done }

func (c *Context) Err() error {
	if c.fired.Load() {
		return c.err
	}
	return c.parent.Err()
}

func (c *Context) Value(key any) any {
	if c.splits {
		if _, ok := key.(SplitsKeys); ok {
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
	root Context
	_    [64]byte
}

// Pool gives every call a context that ends in time.
type Pool struct {
	Timeout int64
	free    sync.Pool
	next    atomic.Uint32
	shards  [callShards]callShard
	running atomic.Bool
	stop    chan struct{}
	mu      sync.Mutex // of stop and swept together
	swept   sync.WaitGroup
}

// New makes a Pool whose calls have timeout each.
func New(timeout time.Duration) *Pool {
	d := &Pool{Timeout: int64(timeout), stop: make(chan struct{})}
	for i := range d.shards {
		root := &d.shards[i].root
		root.prev, root.next = root, root
	}
	d.free.New = func() any { return d.newContext() }
	return d
}

func (d *Pool) newContext() *Context {
	return &Context{done: make(chan struct{}), shard: &d.shards[d.next.Add(1)%callShards]}
}

// Enter returns the context of a call that starts now. When ctx itself ends
// soon enough it serves, and the Context is nil.
func (d *Pool) Enter(ctx context.Context, now int64) (context.Context, *Context) {
	return d.Within(ctx, now, d.Timeout)
}

// Within is Enter with a time-out of its own.
func (d *Pool) Within(ctx context.Context, now, timeout int64) (context.Context, *Context) {
	if endsBy(ctx, now+timeout) {
		return ctx, nil
	}
	c, _ := d.free.Get().(*Context)
	c.parent, c.deadline = ctx, now+timeout
	return d.add(c)
}

// EnterCallback is Enter for a context that a callback gets.
func (d *Pool) EnterCallback(ctx context.Context, now int64) (context.Context, *Context) {
	if endsBy(ctx, now+d.Timeout) {
		return ctx, nil
	}
	c := d.newContext()
	c.parent, c.deadline, c.callback = ctx, now+d.Timeout, true
	return d.add(c)
}

// EnterSplit is EnterCallback for SplitKeys, whose context is marked.
func (d *Pool) EnterSplit(ctx context.Context, now int64) (context.Context, *Context) {
	end := now + d.Timeout
	if t, ok := ctx.Deadline(); ok {
		end = min(end, clock.At(t))
	}
	c := d.newContext()
	c.parent, c.deadline, c.callback, c.splits = ctx, end, true, true
	return d.add(c)
}

func endsBy(ctx context.Context, end int64) bool {
	t, ok := ctx.Deadline()
	return ok && clock.At(t) <= end
}

func (d *Pool) add(c *Context) (context.Context, *Context) {
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

// Leave ends a call. The context of a callback ends with it. One that has ended is
// not reused: its channel is closed.
func (d *Pool) Leave(c *Context) {
	if c == nil {
		return
	}
	s := c.shard
	s.mu.Lock()
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
	if c.callback && !c.fired.Load() {
		c.fire(context.Canceled)
	}
	fired := c.fired.Load()
	s.mu.Unlock()
	if !fired {
		c.parent = nil
		d.free.Put(c)
	}
}

// wake starts the sweeper, which stops by itself when there is nothing to do.
func (d *Pool) wake() {
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

func (d *Pool) sweep() {
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

func (d *Pool) sweepOnce() (running int) {
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

func (c *Context) fire(err error) {
	c.err = err
	c.fired.Store(true)
	close(c.done)
}

func (d *Pool) empty() bool {
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

// Close ends the sweeper. Calls that still run are no longer bounded here, so
// it comes after they are drained or their connections are closed.
func (d *Pool) Close() {
	d.mu.Lock()
	close(d.stop)
	d.mu.Unlock()
	d.swept.Wait()
}

// SplitsKeys is the key of a context under which a call has a value that knows
// another way to do the same while a slot is being moved.
type SplitsKeys struct{}
