package stream

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
)

// The workers trim their stream, about once a second, in the script of a read
// that they do anyway (readInline). The same script counts what MaxLen removed
// before a slow group had done it. A script cannot wait in Redis, so it runs
// before a read that waits, and only where messages may have been lost since the
// last one.

const (
	trimEvery = time.Second
	// onePublish is less than Redis takes to publish a message. So within n times
	// this span no more than n are published.
	onePublish = time.Microsecond
	// maxNoLoss bounds the time between two looks for losses.
	maxNoLoss = 10 * time.Second
	// lossOverAfter is how long a group must have lost nothing until that is logged.
	lossOverAfter = 10 * time.Second
)

// readNew reads new messages. The read that cannot wait runs on the connection
// that all calls share, so it reads no more than inlineMax.
func (c *consumer[T]) readNew(ctx, own context.Context, n int) ([]entry, error) {
	now := time.Now()
	trim := now.After(c.nextTrim) && (c.trimDue.Load() || c.losing)
	if trim || now.After(c.noLossUntil) {
		entries, err := c.readInline(own, min(n, c.inlineMax), trim)
		switch {
		case errors.Is(err, madcrow.ErrSlotMoving):
			// Trimming and counting wait until the slot has moved; the messages do not.
			c.noLossUntil = time.Now().Add(trimEvery)
			c.nextTrim = c.noLossUntil
		case err != nil || len(entries) > 0:
			return entries, err
		}
	}
	entries, err := c.readGroup(ctx, own, n)
	if err == nil && len(entries) == 0 {
		c.setNoLossUntil(time.Now(), 0) // there was nothing
	}
	return entries, err
}

// adaptInlineMax lets the number of messages of a read on the shared connection
// fit their size: other calls wait behind them. It is 0 for large ones.
func (c *consumer[T]) adaptInlineMax(entries []entry) {
	if len(entries) == 0 {
		return
	}
	size := 0
	for _, e := range entries {
		size += len(e.FieldValues["d"])
	}
	each := max(1, size/len(entries))
	c.inlineMax = min(4*max(c.inlineMax, 1), c.s.bulkThreshold/each, maxRead)
}

// setNoLossUntil notes how many messages waited for the group at a time, and so
// for how long MaxLen cannot reach them.
func (c *consumer[T]) setNoLossUntil(at time.Time, waiting int64) {
	room := max(int64(c.s.opt.MaxLen)-waiting, 0)
	c.noLossUntil = at.Add(time.Duration(min(room, int64(maxNoLoss/onePublish))) * onePublish)
}

// readInline reads without waiting, trims, and reports what was lost.
func (c *consumer[T]) readInline(own context.Context, n int, trim bool) ([]entry, error) {
	began := time.Now()
	how := "0"
	if trim && !c.s.opt.KeepDone {
		how = "1"
	}
	if trim {
		c.trimDue.Store(false)
	}
	m, err := c.s.evalTogether(own, scriptRead, []string{c.s.logKey(), c.s.lostKey()}, []string{c.group, c.name, strconv.Itoa(n), strconv.Itoa(c.s.opt.MaxLen), how})
	if err != nil {
		c.trimDue.Store(true)
		if !errors.Is(err, madcrow.ErrSlotMoving) {
			c.inlineMax = 0 // it may have been too much
		}
		return nil, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 3 {
		return nil, errors.Join(errReply, err)
	}
	lost, err1 := list[0].AsInt64()
	waiting, err2 := list[1].AsInt64()
	entries, err3 := list[2].AsXRange()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, errors.Join(errReply, err)
	}
	if trim {
		c.nextTrim = time.Now().Add(trimEvery)
	}
	if waiting < 0 {
		waiting = int64(c.s.opt.MaxLen) // unknown
	}
	c.adaptInlineMax(entries)
	c.setNoLossUntil(began, waiting)
	c.reportLost(int(lost))
	if c.losing && waiting < int64(c.s.opt.MaxLen)/2 && time.Since(c.lostAt) > lossOverAfter {
		c.losing = false
		c.s.log.Info("a group of workers loses no more messages", "stream", c.s.name, "group", c.group, "lost", c.lostCount)
	}
	return entries, nil
}

// reportLost counts messages that were lost, and logs the beginning of each time
// in which some are.
func (c *consumer[T]) reportLost(n int) {
	if n == 0 {
		return
	}
	c.s.event(context.Background(), madcrow.EventStreamLost, n)
	c.lostAt = time.Now()
	if !c.losing {
		c.losing, c.lostCount = true, 0
		c.s.log.Warn("a group of workers is too slow: messages are lost before it has done them; add workers, or raise Options.MaxLen",
			"stream", c.s.name, "group", c.group, "lost", n, "max_len", c.s.opt.MaxLen)
	}
	c.lostCount += n
}

// finalTrim trims once more at the end.
func (c *consumer[T]) finalTrim(ctx context.Context) {
	if c.trimDue.Load() {
		_, _ = c.readInline(ctx, 0, true)
	}
}
