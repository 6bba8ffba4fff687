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
	w := &work[T]{
		s: s, group: group, opt: opt, do: do, me: s.b.node + "-" + strconv.FormatUint(rand.Uint64(), 36), //nolint:gosec // a name
		slots: make(chan struct{}, opt.Workers), look: make(chan struct{}, 1),
		held: map[string]bool{}, resting: map[string]struct{}{},
		fit: firstPage,
	}
	return w.run(ctx)
}

// work is one call of Work.
type work[T any] struct {
	s     *Stream[T]
	group string
	me    string // the consumer's name
	opt   WorkOptions
	do    func(context.Context, Delivery[T]) error
	slots chan struct{} // as many as Workers; each message under way has one
	look  chan struct{} // it is time to look for what can be tried again
	busy  sync.WaitGroup

	// A sign of life must not come after the end of what it is for.
	beat sync.Mutex

	panics guard.Said
	did    atomic.Bool  // something is done since it was last trimmed
	gone   atomic.Int64 // what was lost in hand, and is not told yet

	mu      sync.Mutex
	held    map[string]bool     // ids that are being worked on here; true: MaxLen overtook it, which is counted
	resting map[string]struct{} // ids that failed here and are tried again later

	// Of the reader alone.
	looks, sweeps time.Time // when it looks for what is due, and for dead consumers
	strays        time.Time // until when messages may be ours that we never saw
	safe          time.Time // until when MaxLen cannot have overtaken the group
	trims         time.Time // when it trims next
	fit           int       // how many messages may come before other calls
	losing        bool      // the group loses messages, which was said
	lost          int       // how many since then
	lostAt        time.Time
}

func (w *work[T]) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(w.s.b.life, stop)()
	// What runs is finished after ctx has ended.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var alive sync.WaitGroup
	alive.Go(func() { w.keepAlive(own) })
	err := w.read(ctx, own)
	done := make(chan struct{})
	go func() {
		w.busy.Wait()
		close(done)
	}()
	late := time.NewTimer(w.opt.DrainTimeout)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
	}
	cancel()
	alive.Wait()
	w.sayLost(int(w.gone.Swap(0)))
	if err == nil {
		w.leave()
		if w.s.b.life.Err() != nil {
			err = ErrClosed
		}
	}
	return w.s.failed("work", err)
}

// read takes messages as long as there are free workers: first those that are
// due again, then new ones.
func (w *work[T]) read(ctx, own context.Context) error {
	wait := retryFirst
	w.looks = time.Now().Add(rand.N(w.opt.ClaimAfter / 4)) //nolint:gosec // no secret
	w.sweeps = time.Now().Add(rand.N(sweepEvery))          //nolint:gosec // no secret
	for {
		free := w.free(ctx)
		if free == 0 {
			return nil
		}
		err := w.round(ctx, own, free)
		switch {
		case err == nil:
			wait = retryFirst
		case hopelessForWork(err):
			return err
		case !pauseFor(ctx, wait/2+rand.N(wait/2)): //nolint:gosec // no secret
			return nil
		default:
			wait = min(2*wait, retryMost)
		}
	}
}

// mostRead is how many messages are read at once.
const mostRead = 256

// free takes the slots of the workers that are free, once there is one; 0 is
// the end of ctx.
func (w *work[T]) free(ctx context.Context) (n int) {
	if ctx.Err() != nil {
		return 0
	}
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	for n = 1; n < min(w.opt.Workers, mostRead); n++ {
		select {
		case w.slots <- struct{}{}:
		default:
			return n
		}
	}
	return n
}

// round fills the free slots once, and gives back what it does not need.
func (w *work[T]) round(ctx, own context.Context, free int) (err error) {
	defer func() {
		for range free {
			<-w.slots
		}
	}()
	w.sayLost(int(w.gone.Swap(0)))
	if err := w.s.b.knowStreams(ctx, w.s.log()); err != nil {
		return err
	}
	if now := time.Now(); now.After(w.sweeps) {
		w.sweeps = now.Add(sweepEvery/2 + rand.N(sweepEvery)) //nolint:gosec // no secret
		w.sweep(ctx)
	}
	if !w.strays.IsZero() {
		last := time.Now().After(w.strays)
		if free, err = w.adopt(own, free); err != nil {
			return err
		}
		if last {
			w.strays = time.Time{}
		}
	}
	if w.isTime() {
		if free, err = w.reclaim(ctx, own, free); err != nil {
			return err
		}
	}
	if free == 0 || ctx.Err() != nil {
		return nil
	}
	entries, err := w.take(own, free)
	for _, e := range entries {
		free--
		w.start(own, e, 1)
	}
	switch {
	case err == nil:
		w.opt.FromNow = false // if the group is lost now, what is there later is new
		return nil
	case noGroup(err):
		return w.createGroup(own)
	}
	w.mayStray(err)
	return err
}

// isTime says whether it is time to look for what is due again.
func (w *work[T]) isTime() bool {
	now := time.Now()
	select {
	case <-w.look:
	default:
		if now.Before(w.looks) {
			return false
		}
	}
	every := max(w.opt.ClaimAfter/4, 50*time.Millisecond)
	w.looks = now.Add(every/2 + rand.N(every)) //nolint:gosec // no secret
	return true
}

func hopelessForWork(err error) bool {
	return hopeless(err) || errors.Is(err, madcrow.ErrWrongType) || errors.Is(err, ErrTooOld)
}

// block is how long to wait for new messages: not past the next look, and while
// something may fail here and be due soon, not past that.
func (w *work[T]) block() time.Duration {
	d := min(readBlock, time.Until(w.looks))
	w.mu.Lock()
	if len(w.held)+len(w.resting) > 0 {
		d = min(d, max(w.opt.RetryDelay, 50*time.Millisecond))
	}
	w.mu.Unlock()
	return max(d, time.Millisecond).Truncate(time.Millisecond) // 0 would be for ever
}

func (w *work[T]) readGroup(ctx context.Context, n int) ([]rueidis.XRangeEntry, error) {
	block := w.block()
	m, err := w.s.b.r.DoBlocking(ctx, block, func(b madcrow.Builder) madcrow.Command {
		return b.Xreadgroup().Group(w.group, w.me).Count(int64(n)).Block(block.Milliseconds()).Streams().Key(w.s.log()).Id(">").Build()
	})
	if err != nil || m.IsNil() {
		return nil, err
	}
	streams, err := m.AsXRead()
	if err != nil {
		return nil, errors.Join(errReply, err)
	}
	entries := streams[w.s.log()]
	w.sized(entries)
	return entries, nil
}

// createGroup makes the group that a read did not find. When another one was
// faster, that is an error, and read pauses.
func (w *work[T]) createGroup(ctx context.Context) error {
	from := "0"
	if w.opt.FromNow {
		from = "$"
	}
	_, err := w.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.XgroupCreate().Key(w.s.log()).Group(w.group).Id(from).Mkstream().Build()
	})
	return err
}

// start works on a message in a slot that is taken.
func (w *work[T]) start(own context.Context, e rueidis.XRangeEntry, deliveries int64) {
	w.mu.Lock()
	w.held[e.ID] = false
	delete(w.resting, e.ID)
	w.mu.Unlock()
	w.busy.Go(func() {
		defer func() { <-w.slots }()
		a := attempt{malformed: true, err: guard.ErrGoexit}
		defer func() { // also where the function ends this goroutine
			if p := recover(); p != nil {
				a.err = guard.Recovered(p)
			}
			w.settle(own, e.ID, deliveries, a)
		}()
		w.attempt(own, e, deliveries, &a)
	})
}

// attempt is what became of one try.
type attempt struct {
	malformed bool // it cannot be decoded
	err       error
}

// settle tells Redis what became of a try. Whatever happens, the message does
// not stay in hands that are empty.
func (w *work[T]) settle(own context.Context, id string, deliveries int64, a attempt) {
	rests := false
	defer func() {
		if !rests {
			w.release(id)
		}
	}()
	why := a.reason()
	// Not by errors.As: the error may be the user's, with methods that panic.
	if p, ok := a.err.(*guard.Panic); ok && w.panics.First(why) { //nolint:errorlint // it is ours, as it is
		w.s.b.log.Error("a message made its worker panic", "stream", w.s.name, "group", w.group, "id", id, "reason", why, "stack", p.Stack)
	}
	switch {
	case a.err == nil:
		w.ack(own, id)
	case a.malformed || deliveries >= int64(w.opt.MaxDeliveries):
		w.s.b.event("failed", 1)
		w.giveUp(own, id, deliveries, why)
	default:
		w.s.b.event("failed", 1)
		rests = true
		w.rest(own, id, deliveries, why)
	}
}

func (w *work[T]) release(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.held, id)
}

var errNoMessage = errors.New("it has no field d")

func (w *work[T]) attempt(ctx context.Context, e rueidis.XRangeEntry, deliveries int64, a *attempt) {
	text, ok := e.FieldValues["d"]
	if !ok {
		a.err = errNoMessage
		return
	}
	v, err := w.s.opt.Codec.Decode(text)
	if err != nil {
		a.err = err
		return
	}
	a.malformed = false
	a.err = w.do(ctx, Delivery[T]{ID: e.ID, Deliveries: deliveries, Message: v})
}

const maxReason = 1024

// reason is the text of its error, whatever that does when it is asked for it.
func (a attempt) reason() string {
	if a.err == nil {
		return ""
	}
	text := guard.Text(a.err)
	if a.malformed {
		text = ErrMalformed.Error() + ": " + text
	} else if a.err == guard.ErrGoexit { //nolint:errorlint // our own value
		text = "the worker: " + text
	}
	return text[:min(len(text), maxReason)]
}

// ack tells that a message is done, again and again while Redis is away: until
// it is told, the message would come again.
func (w *work[T]) ack(own context.Context, id string) {
	ctx := context.WithoutCancel(own) // it is done, whatever else ended
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		res, err := w.s.b.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
			return []madcrow.Command{
				b.Xack().Key(w.s.log()).Group(w.group).Id(id).Build(),
				b.Hdel().Key(w.s.reason(w.group)).Field(id).Build(),
			}
		})
		if err == nil {
			w.did.Store(true)
			w.s.b.event("done", 1)
			if n, _ := res[0].Message.AsInt64(); n == 0 && w.overtaken(id) {
				w.notLost(ctx)
			}
			return
		}
		if hopelessForWork(err) || !pauseFor(own, wait) {
			w.s.b.event("ack_lost", 1)
			return
		}
	}
}

// overtaken says whether a sign of life has found that MaxLen overtook a message
// that is worked on here.
func (w *work[T]) overtaken(id string) bool {
	w.beat.Lock() // one that is under way may find it
	defer w.beat.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held[id]
}

// notLost takes back that a message counts as lost. It is tried once: Lag.Lost may
// be too large, and must not be too small.
func (w *work[T]) notLost(ctx context.Context) {
	_, _ = w.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Hincrby().Key(w.s.lost()).Field(w.group).Increment(-1).Build()
	})
}

func pauseFor(ctx context.Context, d time.Duration) bool {
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
func (w *work[T]) rest(own context.Context, id string, deliveries int64, why string) {
	delay := w.opt.RetryDelay << min(deliveries-1, 20)
	if delay <= 0 || delay > w.opt.ClaimAfter {
		delay = w.opt.ClaimAfter
	}
	w.beat.Lock()
	defer w.beat.Unlock()
	w.mu.Lock()
	gone := w.held[id]
	delete(w.held, id)
	w.resting[id] = struct{}{}
	w.mu.Unlock()
	if !gone {
		gone = len(w.keep(own, w.opt.ClaimAfter-delay, why, id)) > 0 // when this fails it is tried again after ClaimAfter
	}
	if gone {
		w.gone.Add(1)
		w.mu.Lock()
		delete(w.resting, id)
		w.mu.Unlock()
		return
	}
	w.wakeAfter(delay+time.Millisecond, id)
}

// wakeAfter lets a message be tried again.
func (w *work[T]) wakeAfter(d time.Duration, id string) {
	time.AfterFunc(d, func() {
		w.mu.Lock()
		delete(w.resting, id)
		w.mu.Unlock()
		select {
		case w.look <- struct{}{}:
		default:
		}
	})
}

// giveUp puts aside a message that failed here and still is ours, again and again
// while Redis is away: nobody else knows the reason. What Redis goes on refusing is left to
// whoever claims it next, so that other messages do not wait for it.
func (w *work[T]) giveUp(own context.Context, id string, deliveries int64, why string) {
	defer func() {
		if w.overtaken(id) {
			w.gone.Add(1)
		}
	}()
	ctx := context.WithoutCancel(own)
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := w.putAside(ctx, id, deliveries, why, 0, w.me)
		refused := errors.Is(err, madcrow.ErrOutOfMemory) || errors.Is(err, madcrow.ErrServer)
		if err == nil || hopelessForWork(err) || noGroup(err) || refused && wait == retryMost || !pauseFor(own, wait) {
			return
		}
	}
}

// putAside makes a dead letter of a message that is idle for long enough and in
// the hands of a consumer, or of any; the reason is that of the last failure,
// where none is given.
func (w *work[T]) putAside(ctx context.Context, id string, deliveries int64, why string, idle time.Duration, consumer string) error {
	m, err := w.s.b.r.Eval(ctx, scriptDead, []string{w.s.log(), w.s.dead(w.group), w.s.reason(w.group), w.s.lost()},
		[]string{w.group, id, strconv.FormatInt(deliveries, 10), strconv.Itoa(w.s.opt.MaxDead), why, milliseconds(idle), consumer})
	if err != nil {
		return err
	}
	w.did.Store(true)
	switch n, _ := m.AsInt64(); n {
	case 1:
		w.s.b.event("dead", 1)
	case 2:
		w.gone.Add(1)
	}
	return nil
}
