package pubsub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
)

// Streams are trimmed by those who work on them, about once a second and with a
// read that they do anyway. The same read sees what MaxLen took from a group that
// is too slow. It cannot wait in Redis, so that it comes before one that does,
// and only where messages may have been lost since the last one.

const (
	trimEvery = time.Second
	// onePublish is less than Redis takes for a message: in so many times it,
	// no more than so many can be published.
	onePublish = time.Microsecond
	// mostSafe bounds how long nobody looks.
	maxNoLoss = 10 * time.Second
	// lossOver is how long a group must have lost nothing until that is said.
	lossOverAfter = 10 * time.Second
)

// take reads new messages. Those of a read that cannot wait come over the
// connection that all calls share, so that no more than fit are read by it.
func (c *consumer[T]) readNew(own context.Context, n int) ([]rueidis.XRangeEntry, error) {
	now := time.Now()
	trim := now.After(c.nextTrim) && (c.trimDue.Load() || c.losing)
	if trim || now.After(c.noLossUntil) {
		entries, err := c.readInline(own, min(n, c.inlineMax), trim)
		if err != nil || len(entries) > 0 {
			return entries, err
		}
	}
	entries, err := c.readGroup(own, n)
	if err == nil && len(entries) == 0 {
		c.setNoLossUntil(time.Now(), 0) // there was nothing
	}
	return entries, err
}

// sized lets the number of messages that come before other calls fit their size;
// it is 0 for large ones.
func (c *consumer[T]) adaptInlineMax(entries []rueidis.XRangeEntry) {
	if len(entries) == 0 {
		return
	}
	size := 0
	for _, e := range entries {
		size += len(e.FieldValues["d"])
	}
	each := max(1, size/len(entries))
	c.inlineMax = min(4*max(c.inlineMax, 1), c.s.b.bulkThreshold/each, maxRead)
}

// safeFor notes how many messages waited for the group at a time.
func (c *consumer[T]) setNoLossUntil(at time.Time, waiting int64) {
	room := max(int64(c.s.opt.MaxLen)-waiting, 0)
	c.noLossUntil = at.Add(time.Duration(min(room, int64(maxNoLoss/onePublish))) * onePublish)
}

// readHere reads what is there, trims, and says what was lost.
func (c *consumer[T]) readInline(own context.Context, n int, trim bool) ([]rueidis.XRangeEntry, error) {
	began := time.Now()
	how := "0"
	if trim && !c.s.opt.KeepDone {
		how = "1"
	}
	if trim {
		c.trimDue.Store(false)
	}
	m, err := c.s.b.r.Eval(own, scriptRead, []string{c.s.logKey(), c.s.lostKey()}, []string{c.group, c.name, strconv.Itoa(n), strconv.Itoa(c.s.opt.MaxLen), how})
	if err != nil {
		c.trimDue.Store(true)
		c.inlineMax = 0 // it may have been too much
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
		c.s.b.log.Info("a group of workers loses no more messages", "stream", c.s.name, "group", c.group, "lost", c.lostCount)
	}
	return entries, nil
}

// sayLost tells of messages that were lost, of each time that lasts once.
func (c *consumer[T]) reportLost(n int) {
	if n == 0 {
		return
	}
	c.s.b.event("lost", n)
	c.lostAt = time.Now()
	if !c.losing {
		c.losing, c.lostCount = true, 0
		c.s.b.log.Warn("a group of workers is too slow: messages are lost before it has done them; add workers, or raise StreamOptions.MaxLen",
			"stream", c.s.name, "group", c.group, "lost", n, "max_len", c.s.opt.MaxLen)
	}
	c.lostCount += n
}

// tidy trims once more at the end.
func (c *consumer[T]) finalTrim(ctx context.Context) {
	if c.trimDue.Load() {
		_, _ = c.readInline(ctx, 0, true)
	}
}

// tooOld names the reason of a server that does not know what streams need.
func tooOld(err error) error {
	var e *madcrow.Error
	if errors.As(err, &e) && e.Kind == madcrow.KindServer && strings.Contains(err.Error(), "syntax error") {
		return fmt.Errorf("%w: streams need Redis 6.2 or later: %w", ErrTooOld, err)
	}
	return err
}

// knowStreams makes sure, once, that the server can do what streams need: XPENDING
// with IDLE came with the rest of it.
func (b *Bus) knowStreams(ctx context.Context, key string) error {
	if b.streams.Load() {
		return nil
	}
	_, err := b.r.Do(ctx, func(rb madcrow.Builder) madcrow.Command {
		return rb.Xpending().Key(key).Group("-").Idle(0).Start("-").End("+").Count(1).Build()
	})
	var e *madcrow.Error
	switch err = tooOld(err); {
	case errors.Is(err, ErrTooOld):
		return err
	case err != nil && (!errors.As(err, &e) || e.Kind != madcrow.KindServer && e.Kind != madcrow.KindWrongType && e.Kind != madcrow.KindPermission):
		return err // it is away
	}
	b.streams.Store(true) // it has no such group, or may not be asked
	return nil
}
