package stream

import (
	"context"
	"errors"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// start works on a message in a slot that was acquired.
func (c *consumer[T]) start(own context.Context, e entry, deliveries int64) {
	c.mu.Lock()
	c.held[e.ID] = false
	delete(c.retrying, e.ID)
	c.mu.Unlock()
	c.wg.Go(func() {
		defer func() { <-c.slots }()
		o := outcome{malformed: true, err: guard.ErrGoexit}
		defer func() { // also where the function ends this goroutine
			if p := recover(); p != nil {
				o.err = guard.Recovered(p)
			}
			c.settle(own, e.ID, deliveries, o)
		}()
		c.try(own, e, deliveries, &o)
	})
}

// outcome is the result of one try.
type outcome struct {
	malformed bool // it cannot be decoded
	err       error
}

// settle reports the outcome of a try to Redis. Whatever happens, the message
// does not stay held here.
func (c *consumer[T]) settle(own context.Context, id string, deliveries int64, o outcome) {
	retried := false
	defer func() {
		if !retried {
			c.release(id)
		}
	}()
	why := o.reason()
	// Not by errors.As: the error may be the user's, with methods that panic.
	if p, ok := o.err.(*guard.Panic); ok && c.panics.First(why) { //nolint:errorlint // it is ours, as it is
		c.s.log.Error("a message made its worker panic", "stream", c.s.name, "group", c.group, "id", id, "reason", why, "stack", p.Stack)
	}
	switch {
	case o.err == nil:
		c.ack(own, id)
	case o.malformed || deliveries >= int64(c.opt.MaxDeliveries):
		c.s.event(own, madcrow.EventStreamFailed, 1)
		c.deadLetter(own, id, deliveries, why)
	default:
		c.s.event(own, madcrow.EventStreamFailed, 1)
		retried = true
		c.scheduleRetry(own, id, deliveries, why)
	}
}

func (c *consumer[T]) release(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, id)
}

var errNoMessage = errors.New("it has no field d")

func (c *consumer[T]) try(ctx context.Context, e entry, deliveries int64, o *outcome) {
	text, ok := e.FieldValues["d"]
	if !ok {
		o.err = errNoMessage
		return
	}
	v, err := codec.Decode(c.s.opt.Codec, text)
	if err != nil {
		o.err = err
		if p, ok := errors.Unwrap(err).(*guard.Panic); ok { //nolint:errorlint // as codec.Decode returns it
			o.err = p // for its stack
		}
		return
	}
	o.malformed = false
	o.err = c.do(ctx, Delivery[T]{ID: e.ID, Deliveries: deliveries, Message: v})
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
func (c *consumer[T]) ack(own context.Context, id string) {
	ctx := context.WithoutCancel(own) // the message is done, whatever else ended
	for failures := 0; ; failures++ {
		res, err := c.s.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
			return []madcrow.Command{
				b.Xack().Key(c.s.logKey()).Group(c.group).Id(id).Build(),
				b.Hdel().Key(c.s.reasonKey(c.group)).Field(id).Build(),
			}
		})
		if err == nil {
			c.trimDue.Store(true)
			c.s.event(own, madcrow.EventStreamDone, 1)
			if n, _ := res[0].Message.AsInt64(); n == 0 && c.isOvertaken(id) {
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
	_, _ = c.s.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Hincrby().Key(c.s.lostKey()).Field(c.group).Increment(-1).Build()
	})
}

// scheduleRetry notes why a message failed and when it may be tried again: its
// idle time in Redis is set so that it reaches ClaimAfter then. A message that
// MaxLen removed is lost.
func (c *consumer[T]) scheduleRetry(own context.Context, id string, deliveries int64, why string) {
	delay := c.opt.RetryDelay << min(deliveries-1, 20)
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
