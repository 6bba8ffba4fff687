package pubsub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
)

// WorkOptions says how messages are worked on. The zero value works.
type WorkOptions struct {
	// Workers is how many messages are worked on at the same time, from 1 to
	// 10,000. Defaults to 8.
	Workers int
	// ClaimAfter is how long a message may be in the hands of a process that
	// shows no sign of life before another one gets it, from 100 ms. A living
	// one keeps it as long as it works. Defaults to 30 seconds.
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

// readBlock is how long a read waits in Redis for new messages.
const readBlock = time.Second

// Work gives every message of the stream to do, in this group, until ctx ends;
// then it waits for those under way, up to DrainTimeout, and returns nil. An
// error of do, or a panic, has the message tried again after RetryDelay, and
// put aside after MaxDeliveries, with the reason. A message that cannot be
// decoded is put aside at once. A message may come twice ([Bus.Once]), and
// after a later one.
//
// It goes on through lost connections. The error is a [*ValidationError], or an
// [*Error] that waiting does not mend.
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
		slots: make(chan struct{}, opt.Workers), look: make(chan struct{}, 1), held: map[string]struct{}{},
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
	slots chan struct{}
	look  chan struct{} // it is time to look for what can be tried again
	busy  sync.WaitGroup

	own context.Context // ends after what runs has had its time

	mu   sync.Mutex
	held map[string]struct{} // ids that are being worked on here
}

func (w *work[T]) run(ctx context.Context) error {
	// What runs is finished after ctx has ended.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	w.own = own
	var tasks sync.WaitGroup
	tasks.Go(func() { w.reclaim(ctx) })
	tasks.Go(func() { w.keepAlive(own) })
	err := w.read(ctx, own)
	done := make(chan struct{})
	go func() {
		w.busy.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(w.opt.DrainTimeout):
	}
	cancel()
	tasks.Wait()
	if err == nil {
		w.leave()
	}
	return w.s.failed("work", err)
}

// read takes new messages as long as there are free workers.
func (w *work[T]) read(ctx, own context.Context) error {
	wait := retryFirst
	for ctx.Err() == nil {
		select {
		case w.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		free := 1
		for free < min(w.opt.Workers, 256) && w.tryTake() {
			free++
		}
		entries, err := w.readGroup(own, free)
		for range free - len(entries) {
			<-w.slots
		}
		for _, e := range entries {
			w.start(own, e, 1)
		}
		if err == nil {
			wait = retryFirst
			continue
		}
		if noGroup(err) {
			err = w.createGroup(own)
		}
		if err != nil && hopelessForWork(err) {
			return err
		}
		if err != nil {
			select {
			case <-time.After(wait/2 + rand.N(wait/2)): //nolint:gosec // no secret
			case <-ctx.Done():
			}
			wait = min(2*wait, retryMost)
		}
	}
	return nil
}

func hopelessForWork(err error) bool {
	return hopeless(err) || errors.Is(err, madcrow.ErrWrongType)
}

func (w *work[T]) tryTake() bool {
	select {
	case w.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (w *work[T]) readGroup(ctx context.Context, n int) ([]rueidis.XRangeEntry, error) {
	m, err := w.s.b.r.DoBlocking(ctx, readBlock, func(b madcrow.Builder) madcrow.Command {
		return b.Xreadgroup().Group(w.group, w.me).Count(int64(n)).Block(readBlock.Milliseconds()).Streams().Key(w.s.log()).Id(">").Build()
	})
	if err != nil || m.IsNil() {
		return nil, err
	}
	streams, err := m.AsXRead()
	if err != nil {
		return nil, errors.Join(errReply, err)
	}
	return streams[w.s.log()], nil
}

func (w *work[T]) createGroup(ctx context.Context) error {
	from := "0"
	if w.opt.FromNow {
		from = "$"
	}
	_, err := w.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.XgroupCreate().Key(w.s.log()).Group(w.group).Id(from).Mkstream().Build()
	})
	var e *madcrow.Error
	if errors.As(err, &e) && e.Kind == madcrow.KindServer {
		return nil // BUSYGROUP: somebody else made it
	}
	return err
}

// start works on a message in a slot that is taken.
func (w *work[T]) start(ctx context.Context, e rueidis.XRangeEntry, deliveries int64) {
	w.mu.Lock()
	w.held[e.ID] = struct{}{}
	w.mu.Unlock()
	w.busy.Go(func() {
		defer func() { <-w.slots }()
		defer w.release(e.ID)
		v, err := w.s.opt.Codec.Decode(e.FieldValues["d"])
		if err != nil {
			w.putAside(ctx, e.ID, deliveries, fmt.Errorf("%w: %w", ErrMalformed, err))
			return
		}
		if err := w.guarded(ctx, Delivery[T]{ID: e.ID, Deliveries: deliveries, Message: v}); err != nil {
			w.release(e.ID) // it must not look alive when it is to be tried again
			w.failed(ctx, e.ID, deliveries, err)
			return
		}
		w.ack(ctx, e.ID)
	})
}

func (w *work[T]) release(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.held, id)
}

func (w *work[T]) guarded(ctx context.Context, d Delivery[T]) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the worker panicked: %v", p)
		}
	}()
	return w.do(ctx, d)
}

// ackTries is how often a message that is done is told to be, while Redis is
// away; after that it will come again.
const ackTries = 10

func (w *work[T]) ack(ctx context.Context, id string) {
	for try := range ackTries {
		_, err := w.s.b.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
			return []madcrow.Command{
				b.Xack().Key(w.s.log()).Group(w.group).Id(id).Build(),
				b.Hdel().Key(w.s.reason(w.group)).Field(id).Build(),
			}
		})
		if err == nil {
			w.s.b.event("done", 1)
			return
		}
		if !pauseFor(ctx, min(retryFirst<<try, retryMost)) {
			return
		}
	}
	w.s.b.event("ack_lost", 1)
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

const maxReason = 1024

// failed notes why, and when the message may be tried again: its idle time is
// set so that it reaches ClaimAfter then.
func (w *work[T]) failed(ctx context.Context, id string, deliveries int64, why error) {
	w.s.b.event("failed", 1)
	if deliveries >= int64(w.opt.MaxDeliveries) {
		w.putAside(ctx, id, deliveries, why)
		return
	}
	delay := min(w.opt.RetryDelay<<min(deliveries-1, 20), w.opt.ClaimAfter)
	if delay <= 0 {
		delay = w.opt.ClaimAfter
	}
	_, _ = w.s.b.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
		return []madcrow.Command{
			b.Hset().Key(w.s.reason(w.group)).FieldValue().FieldValue(id, reasonOf(why)).Build(),
			b.Xclaim().Key(w.s.log()).Group(w.group).Consumer(w.me).MinIdleTime("0").Id(id).Idle((w.opt.ClaimAfter - delay).Milliseconds()).Justid().Build(),
		}
	}) // when this fails it is tried again after ClaimAfter
	time.AfterFunc(delay+time.Millisecond, w.lookNow)
}

func reasonOf(err error) string {
	text := err.Error()
	if len(text) > maxReason {
		text = text[:maxReason]
	}
	return text
}

func (w *work[T]) lookNow() {
	select {
	case w.look <- struct{}{}:
	default:
	}
}

// putAside makes a dead letter of a message.
func (w *work[T]) putAside(ctx context.Context, id string, deliveries int64, why error) {
	if why != nil {
		_, _ = w.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
			return b.Hset().Key(w.s.reason(w.group)).FieldValue().FieldValue(id, reasonOf(why)).Build()
		})
	}
	_, err := w.s.b.r.Eval(ctx, scriptDead, []string{w.s.log(), w.s.dead(w.group), w.s.reason(w.group)},
		[]string{w.group, id, strconv.FormatInt(deliveries, 10), strconv.Itoa(w.s.opt.MaxDead)})
	if err == nil {
		w.s.b.event("dead", 1)
	} // otherwise whoever claims it next finds that it was tried too often
}

// reclaim looks for messages that can be tried again, of this process and of
// those that went away.
func (w *work[T]) reclaim(ctx context.Context) {
	every := max(w.opt.ClaimAfter/4, 50*time.Millisecond)
	for {
		timer := time.NewTimer(every/2 + rand.N(every)) //nolint:gosec // no secret
		select {
		case <-w.look:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
		for w.reclaimPage(ctx) {
		}
	}
}

const claimPage = 100

// reclaimPage claims what is due, and says whether there may be more.
func (w *work[T]) reclaimPage(ctx context.Context) bool {
	m, err := w.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Xpending().Key(w.s.log()).Group(w.group).Idle(w.opt.ClaimAfter.Milliseconds()).Start("-").End("+").Count(claimPage).Build()
	})
	if err != nil {
		return false
	}
	list, err := m.ToArray()
	if err != nil {
		return false
	}
	taken := 0
	for i := range list {
		id, deliveries, ok := readPending(list[i])
		if !ok || w.holds(id) || ctx.Err() != nil {
			continue
		}
		if deliveries >= int64(w.opt.MaxDeliveries) {
			w.putAside(ctx, id, deliveries, nil)
			taken++
			continue
		}
		select {
		case w.slots <- struct{}{}:
		case <-ctx.Done():
			return false
		}
		if w.claim(ctx, id, deliveries+1) {
			taken++
		} else {
			<-w.slots
		}
	}
	return len(list) == claimPage && taken > 0
}

func readPending(m madcrow.Message) (id string, deliveries int64, ok bool) {
	fields, err := m.ToArray()
	if err != nil || len(fields) != 4 {
		return "", 0, false
	}
	id, err1 := fields[0].ToString()
	deliveries, err2 := fields[3].AsInt64()
	return id, deliveries, err1 == nil && err2 == nil
}

func (w *work[T]) holds(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.held[id]
	return ok
}

// claim takes a message over, if it is still due, and works on it.
func (w *work[T]) claim(ctx context.Context, id string, deliveries int64) bool {
	m, err := w.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Xclaim().Key(w.s.log()).Group(w.group).Consumer(w.me).MinIdleTime(strconv.FormatInt(w.opt.ClaimAfter.Milliseconds(), 10)).Id(id).Build()
	})
	if err != nil {
		return false
	}
	entries, err := m.AsXRange()
	if err != nil || len(entries) != 1 {
		return false // another one has it, or the stream does not keep it any more
	}
	w.s.b.event("claimed", 1)
	w.start(w.own, entries[0], deliveries)
	return true
}

// keepAlive shows that what is worked on here is worked on.
func (w *work[T]) keepAlive(ctx context.Context) {
	tick := time.NewTicker(w.opt.ClaimAfter / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		w.mu.Lock()
		ids := make([]string, 0, len(w.held))
		for id := range w.held {
			ids = append(ids, id)
		}
		w.mu.Unlock()
		for len(ids) > 0 {
			part := ids[:min(len(ids), claimPage)]
			ids = ids[len(part):]
			_, _ = w.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
				return b.Xclaim().Key(w.s.log()).Group(w.group).Consumer(w.me).MinIdleTime("0").Id(part...).Justid().Build()
			})
		}
	}
}

// leave removes this consumer, if nothing of its is pending.
func (w *work[T]) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	m, err := w.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Xpending().Key(w.s.log()).Group(w.group).Start("-").End("+").Count(1).Consumer(w.me).Build()
	})
	if err != nil {
		return
	}
	if list, err := m.ToArray(); err == nil && len(list) == 0 {
		_, _ = w.s.b.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
			return b.XgroupDelconsumer().Key(w.s.log()).Group(w.group).Consumername(w.me).Build()
		})
	}
}
