package stream

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
)

// maxRefusals is how often Redis may refuse a dead letter.
const maxRefusals = 5

// deadLetter makes a dead letter of a message that failed here and still is ours.
// While Redis is away it tries again: no other process knows the reason. A message
// that Redis goes on refusing is left to the next consumer that claims it, so that
// other messages do not wait for it.
func (c *consumer[T]) deadLetter(own context.Context, id string, deliveries int64, why string) {
	defer func() {
		if c.isOvertaken(id) {
			c.lostInHand.Add(1)
		}
	}()
	ctx := context.WithoutCancel(own)
	for failures := 0; ; failures++ {
		err := c.moveToDead(ctx, id, deliveries, why, 0, c.name)
		refused := errors.Is(err, madcrow.ErrOutOfMemory) || errors.Is(err, madcrow.ErrServer)
		if err == nil || permanent(err) || isNoGroup(err) || refused && failures >= maxRefusals || clock.Sleep(own, retry.Delay(failures)) != nil {
			return
		}
	}
}

// moveToDead makes a dead letter of a message that was idle for long enough and is
// pending for a consumer, or for any where none is given. Without a reason it is
// that of the last failure.
func (c *consumer[T]) moveToDead(ctx context.Context, id string, deliveries int64, why string, idle time.Duration, consumer string) error {
	m, err := c.s.evalTogether(ctx, scriptDead, []string{c.s.logKey(), c.s.deadKey(c.group), c.s.reasonKey(c.group), c.s.lostKey()},
		[]string{c.group, id, strconv.FormatInt(deliveries, 10), strconv.Itoa(c.s.opt.MaxDead), why, milliseconds(idle), consumer})
	if err != nil {
		return err
	}
	c.trimDue.Store(true)
	switch n, _ := m.AsInt64(); n {
	case 1:
		c.s.event(ctx, madcrow.EventStreamDead, 1)
	case 2:
		c.lostInHand.Add(1)
	}
	return nil
}
