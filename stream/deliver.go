package stream

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// Permanent makes an error of a worker one that another try cannot mend: the
// message becomes a dead letter at once, with the text of err as the reason. nil
// stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (p *permanentError) Error() string { return p.err.Error() }

func (p *permanentError) Unwrap() error { return p.err }

// delivery is one try of a message. Its goroutine calls the worker; the outcome is
// settled once, by that goroutine, or by the timer of a worker that ignores its
// time-out.
type delivery[T any] struct {
	c       *consumer[T]
	id      string
	number  int64 // counts from 1
	began   time.Time
	endSpan func(error)
	settled atomic.Bool
}

// start works on a message in a slot that was acquired.
func (c *consumer[T]) start(own context.Context, e entry, deliveries int64) {
	c.mu.Lock()
	c.held[e.ID] = false
	delete(c.retrying, e.ID)
	c.mu.Unlock()
	d := &delivery[T]{c: c, id: e.ID, number: deliveries, began: time.Now()}
	c.wg.Add(1)
	go d.run(own, e)
}

func (d *delivery[T]) run(own context.Context, e entry) {
	o := outcome{malformed: true, err: guard.ErrGoexit}
	ctx, end := d.c.s.events.Start(own, "stream.deliver")
	d.endSpan = end
	if limit := d.c.opt.Timeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
		if after := limit + overtime(limit); after > limit { // else it is too long for a timer
			defer d.abandonAfter(own, after).Stop()
		}
	}
	defer func() { // also where the function ends this goroutine
		if p := recover(); p != nil {
			o.err = guard.Recovered(p)
		}
		o.late = errors.Is(ctx.Err(), context.DeadlineExceeded)
		if d.settled.CompareAndSwap(false, true) {
			d.finish(own, o)
		} else {
			d.returned()
		}
	}()
	d.try(ctx, e, &o)
}

// finish settles the outcome, and lets the next message have the slot.
func (d *delivery[T]) finish(own context.Context, o outcome) {
	defer func() {
		<-d.c.slots
		d.c.wg.Done()
	}()
	defer d.endSpan(o.err)
	d.c.settle(own, d, o)
}

var errNoMessage = errors.New("it has no field d")

func (d *delivery[T]) try(ctx context.Context, e entry, o *outcome) {
	text, ok := e.FieldValues["d"]
	if !ok {
		o.err = errNoMessage
		return
	}
	v, err := codec.Decode(d.c.s.opt.Codec, text)
	if err != nil {
		o.err = err
		if p, ok := errors.Unwrap(err).(*guard.Panic); ok { //nolint:errorlint // as codec.Decode returns it
			o.err = p // for its stack
		}
		return
	}
	o.malformed = false
	o.err = d.c.do(ctx, Delivery[T]{ID: e.ID, Deliveries: d.number, Message: v})
}

// overtime is how long a worker may go on after its time-out: some work needs a
// moment to end.
func overtime(limit time.Duration) time.Duration {
	return min(max(limit/10, time.Second), 30*time.Second)
}

// errAbandoned is the reason of a message whose worker ignores its time-out.
var errAbandoned = errors.New("the worker did not return after its time-out")

// abandonAfter gives up the worker when it has not returned by then: its message
// counts as failed and its slot is free, while its goroutine goes on. No more than
// Workers are given up at the same time; further ones keep their slots.
func (d *delivery[T]) abandonAfter(own context.Context, after time.Duration) *time.Timer {
	c := d.c
	var timer *time.Timer
	ready := make(chan struct{})
	timer = time.AfterFunc(after, func() {
		<-ready
		if d.settled.Load() {
			return
		}
		if c.abandoned.Add(1) > int64(c.opt.Workers) {
			c.abandoned.Add(-1)
			timer.Reset(time.Second)
			return
		}
		if !d.settled.CompareAndSwap(false, true) {
			c.abandoned.Add(-1)
			return
		}
		c.logAbandoned(d)
		d.finish(own, outcome{err: errAbandoned, abandoned: true})
	})
	close(ready)
	return timer
}

// returned is called when a worker that was given up has returned after all. What
// it returned does not count: its message may have been tried again.
func (d *delivery[T]) returned() {
	d.c.abandoned.Add(-1)
	d.c.log.returned(d.id, time.Since(d.began))
}
