package pubsub

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// WorkOptions says how messages are worked on. The zero value works.
type WorkOptions struct {
	// Workers is how many messages are worked on at the same time, from 1 to
	// 10,000. Defaults to 8.
	Workers int
	// ClaimAfter is how long a message may be in the hands of a process that
	// shows no sign of life before another one gets it, from 100 ms. A living
	// one keeps it as long as it works, and shows it three times in that time.
	// Defaults to 30 seconds.
	ClaimAfter time.Duration
	// MaxDeliveries is how often a message is tried before it is put aside.
	// Defaults to 5.
	MaxDeliveries int
	// RetryDelay is how long after a failure it is tried again; it doubles with
	// each, up to ClaimAfter. Defaults to 1 second.
	RetryDelay time.Duration
	// FromNow lets a group that does not exist yet begin with what is published
	// from now on. Defaults to everything that the stream keeps.
	FromNow bool
	// DrainTimeout is how long the messages under way may take at the end.
	// Defaults to 30 seconds.
	DrainTimeout time.Duration
}

func (o WorkOptions) filled() (WorkOptions, error) {
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.ClaimAfter, 30*time.Second)
	def(&o.RetryDelay, min(time.Second, o.ClaimAfter))
	def(&o.DrainTimeout, 30*time.Second)
	if o.Workers == 0 {
		o.Workers = 8
	}
	if o.MaxDeliveries == 0 {
		o.MaxDeliveries = 5
	}
	switch {
	case o.Workers < 1 || o.Workers > 10000:
		return o, &ValidationError{Field: "Workers", Message: "must be from 1 to 10000"}
	case o.ClaimAfter < 100*time.Millisecond || o.ClaimAfter > 24*time.Hour:
		return o, &ValidationError{Field: "ClaimAfter", Message: "must be from 100ms to 24h"}
	case o.MaxDeliveries < 1:
		return o, &ValidationError{Field: "MaxDeliveries", Message: "must be at least 1"}
	case o.RetryDelay < time.Millisecond || o.RetryDelay > o.ClaimAfter:
		return o, &ValidationError{Field: "RetryDelay", Message: "must be from 1ms to ClaimAfter"}
	case o.DrainTimeout < 0:
		return o, &ValidationError{Field: "DrainTimeout", Message: "must not be negative"}
	}
	return o, nil
}

// Delivery is a message in the hands of a worker.
type Delivery[T any] struct {
	ID string
	// Deliveries counts from 1, this one included.
	Deliveries int64
	Message    T
}

// readBlock is how long a read waits in Redis for new messages, at most.
const readBlock = time.Second

// Work gives every message of the stream to do, in this group, until ctx ends
// or the bus is closed; then it waits for those under way, up to DrainTimeout,
// and returns nil, or [ErrClosed]. An error of do, a panic, or the end of its
// goroutine (runtime.Goexit), has the message tried again after RetryDelay, and put aside after MaxDeliveries, with the
// reason. A message that cannot be decoded is put aside at once. A message may
// come twice ([Bus.Once]), and after a later one.
//
// It goes on through lost connections. The error is a [*ValidationError], or an
// [*Error] that waiting does not mend. It takes one of Config.MaxConnections for
// itself.
func (s *Stream[T]) Work(ctx context.Context, group string, do func(context.Context, Delivery[T]) error, options WorkOptions) error {
	opt, err := options.filled()
	if err != nil {
		return err
	}
	if err := checkChannel("group", group); err != nil {
		return err
	}
	w := &consumer[T]{
		s: s, group: group, opt: opt, do: do, name: s.b.processID + "-" + strconv.FormatUint(rand.Uint64(), 36), //nolint:gosec // a name
		slots: make(chan struct{}, opt.Workers), reclaimNow: make(chan struct{}, 1),
		held: map[string]bool{}, retrying: map[string]struct{}{},
		inlineMax: firstPage,
	}
	return w.run(ctx)
}

// work is one call of Work.
type consumer[T any] struct {
	s          *Stream[T]
	group      string
	name       string // the consumer's name
	opt        WorkOptions
	do         func(context.Context, Delivery[T]) error
	slots      chan struct{} // as many as Workers; each message under way has one
	reclaimNow chan struct{} // it is time to look for what can be tried again
	wg         sync.WaitGroup

	// A sign of life must not come after the end of what it is for.
	heartbeatMu sync.Mutex

	panics     guard.Said
	trimDue    atomic.Bool  // something is done since it was last trimmed
	lostInHand atomic.Int64 // what was lost in hand, and is not told yet

	mu       sync.Mutex
	held     map[string]bool     // ids that are being worked on here; true: MaxLen overtook it, which is counted
	retrying map[string]struct{} // ids that failed here and are tried again later

	// Of the reader alone.
	nextReclaim, nextSweep time.Time // when it looks for what is due, and for dead consumers
	unseenUntil            time.Time // until when messages may be ours that we never saw
	noLossUntil            time.Time // until when MaxLen cannot have overtaken the group
	nextTrim               time.Time // when it trims next
	inlineMax              int       // how many messages may come before other calls
	losing                 bool      // the group loses messages, which was said
	lostCount              int       // how many since then
	lostAt                 time.Time
}

func (c *consumer[T]) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(c.s.b.ctx, stop)()
	// What runs is finished after ctx has ended.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var alive sync.WaitGroup
	alive.Go(func() { c.heartbeat(own) })
	err := c.read(ctx, own)
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
	alive.Wait()
	c.reportLost(int(c.lostInHand.Swap(0)))
	if err == nil {
		c.removeConsumer()
		if c.s.b.ctx.Err() != nil {
			err = ErrClosed
		}
	}
	return c.s.failed("work", err)
}

// read takes messages as long as there are free workers: first those that are
// due again, then new ones.
func (c *consumer[T]) read(ctx, own context.Context) error {
	wait := minRetry
	c.nextReclaim = time.Now().Add(rand.N(c.opt.ClaimAfter / 4)) //nolint:gosec // no secret
	c.nextSweep = time.Now().Add(rand.N(sweepEvery))             //nolint:gosec // no secret
	for {
		free := c.acquireSlots(ctx)
		if free == 0 {
			return nil
		}
		err := c.round(ctx, own, free)
		switch {
		case err == nil:
			wait = minRetry
		case hopelessForWork(err):
			return err
		case !sleep(ctx, wait/2+rand.N(wait/2)): //nolint:gosec // no secret
			return nil
		default:
			wait = min(2*wait, maxRetry)
		}
	}
}

// mostRead is how many messages are read at once.
const maxRead = 256

// free takes the slots of the workers that are free, once there is one; 0 is
// the end of ctx.
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
	if err := c.s.b.knowStreams(ctx, c.s.logKey()); err != nil {
		return err
	}
	if now := time.Now(); now.After(c.nextSweep) {
		c.nextSweep = now.Add(sweepEvery/2 + rand.N(sweepEvery)) //nolint:gosec // no secret
		c.removeIdleConsumers(ctx)
	}
	if !c.unseenUntil.IsZero() {
		last := time.Now().After(c.unseenUntil)
		if free, err = c.claimUnseen(own, free); err != nil {
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
	entries, err := c.readNew(own, free)
	for _, e := range entries {
		free--
		c.start(own, e, 1)
	}
	switch {
	case err == nil:
		c.opt.FromNow = false // if the group is lost now, what is there later is new
		return nil
	case isNoGroup(err):
		return c.createGroup(own)
	}
	c.noteLostReply(err)
	return err
}

// isTime says whether it is time to look for what is due again.
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

func hopelessForWork(err error) bool {
	return hopeless(err) || errors.Is(err, madcrow.ErrWrongType) || errors.Is(err, ErrTooOld)
}

// block is how long to wait for new messages: not past the next look, and while
// something may fail here and be due soon, not past that.
func (c *consumer[T]) blockTime() time.Duration {
	d := min(readBlock, time.Until(c.nextReclaim))
	c.mu.Lock()
	if len(c.held)+len(c.retrying) > 0 {
		d = min(d, max(c.opt.RetryDelay, 50*time.Millisecond))
	}
	c.mu.Unlock()
	return max(d, time.Millisecond).Truncate(time.Millisecond) // 0 would be for ever
}

func (c *consumer[T]) readGroup(ctx context.Context, n int) ([]rueidis.XRangeEntry, error) {
	block := c.blockTime()
	m, err := c.s.b.r.DoBlocking(ctx, block, func(b madcrow.Builder) madcrow.Command {
		return b.Xreadgroup().Group(c.group, c.name).Count(int64(n)).Block(block.Milliseconds()).Streams().Key(c.s.logKey()).Id(">").Build()
	})
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

// createGroup makes the group that a read did not find. When another one was
// faster, that is an error, and read pauses.
func (c *consumer[T]) createGroup(ctx context.Context) error {
	from := "0"
	if c.opt.FromNow {
		from = "$"
	}
	_, err := c.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.XgroupCreate().Key(c.s.logKey()).Group(c.group).Id(from).Mkstream().Build()
	})
	return err
}

// start works on a message in a slot that is taken.
func (c *consumer[T]) start(own context.Context, e rueidis.XRangeEntry, deliveries int64) {
	c.mu.Lock()
	c.held[e.ID] = false
	delete(c.retrying, e.ID)
	c.mu.Unlock()
	c.wg.Go(func() {
		defer func() { <-c.slots }()
		a := outcome{malformed: true, err: guard.ErrGoexit}
		defer func() { // also where the function ends this goroutine
			if p := recover(); p != nil {
				a.err = guard.Recovered(p)
			}
			c.settle(own, e.ID, deliveries, a)
		}()
		c.try(own, e, deliveries, &a)
	})
}

// attempt is what became of one try.
type outcome struct {
	malformed bool // it cannot be decoded
	err       error
}

// settle tells Redis what became of a try. Whatever happens, the message does
// not stay in hands that are empty.
func (c *consumer[T]) settle(own context.Context, id string, deliveries int64, a outcome) {
	rests := false
	defer func() {
		if !rests {
			c.release(id)
		}
	}()
	why := a.reason()
	// Not by errors.As: the error may be the user's, with methods that panic.
	if p, ok := a.err.(*guard.Panic); ok && c.panics.First(why) { //nolint:errorlint // it is ours, as it is
		c.s.b.log.Error("a message made its worker panic", "stream", c.s.name, "group", c.group, "id", id, "reason", why, "stack", p.Stack)
	}
	switch {
	case a.err == nil:
		c.ack(own, id)
	case a.malformed || deliveries >= int64(c.opt.MaxDeliveries):
		c.s.b.event("failed", 1)
		c.deadLetter(own, id, deliveries, why)
	default:
		c.s.b.event("failed", 1)
		rests = true
		c.scheduleRetry(own, id, deliveries, why)
	}
}

func (c *consumer[T]) release(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, id)
}

var errNoMessage = errors.New("it has no field d")

func (c *consumer[T]) try(ctx context.Context, e rueidis.XRangeEntry, deliveries int64, a *outcome) {
	text, ok := e.FieldValues["d"]
	if !ok {
		a.err = errNoMessage
		return
	}
	v, err := c.s.opt.Codec.Decode(text)
	if err != nil {
		a.err = err
		return
	}
	a.malformed = false
	a.err = c.do(ctx, Delivery[T]{ID: e.ID, Deliveries: deliveries, Message: v})
}

const maxReason = 1024

// reason is the text of its error, whatever that does when it is asked for it.
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

// ack tells that a message is done, again and again while Redis is away: until
// it is told, the message would come again.
func (c *consumer[T]) ack(own context.Context, id string) {
	ctx := context.WithoutCancel(own) // it is done, whatever else ended
	for wait := minRetry; ; wait = min(2*wait, maxRetry) {
		res, err := c.s.b.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
			return []madcrow.Command{
				b.Xack().Key(c.s.logKey()).Group(c.group).Id(id).Build(),
				b.Hdel().Key(c.s.reasonKey(c.group)).Field(id).Build(),
			}
		})
		if err == nil {
			c.trimDue.Store(true)
			c.s.b.event("done", 1)
			if n, _ := res[0].Message.AsInt64(); n == 0 && c.isOvertaken(id) {
				c.uncountLost(ctx)
			}
			return
		}
		if hopelessForWork(err) || !sleep(own, wait) {
			c.s.b.event("ack_lost", 1)
			return
		}
	}
}

// overtaken says whether a sign of life has found that MaxLen overtook a message
// that is worked on here.
func (c *consumer[T]) isOvertaken(id string) bool {
	c.heartbeatMu.Lock() // one that is under way may find it
	defer c.heartbeatMu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held[id]
}

// notLost takes back that a message counts as lost. It is tried once: Lag.Lost may
// be too large, and must not be too small.
func (c *consumer[T]) uncountLost(ctx context.Context) {
	_, _ = c.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Hincrby().Key(c.s.lostKey()).Field(c.group).Increment(-1).Build()
	})
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// rest notes why a message failed and when it may be tried again: its idle time
// is set so that it reaches ClaimAfter then. One that MaxLen overtook is lost.
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
		gone = len(c.renew(own, c.opt.ClaimAfter-delay, why, id)) > 0 // when this fails it is tried again after ClaimAfter
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

// wakeAfter lets a message be tried again.
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

// giveUp puts aside a message that failed here and still is ours, again and again
// while Redis is away: nobody else knows the reason. What Redis goes on refusing is left to
// whoever claims it next, so that other messages do not wait for it.
func (c *consumer[T]) deadLetter(own context.Context, id string, deliveries int64, why string) {
	defer func() {
		if c.isOvertaken(id) {
			c.lostInHand.Add(1)
		}
	}()
	ctx := context.WithoutCancel(own)
	for wait := minRetry; ; wait = min(2*wait, maxRetry) {
		err := c.moveToDead(ctx, id, deliveries, why, 0, c.name)
		refused := errors.Is(err, madcrow.ErrOutOfMemory) || errors.Is(err, madcrow.ErrServer)
		if err == nil || hopelessForWork(err) || isNoGroup(err) || refused && wait == maxRetry || !sleep(own, wait) {
			return
		}
	}
}

// putAside makes a dead letter of a message that is idle for long enough and in
// the hands of a consumer, or of any; the reason is that of the last failure,
// where none is given.
func (c *consumer[T]) moveToDead(ctx context.Context, id string, deliveries int64, why string, idle time.Duration, consumer string) error {
	m, err := c.s.b.r.Eval(ctx, scriptDead, []string{c.s.logKey(), c.s.deadKey(c.group), c.s.reasonKey(c.group), c.s.lostKey()},
		[]string{c.group, id, strconv.FormatInt(deliveries, 10), strconv.Itoa(c.s.opt.MaxDead), why, milliseconds(idle), consumer})
	if err != nil {
		return err
	}
	c.trimDue.Store(true)
	switch n, _ := m.AsInt64(); n {
	case 1:
		c.s.b.event("dead", 1)
	case 2:
		c.lostInHand.Add(1)
	}
	return nil
}
