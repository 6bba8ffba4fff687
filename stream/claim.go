package stream

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
)

const claimPage = 100

// reclaim claims the messages that are due: those that failed a while ago, here
// or elsewhere, and those of processes that went away. It returns how many slots
// are left.
func (c *consumer[T]) reclaim(ctx, own context.Context, free int) (left int, err error) {
	for from := "-"; ctx.Err() == nil; {
		list, err := c.pending(ctx, from, c.opt.ClaimAfter, "")
		if err != nil {
			if isNoGroup(err) {
				err = nil // the next read creates it
			}
			return free, err
		}
		for _, p := range list {
			from = "(" + p.id
			switch {
			case ctx.Err() != nil:
				return free, nil
			case c.owns(p.id):
			case free == 0 && (p.deliveries < int64(c.opt.MaxDeliveries) || c.s.opt.OnDead != nil):
				c.nextReclaim = time.Time{} // there is more
				return 0, nil
			case p.deliveries >= int64(c.opt.MaxDeliveries):
				alert, _ := c.moveToDead(ctx, own, p, "", "", c.opt.ClaimAfter, "") // the next reclaim, of any process, tries again
				if alert != nil {
					free--
					c.inSlot(alert)
				}
			default:
				taken, err := c.claim(own, p)
				if errors.Is(err, madcrow.ErrSlotMoving) {
					return free, nil // a later reclaim, when the slot has moved; new messages are read
				}
				if err != nil {
					return free, err
				}
				if taken {
					free--
					c.s.event(ctx, madcrow.EventStreamClaimed, 1)
				}
			}
		}
		if len(list) < claimPage {
			break
		}
	}
	return free, nil
}

// inSlot runs fn in a slot that was acquired, as a worker.
func (c *consumer[T]) inSlot(fn func()) {
	c.wg.Go(func() {
		defer func() { <-c.slots }()
		fn()
	})
}

type pendingMessage struct {
	id         string
	deliveries int64
}

// pending lists a page of the messages of the group that are not done, of one
// consumer, or of all where that is "".
func (c *consumer[T]) pending(ctx context.Context, from string, idle time.Duration, consumer string) (list []pendingMessage, err error) {
	page := c.s.r.B().Xpending().Key(c.s.logKey()).Group(c.group).Idle(idle.Milliseconds()).Start(from).End("+").Count(claimPage)
	cmd := page.Build
	if consumer != "" {
		cmd = page.Consumer(consumer).Build
	}
	m, err := c.s.r.Do(ctx, cmd()).Message()
	if err != nil {
		return nil, nameTooOld(err)
	}
	entries, err := m.ToArray()
	if err != nil {
		return nil, errors.Join(errReply, err)
	}
	for i := range entries {
		fields, err := entries[i].ToArray()
		if err != nil || len(fields) != 4 {
			return nil, errors.Join(errReply, err)
		}
		id, err1 := fields[0].ToString()
		n, err2 := fields[3].AsInt64()
		if err := errors.Join(err1, err2); err != nil {
			return nil, errors.Join(errReply, err)
		}
		list = append(list, pendingMessage{id, n})
	}
	return list, nil
}

// owns says whether a message is under way here, or waits for its next try.
func (c *consumer[T]) owns(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, held := c.held[id]
	_, resting := c.retrying[id]
	return held || resting
}

// claim claims a message that still is idle for long enough, and works on it in a
// slot that was acquired.
func (c *consumer[T]) claim(own context.Context, p pendingMessage) (taken bool, err error) {
	return c.claimOne(own, p.id, c.opt.ClaimAfter, "", p.deliveries+1, "")
}

// claimOne claims a message that was idle for so long and is pending for the
// consumer from, or for any where that is "", and works on it. note is the number
// of deliveries to store; "" counts one more.
func (c *consumer[T]) claimOne(own context.Context, id string, idle time.Duration, from string, deliveries int64, note string) (taken bool, _ error) {
	m, err := c.s.evalTogether(own, scriptClaim, []string{c.s.logKey(), c.s.reasonKey(c.group), c.s.lostKey()},
		[]string{c.group, c.name, id, milliseconds(idle), from, note})
	if err != nil {
		c.noteLostReply(err)
		return false, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 2 {
		return false, errors.Join(errReply, err)
	}
	if gone, _ := list[0].AsInt64(); gone == 1 {
		c.s.event(own, madcrow.EventStreamTrimmed, 1)
		c.reportLost(1)
		return false, nil
	}
	entries, err := list[1].AsXRange()
	if err == nil && len(entries) == 1 {
		c.start(own, entries[0], deliveries)
		return true, nil
	}
	return false, nil // another consumer has it
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// noteLostReply notes that a reply was lost: messages may be pending for us that we
// never saw. The read of a connection that died unnoticed may even take some
// later.
func (c *consumer[T]) noteLostReply(err error) {
	var e *madcrow.Error
	if errors.As(err, &e) && e.Outcome == madcrow.OutcomeUnknown {
		c.unseenUntil = time.Now().Add(2 * readBlock)
	}
}

// claimUnseen works on messages that are pending for us and that we never saw. It
// counts no further delivery: no one has tried them.
func (c *consumer[T]) claimUnseen(own context.Context, free int) (left int, err error) {
	for from := "-"; free > 0; {
		list, err := c.pending(own, from, 0, c.name)
		if err != nil {
			if isNoGroup(err) {
				err = nil
			}
			return free, err
		}
		for _, p := range list {
			from = "(" + p.id
			if free == 0 || c.owns(p.id) {
				continue
			}
			taken, err := c.claimOne(own, p.id, 0, c.name, p.deliveries, strconv.FormatInt(p.deliveries, 10))
			if err != nil {
				return free, err
			}
			if taken {
				free--
				c.s.event(own, madcrow.EventStreamAdopted, 1)
			}
		}
		if len(list) < claimPage {
			break
		}
	}
	return free, nil
}

// heartbeat renews the messages under way here, so that no other process claims
// them. An error has it called again sooner; the other parts are renewed all the
// same.
func (c *consumer[T]) heartbeat(ctx context.Context) (failed error) {
	c.heartbeatMu.Lock()
	defer c.heartbeatMu.Unlock()
	c.mu.Lock()
	ids := make([]string, 0, len(c.held))
	for id, gone := range c.held {
		if !gone {
			ids = append(ids, id)
		}
	}
	c.mu.Unlock()
	for part := range slices.Chunk(ids, claimPage) {
		gone, err := c.renew(ctx, 0, "", part...)
		failed = errors.Join(failed, err)
		c.markOvertaken(gone)
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

// markOvertaken notes which of the messages under way MaxLen removed. A failure of
// one is its last.
func (c *consumer[T]) markOvertaken(ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if _, held := c.held[id]; held {
			c.held[id] = true
		}
	}
}

// renew claims messages again that are still ours, as idle for so long, and stores
// why they failed, if they did. It returns those that the stream does not keep any
// more. While a cluster moves the slot, the messages are renewed first, and losses
// and reasons are stored after that.
func (c *consumer[T]) renew(ctx context.Context, idle time.Duration, why string, ids ...string) (gone []string, err error) {
	keys := []string{c.s.logKey(), c.s.reasonKey(c.group), c.s.lostKey()}
	args := append([]string{c.group, c.name, milliseconds(idle), why}, ids...)
	err = c.s.r.SplitKeys(ctx, keys[0], func(ctx context.Context) error {
		gone, err = c.evalRenew(ctx, keys, args)
		return err
	}, func(ctx context.Context) error {
		gone, err = c.evalRenew(ctx, keys[:1], args)
		if err == nil {
			c.noteRenewed(ctx, why, ids, gone)
		}
		return err
	})
	return gone, err
}

func (c *consumer[T]) evalRenew(ctx context.Context, keys, args []string) ([]string, error) {
	m, err := c.s.r.Eval(ctx, scriptKeep, keys, args).Message()
	if err != nil {
		return nil, err
	}
	gone, _ := m.AsStrSlice()
	return gone, nil
}

// noteRenewed stores what keep.lua stores with all its keys. It is tried once: a
// loss that is not counted, or a reason that is missing, changes no message.
func (c *consumer[T]) noteRenewed(ctx context.Context, why string, ids, gone []string) {
	if len(gone) == 0 && why == "" {
		return
	}
	reasons := c.s.reasonKey(c.group)
	var cmds []madcrow.Command
	if len(gone) > 0 {
		cmds = append(cmds, c.s.r.B().Hincrby().Key(c.s.lostKey()).Field(c.group).Increment(int64(len(gone))).Build(),
			c.s.r.B().Hdel().Key(reasons).Field(gone...).Build())
	}
	for _, id := range ids {
		if why != "" && !slices.Contains(gone, id) {
			cmds = append(cmds, c.s.r.B().Hset().Key(reasons).FieldValue().FieldValue(id, why).Build())
		}
	}
	_, _ = c.s.r.DoMulti(ctx, cmds...)
}

// removeIdleConsumers removes the consumers of crashed processes that have nothing
// pending.
func (c *consumer[T]) removeIdleConsumers(ctx context.Context) {
	m, err := c.s.r.Eval(ctx, scriptConsumers, []string{c.s.logKey()}, []string{c.group, milliseconds(c.opt.consumerIdle)}).Message()
	if n, _ := m.AsInt64(); err == nil && n > 0 {
		c.s.event(ctx, madcrow.EventStreamConsumersRemoved, int(n))
	}
}

// removeConsumer removes this consumer, if nothing is pending for it: a read that
// still waits in Redis may take a message for it at any moment.
func (c *consumer[T]) removeConsumer() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.finalTrim(ctx)
	_ = c.s.r.Eval(ctx, scriptLeave, []string{c.s.logKey()}, []string{c.group, c.name}).Err()
}
