package stream

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/lease"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/internal/unblock"
)

// WorkOptions says how messages are worked on. The zero value works.
type WorkOptions struct {
	// Workers is how many messages are worked on at the same time, from 1 to
	// 10,000. Defaults to 8.
	Workers int
	// ClaimAfter is how long a process may send no heartbeat for a message before
	// another one claims it, from 100 ms. A living one keeps its messages as long
	// as it works on them; it sends three heartbeats in that time. Defaults to 30
	// seconds.
	ClaimAfter time.Duration
	// MaxDeliveries is how often a message is tried before it becomes a dead
	// letter. Defaults to 5.
	MaxDeliveries int
	// RetryDelay is how long after a failure it is tried again; it doubles with
	// each, up to ClaimAfter. Defaults to 1 second.
	RetryDelay time.Duration
	// Timeout is how long one delivery may take, from 1 ms. The context of the worker
	// ends then, and an error that it returns is a failure as others. A worker that
	// has not returned a tenth of Timeout after that (1 second at least, 30 at most)
	// is given up: its message counts as failed, the next one gets its place, and its
	// goroutine goes on, so that the message may be worked on twice at the same time;
	// what it returns in the end does not count. The log says so. No more than Workers
	// are given up at the same time; further ones keep their places until one returns.
	// Defaults to 0: no limit.
	Timeout time.Duration
	// FromNow lets a group that does not exist yet begin with what is published
	// from now on. Defaults to everything that the stream keeps.
	FromNow bool
	// DrainTimeout is how long the messages under way may take at the end.
	// Defaults to 30 seconds.
	DrainTimeout time.Duration

	// Consumers of processes that crashed are removed about every sweepEvery, once
	// they were idle for consumerIdle. One that lives, and got no message for so
	// long, is created again by its next one.
	sweepEvery, consumerIdle time.Duration
}

func (o WorkOptions) filled(name, group string) (WorkOptions, error) {
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.ClaimAfter, 30*time.Second)
	def(&o.RetryDelay, min(time.Second, o.ClaimAfter))
	def(&o.DrainTimeout, 30*time.Second)
	def(&o.sweepEvery, 10*time.Minute)
	def(&o.consumerIdle, time.Hour)
	if o.Workers == 0 {
		o.Workers = 8
	}
	if o.MaxDeliveries == 0 {
		o.MaxDeliveries = 5
	}
	var wrong operr.Arguments
	wrong.Check(o.Workers >= 1 && o.Workers <= 10000, "WorkOptions.Workers", "must be from 1 to 10000")
	wrong.Check(o.ClaimAfter >= 100*time.Millisecond && o.ClaimAfter <= 24*time.Hour, "WorkOptions.ClaimAfter", "must be from 100ms to 24h")
	wrong.Check(o.MaxDeliveries >= 1, "WorkOptions.MaxDeliveries", "must be at least 1")
	wrong.Check(o.RetryDelay >= time.Millisecond && o.RetryDelay <= o.ClaimAfter, "WorkOptions.RetryDelay", "must be from 1ms to ClaimAfter")
	wrong.Check(o.Timeout == 0 || o.Timeout >= time.Millisecond, "WorkOptions.Timeout", "must be at least 1ms, or 0 for no limit")
	wrong.Check(o.DrainTimeout >= 0, "WorkOptions.DrainTimeout", "must not be negative")
	if message := keys.CheckChannelLength(group); message != "" {
		wrong.Check(false, "group", message)
	}
	return o, fail.Arguments("work", name, wrong)
}

// Delivery is a message that a worker is given.
type Delivery[T any] struct {
	ID string
	// Deliveries counts from 1, this one included.
	Deliveries int64
	Message    T
}

const (
	// readBlock is how long a read waits in Redis for new messages, at most.
	readBlock = time.Second
	// maxRead is how many messages are read at once, firstRead how many before
	// their size is known.
	maxRead   = 256
	firstRead = 4
)

// retry gives the pauses between tries while Redis is away.
var retry = clock.Backoff{First: 25 * time.Millisecond, Most: 500 * time.Millisecond}

// Work gives every message of the stream to do, in this group, until ctx ends
// or the stream is closed; then it waits for those under way, up to DrainTimeout,
// and returns nil, or [ErrClosed]. After an error of do, a panic, or the end of
// its goroutine (runtime.Goexit) the message is tried again after RetryDelay, and
// becomes a dead letter after MaxDeliveries, with the reason. A message that
// cannot be decoded, or whose error is [Permanent], becomes one at once. Each
// failure is a warning in the log, each dead letter an error. A message may come again after it was
// done ([Once]), and after a later one.
//
// It goes on through lost connections. The error is a [*madcrow.ArgumentError],
// or a [*madcrow.Error] that waiting does not mend. It takes one of
// Config.MaxConnections for itself.
func (s *Stream[T]) Work(ctx context.Context, group string, do func(context.Context, Delivery[T]) error, options WorkOptions) error {
	opt, err := options.filled(s.name, group)
	if err != nil {
		return err
	}
	c := &consumer[T]{
		s: s, group: group, opt: opt, do: do, log: newWorkLog(s.log, s.name, group), name: s.processID + "-" + strconv.FormatUint(rand.Uint64(), 36), //nolint:gosec // a name
		slots: make(chan struct{}, opt.Workers), reclaimNow: make(chan struct{}, 1),
		held: map[string]bool{}, retrying: map[string]struct{}{},
		inlineMax: firstRead,
	}
	return c.run(ctx)
}

// consumer is one call of Work: a consumer of the group in Redis. Its goroutines
// are the reader (read and all that it calls), the heartbeat, and one for each
// message under way.
type consumer[T any] struct {
	s          *Stream[T]
	group      string
	name       string // in Redis
	opt        WorkOptions
	do         func(context.Context, Delivery[T]) error
	slots      chan struct{} // as many as Workers; each message under way has one
	reclaimNow chan struct{} // a message can be tried again
	wg         sync.WaitGroup

	// heartbeatMu keeps a heartbeat from coming after the end of its message's try.
	heartbeatMu sync.Mutex

	log        *workLog
	abandoned  atomic.Int64 // workers that go on after their time-out
	trimDue    atomic.Bool  // a message was done since the last trim
	lostInHand atomic.Int64 // messages lost while a worker had them, not reported yet

	mu       sync.Mutex
	held     map[string]bool     // ids under way here; true: MaxLen removed it, which is counted
	retrying map[string]struct{} // ids that failed here and are tried again later

	// Of the reader alone.
	nextReclaim time.Time // of messages that are due again
	nextSweep   time.Time // of idle consumers
	unseenUntil time.Time // until then messages may be pending for us that we never saw
	noLossUntil time.Time // until then MaxLen cannot have removed anything that waits
	nextTrim    time.Time
	inlineMax   int  // how many messages are read on the shared connection
	losing      bool // the group loses messages, which was reported
	lostCount   int  // since then
	lostAt      time.Time
}

func (c *consumer[T]) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(c.s.ctx, stop)()
	// Messages under way are finished after ctx has ended.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	alive := lease.Keep(own, time.Now(), lease.Options{
		Every: c.opt.ClaimAfter / 3,
		Renew: func(ctx context.Context) (bool, error) { return true, c.heartbeat(ctx) },
	})
	leave := c.s.joinMover()
	err := c.read(ctx, own)
	leave()
	done := make(chan struct{})
	go func() {
		c.wg.Wait()
		close(done)
	}()
	late := time.NewTimer(c.opt.DrainTimeout)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
	}
	cancel()
	alive.Stop()
	c.reportLost(int(c.lostInHand.Swap(0)))
	c.log.countDropped(true)
	if err == nil {
		c.removeConsumer()
		if c.s.ctx.Err() != nil {
			err = ErrClosed
		}
	}
	return c.s.failed("work", err)
}

// read reads messages as long as there are free workers: first those that are
// due again, then new ones.
func (c *consumer[T]) read(ctx, own context.Context) error {
	c.nextReclaim = time.Now().Add(rand.N(c.opt.ClaimAfter / 4)) //nolint:gosec // no secret
	c.nextSweep = time.Now().Add(rand.N(c.opt.sweepEvery))       //nolint:gosec // no secret
	for failures := 0; ; {
		free := c.acquireSlots(ctx)
		if free == 0 {
			return nil
		}
		err := c.round(ctx, own, free)
		switch {
		case err == nil:
			failures = 0
			continue
		case permanent(err):
			return err
		case clock.Sleep(ctx, retry.Delay(failures)) != nil:
			return nil
		}
		failures++
	}
}

// acquireSlots waits for a free worker, and takes the slots of all that are free.
// 0 is the end of ctx.
func (c *consumer[T]) acquireSlots(ctx context.Context) (n int) {
	if ctx.Err() != nil {
		return 0
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	for n = 1; n < min(c.opt.Workers, maxRead); n++ {
		select {
		case c.slots <- struct{}{}:
		default:
			return n
		}
	}
	return n
}

// round fills the free slots once, and gives back what it does not need.
func (c *consumer[T]) round(ctx, own context.Context, free int) (err error) {
	defer func() {
		for range free {
			<-c.slots
		}
	}()
	c.reportLost(int(c.lostInHand.Swap(0)))
	c.log.countDropped(false)
	if err := c.s.checkServer(ctx); err != nil {
		return err
	}
	if now := time.Now(); now.After(c.nextSweep) {
		c.nextSweep = now.Add(c.opt.sweepEvery/2 + rand.N(c.opt.sweepEvery)) //nolint:gosec // no secret
		c.removeIdleConsumers(ctx)
	}
	if !c.unseenUntil.IsZero() {
		last := time.Now().After(c.unseenUntil)
		free, err = c.claimUnseen(own, free)
		if errors.Is(err, madcrow.ErrSlotMoving) {
			last = false // it is tried again until the slot has moved; new messages are read
		} else if err != nil {
			return err
		}
		if last {
			c.unseenUntil = time.Time{}
		}
	}
	if c.reclaimDue() {
		if free, err = c.reclaim(ctx, own, free); err != nil {
			return err
		}
	}
	if free == 0 || ctx.Err() != nil {
		return nil
	}
	entries, err := c.readNew(ctx, own, free)
	for _, e := range entries {
		free--
		c.start(own, e, 1)
	}
	switch {
	case err == nil:
		c.opt.FromNow = false // if the group is lost later, the messages that are there then are new to it
		return nil
	case isNoGroup(err):
		return c.createGroup(own)
	}
	c.noteLostReply(err)
	return err
}

// reclaimDue says whether it is time to look for messages that are due again.
func (c *consumer[T]) reclaimDue() bool {
	now := time.Now()
	select {
	case <-c.reclaimNow:
	default:
		if now.Before(c.nextReclaim) {
			return false
		}
	}
	every := max(c.opt.ClaimAfter/4, 50*time.Millisecond)
	c.nextReclaim = now.Add(every/2 + rand.N(every)) //nolint:gosec // no secret
	return true
}

// blockTime is how long a read waits for new messages: not past the next reclaim,
// and while a message here may fail and soon be due again, not past that.
func (c *consumer[T]) blockTime() time.Duration {
	d := min(readBlock, time.Until(c.nextReclaim))
	c.mu.Lock()
	if len(c.held)+len(c.retrying) > 0 {
		d = min(d, max(c.opt.RetryDelay, 50*time.Millisecond))
	}
	c.mu.Unlock()
	return max(d, time.Millisecond).Truncate(time.Millisecond) // 0 would block for ever
}

// readGroup waits for new messages on a connection of its own, until ctx ends.
func (c *consumer[T]) readGroup(ctx, own context.Context, n int) ([]entry, error) {
	block := c.blockTime()
	m, err := c.s.r.Do(unblock.When(own, ctx), c.s.r.B().Xreadgroup().Group(c.group, c.name).Count(int64(n)).Block(block.Milliseconds()).Streams().Key(c.s.logKey()).Id(">").Build(), madcrow.Blocking(block)).Message()
	if err != nil || m.IsNil() {
		return nil, err
	}
	streams, err := m.AsXRead()
	if err != nil {
		return nil, errors.Join(errReply, err)
	}
	entries := streams[c.s.logKey()]
	c.adaptInlineMax(entries)
	return entries, nil
}

// createGroup creates the group that a read did not find. When another process
// was faster, that is an error, and read pauses.
func (c *consumer[T]) createGroup(ctx context.Context) error {
	from := "0"
	if c.opt.FromNow {
		from = "$"
	}
	err := c.s.r.Do(ctx, c.s.r.B().XgroupCreate().Key(c.s.logKey()).Group(c.group).Id(from).Mkstream().Build()).Err()
	return err
}
