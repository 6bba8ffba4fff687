package stream

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// maxRefusals is how often Redis may refuse a dead letter.
const maxRefusals = 5

// deadLetter makes a dead letter of a message that failed here and still is ours.
// While Redis is away it tries again: no other process knows the reason. A message
// that Redis goes on refusing is left to the next consumer that claims it, so that
// other messages do not wait for it.
func (c *consumer[T]) deadLetter(own context.Context, d *delivery[T], why, stack string) {
	id := d.id
	defer func() {
		if c.isOvertaken(id) {
			c.lostInHand.Add(1)
		}
	}()
	ctx := context.WithoutCancel(own)
	for failures := 0; ; failures++ {
		alert, err := c.moveToDead(ctx, own, pendingMessage{id, d.number}, why, stack, 0, c.name)
		if alert != nil {
			alert()
		}
		refused := errors.Is(err, madcrow.ErrOutOfMemory) || errors.Is(err, madcrow.ErrServer)
		if err == nil || permanent(err) || isNoGroup(err) || refused && failures >= maxRefusals || clock.Sleep(own, retry.Delay(failures)) != nil {
			return
		}
	}
}

// moveToDead makes a dead letter of a message that was idle for long enough and is
// pending for a consumer, or for any where none is given. Without a reason it is
// that of the last failure. alert calls Options.OnDead with the context hook; it is
// nil where there is nothing to call.
func (c *consumer[T]) moveToDead(ctx, hook context.Context, p pendingMessage, why, stack string, idle time.Duration, consumer string) (alert func(), err error) {
	m, err := c.s.evalTogether(ctx, scriptDead, []string{c.s.logKey(), c.s.deadKey(c.group), c.s.reasonKey(c.group), c.s.lostKey()},
		[]string{c.group, p.id, strconv.FormatInt(p.deliveries, 10), strconv.Itoa(c.s.opt.MaxDead), why, milliseconds(idle), consumer})
	if err != nil {
		return nil, err
	}
	c.trimDue.Store(true)
	list, err := m.ToArray()
	if err != nil || len(list) == 0 {
		return nil, errors.Join(errReply, err)
	}
	switch n, _ := list[0].AsInt64(); n {
	case 1:
		alert = c.madeDead(hook, p, list[1:], stack)
	case 2:
		c.lostInHand.Add(1)
	}
	return alert, nil
}

// madeDead reports a dead letter that this process made, and returns what calls
// Options.OnDead, if that is set.
func (c *consumer[T]) madeDead(hook context.Context, p pendingMessage, reply []madcrow.Message, stack string) (alert func()) {
	var texts [3]string
	for i := range min(len(texts), len(reply)) {
		texts[i], _ = reply[i].ToString()
	}
	id, why, raw := texts[0], texts[1], texts[2]
	c.s.event(hook, madcrow.EventStreamDead, 1)
	c.log.deadLetter(hook, id, p.id, p.deliveries, why, stack)
	if c.s.opt.OnDead == nil {
		return nil
	}
	return func() {
		d := DeadLetter[T]{Group: c.group, ID: id, Original: p.id, Reason: why, Deliveries: p.deliveries, Raw: raw}
		d.Message, d.Err = codec.Decode(c.s.opt.Codec, raw)
		err := guard.Apart(func() error {
			c.s.opt.OnDead(hook, d)
			return nil
		})
		if err != nil {
			stack, _ := inspect(err)
			c.log.log.Error("Options.OnDead failed", "id", p.id, "reason", guard.Text(err), "stack", stack)
		}
	}
}
