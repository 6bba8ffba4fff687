package stream

import (
	"context"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// outcome is the result of one try.
type outcome struct {
	malformed bool // it cannot be decoded
	late      bool // the time-out was over
	abandoned bool // and the worker has not returned
	err       error
}

// class is the Reason of the event of a failure.
func (o outcome) class(stack string, permanent bool) string {
	switch {
	case o.malformed:
		return "malformed"
	case permanent:
		return "permanent"
	case o.abandoned, o.late:
		return "timeout"
	case stack != "":
		return "panic"
	}
	return "error"
}

// settle reports the outcome of a try to Redis. Whatever happens, the message
// does not stay held here.
func (c *consumer[T]) settle(own context.Context, d *delivery[T], o outcome) {
	retried := false
	defer func() {
		if !retried {
			c.release(d.id)
		}
	}()
	if o.err == nil {
		c.ack(own, d)
		return
	}
	why := o.reason()
	stack, permanent := inspect(o.err)
	c.s.events.Send(own, madcrow.Event{Type: madcrow.EventStreamFailed, Duration: time.Since(d.began), Reason: o.class(stack, permanent), Err: o.err})
	if o.malformed || permanent || d.number >= int64(c.opt.MaxDeliveries) {
		c.deadLetter(own, d, why, stack)
		return
	}
	retried = true
	c.scheduleRetry(own, d, why, stack)
}

func (c *consumer[T]) release(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, id)
}

const maxReason = 1024

// reason is the text of its error, also where the error's methods panic.
func (o outcome) reason() string {
	if o.err == nil {
		return ""
	}
	text := guard.Text(o.err)
	if o.malformed {
		text = ErrMalformed.Error() + ": " + text
	} else if o.err == guard.ErrGoexit { //nolint:errorlint // our own value
		text = "the worker: " + text
	}
	return text[:min(len(text), maxReason)]
}

// ack acknowledges a message that is done. While Redis is away it tries again:
// without the acknowledgement the message would come again.
func (c *consumer[T]) ack(own context.Context, d *delivery[T]) {
	id := d.id
	ctx := context.WithoutCancel(own) // the message is done, whatever else ended
	for failures := 0; ; failures++ {
		res, err := c.s.r.DoMulti(ctx,
			c.s.r.B().Xack().Key(c.s.logKey()).Group(c.group).Id(id).Build(),
			c.s.r.B().Hdel().Key(c.s.reasonKey(c.group)).Field(id).Build(),
		)
		if err == nil {
			c.trimDue.Store(true)
			c.s.events.Send(own, madcrow.Event{Type: madcrow.EventStreamDone, Duration: time.Since(d.began)})
			if n, _, _ := res[0].Int(); n == 0 && c.isOvertaken(id) {
				c.uncountLost(ctx)
			}
			return
		}
		if permanent(err) || clock.Sleep(own, retry.Delay(failures)) != nil {
			c.s.event(own, madcrow.EventStreamAckLost, 1)
			return
		}
	}
}

// isOvertaken says whether a heartbeat has found that MaxLen removed a message
// that is under way here.
func (c *consumer[T]) isOvertaken(id string) bool {
	c.heartbeatMu.Lock() // a heartbeat that is under way may find it
	defer c.heartbeatMu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held[id]
}

// uncountLost takes back that a message counts as lost. It is tried once: Lag.Lost
// may be too large, and must not be too small.
func (c *consumer[T]) uncountLost(ctx context.Context) {
	_ = c.s.r.Do(ctx, c.s.r.B().Hincrby().Key(c.s.lostKey()).Field(c.group).Increment(-1).Build()).Err()
}

// scheduleRetry notes why a message failed and when it may be tried again: its
// idle time in Redis is set so that it reaches ClaimAfter then. A message that
// MaxLen removed is lost.
func (c *consumer[T]) scheduleRetry(own context.Context, d *delivery[T], why, stack string) {
	id := d.id
	delay := c.opt.RetryDelay << min(d.number-1, 20)
	if delay <= 0 || delay > c.opt.ClaimAfter {
		delay = c.opt.ClaimAfter
	}
	c.heartbeatMu.Lock()
	defer c.heartbeatMu.Unlock()
	c.mu.Lock()
	gone := c.held[id]
	delete(c.held, id)
	c.retrying[id] = struct{}{}
	c.mu.Unlock()
	if !gone {
		// When this fails, the message is tried again after ClaimAfter.
		ids, _ := c.renew(own, c.opt.ClaimAfter-delay, why, id)
		gone = len(ids) > 0
	}
	if gone {
		c.lostInHand.Add(1)
		c.mu.Lock()
		delete(c.retrying, id)
		c.mu.Unlock()
		return
	}
	c.log.failed(own, id, d.number, delay, why, stack)
	c.wakeAfter(delay+time.Millisecond, id)
}

// wakeAfter lets a message be tried again after d.
func (c *consumer[T]) wakeAfter(d time.Duration, id string) {
	time.AfterFunc(d, func() {
		c.mu.Lock()
		delete(c.retrying, id)
		c.mu.Unlock()
		select {
		case c.reclaimNow <- struct{}{}:
		default:
		}
	})
}
