package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/lease"
)

// loadLease is the right to load a key, of all processes. Without it nothing is
// stored: a change of the value takes it away (a fence).
type loadLease struct {
	valueKey, key string // in Redis
	encKey        string
	token         string
	held          atomic.Bool // it is held, or may be
}

const leaseSuffix = ":lease"

func (c *Cache[T]) newLease(encKey string) loadLease {
	vk := c.valueKey(encKey)
	return loadLease{valueKey: vk, key: vk + leaseSuffix, encKey: encKey, token: rand.Text()}
}

const (
	// pollFirst and pollMost are how often a waiter asks whether another process has
	// loaded, beside the notifications of Redis.
	pollFirst = 25 * time.Millisecond
	pollMost  = 250 * time.Millisecond
)

// remoteFailure is a load that failed in another process.
type remoteFailure struct {
	text string
	left time.Duration // until others may try
}

func (e *remoteFailure) Error() string { return ErrLoadFailed.Error() + ": " + e.text }

func (e *remoteFailure) Unwrap() error { return ErrLoadFailed }

// acquire gets the lease, or waits for the process that has it. done is true when
// there is nothing to load: another process did, or failed. The lease is acquired
// also where each process loads for itself (LeaseTTL -1), to fence what is stored.
func (l *loader[T]) acquire(ctx context.Context) (res Result[T], done bool, err error) {
	c := l.c
	for poll := pollFirst; ; poll = min(2*poll, pollMost) {
		wake, unwatch := c.watchers.add(l.lease.valueKey, l.lease.key)
		removed := c.removals.hasAny(l.req.encKey, l.req.states)
		reply, err := c.tryLease(ctx, &l.lease)
		switch {
		case err != nil:
			unwatch()
			if e := (*madcrow.Error)(nil); !errors.As(err, &e) || e.Outcome != madcrow.OutcomeNotApplied {
				c.giveUp(&l.lease) // perhaps it was acquired
			}
			l.away = err
			return res, false, nil
		case reply.state == leaseAcquired:
			unwatch()
			l.lease.held.Store(true)
			if removed || c.removals.has(l.req.encKey) {
				return res, false, nil
			}
			return l.adopt(ctx, reply.value)
		case reply.state == leaseFailed:
			unwatch()
			return res, true, &remoteFailure{reply.text, reply.left}
		}
		if l.batch != nil {
			l.batch.leave() // the others do not wait for this one
		}
		if c.opt.LeaseTTL < 0 { // it loads without a lease, and does not store
			unwatch()
			return res, false, nil
		}
		l.leaveSlot() // waiting is no load
		f, again, err := l.awaitHolder(ctx, wake, min(poll, reply.left))
		unwatch()
		if err == nil && again {
			err = l.takeSlot(ctx)
		}
		switch {
		case err != nil:
			return res, true, err
		case !again:
			return c.loadedElsewhere(ctx, f)
		}
	}
}

// leaseState is what a try for a lease found.
type leaseState uint8

const (
	leaseHeld     leaseState = iota // another process has it
	leaseAcquired                   // it is ours
	leaseFailed                     // the load of another process has just failed
)

// leaseReply is the reply to a try.
type leaseReply struct {
	state leaseState
	value madcrow.Tracked // what is stored, of an acquired one
	text  string          // of a failed one
	left  time.Duration   // of the one that another process has, or of the failure
}

// tryLease asks once.
func (c *Cache[T]) tryLease(ctx context.Context, l *loadLease) (reply leaseReply, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.ReadTimeout)
	defer cancel()
	life := c.opt.LeaseTTL
	if life < 0 {
		life = c.opt.LoadTimeout
	}
	var m madcrow.Message
	err = c.r.SplitKeys(ctx, l.valueKey, func(ctx context.Context) error {
		m, err = c.r.Eval(ctx, scriptLease, []string{l.valueKey, l.key}, []string{l.token, millis(life)}).Message()
		return err
	}, nil) // while its slot is being moved, a value is loaded without a lease
	if err != nil {
		return reply, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) < 2 {
		return reply, errors.Join(errReply, err)
	}
	state, err := list[0].AsInt64()
	if err != nil {
		return reply, errors.Join(errReply, err)
	}
	last, err := list[len(list)-1].AsInt64()
	if err != nil {
		return reply, errors.Join(errReply, err)
	}
	reply.state, reply.left = leaseState(state), time.Duration(last)*time.Millisecond //nolint:gosec // 0 to 2
	switch reply.state {
	case leaseAcquired:
		reply.value = madcrow.Tracked{Message: list[1], TTL: reply.left}
		return reply, nil
	case leaseFailed:
		reply.text, _ = list[1].ToString()
	}
	reply.left = max(reply.left, time.Millisecond)
	return reply, nil
}

var errReply = errors.New("the script returned an unexpected reply")

// adopt uses a value that another process stored just before the lease was ours.
func (l *loader[T]) adopt(ctx context.Context, got madcrow.Tracked) (res Result[T], done bool, err error) {
	c := l.c
	seen := c.tags.changes.Load()
	f, marked, ok := c.decode(ctx, got, nil)
	l.atLease = f
	if !ok || f.State != Fresh || !l.newer(f) {
		return res, false, nil
	}
	gens, err := c.tags.fetch(ctx, c.opt.ReadTimeout, 0, l.req.states)
	if err != nil {
		return res, false, nil //nolint:nilerr // then it is loaded
	}
	if err := c.applyTags(ctx, &f, marked, slices.Clip(l.req.states), gens); err != nil || f.State != Fresh {
		return res, false, nil //nolint:nilerr // as above
	}
	if !l.shareEnds(f, seen) {
		return res, false, nil
	}
	res, done, err = c.loadedElsewhere(ctx, f)
	l.end(ctx, res, err, leaseDrop{})
	return res, done, err
}

// shareEnds ends the sharing of the flight, which brings what was found in Redis,
// if that still holds; seen is what changes was before.
func (l *loader[T]) shareEnds(f Found[T], seen uint64) bool {
	return l.c.flights.detachIf(l.flight, func() bool { return l.c.tags.still(f.tags, seen) })
}

// loadedElsewhere is the result of a load by another process.
func (c *Cache[T]) loadedElsewhere(ctx context.Context, f Found[T]) (Result[T], bool, error) {
	res := c.served(ctx, f)
	if f.negative {
		return res, true, ErrNotFound
	}
	return res, true, nil
}

// awaitHolder waits until the value or the lease changes. again is true when
// another try for the lease is due.
func (l *loader[T]) awaitHolder(ctx context.Context, wake chan struct{}, poll time.Duration) (f Found[T], again bool, err error) {
	c := l.c
	c.r.GetTracked(ctx, []string{l.lease.key}, madcrow.Timeout(c.opt.ReadTimeout)) // from now on Redis notifies of changes of the lease
	seen := c.tags.changes.Load()
	f, err = c.read(ctx, l.req)
	if err == nil && f.State == Fresh && l.newer(f) && l.shareEnds(f, seen) {
		return f, false, nil
	}
	timer := time.NewTimer(poll)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
		return f, false, ErrLoadTimeout
	}
	return f, true, nil
}

// watchAfter is how long a load runs before its lease is watched.
const watchAfter = 5 * time.Millisecond

// watch renews the lease while the load runs, and notices when it is taken away:
// what is being loaded is then older than a change, and callers that come later
// must not share it.
func (l *loader[T]) watch(ctx context.Context) (stop func()) {
	if l.away != nil || !l.lease.held.Load() {
		return func() {}
	}
	c := l.c
	every := time.Second // where each process loads for itself, the lease is only read
	if c.opt.LeaseTTL > 0 {
		every = c.opt.LeaseTTL / 3
	}
	w := &leaseWatch{
		r: c.r, key: l.lease.key, token: l.lease.token,
		life: c.opt.LeaseTTL, every: every - watchAfter, timeout: c.opt.ReadTimeout, renewed: time.Now(),
	}
	kept := lease.Keep(ctx, time.Now(), lease.Options{
		// No TTL: only Redis can say that the lease is lost.
		Every: min(every, c.opt.NearTTL), // NearTTL: for where Redis does not notify
		First: watchAfter,
		Known: w.isHeld,
		Renew: w.check,
		Lost:  func() { c.flights.detach(l.flight) },
		Wake:  func() (<-chan struct{}, func()) { return c.watchers.add(l.lease.key) },
	})
	return kept.Stop
}

// leaseWatch renews the lease of one load, and reads it, so that Redis notifies of
// its changes. While Redis is away the lease counts as held: the callers of this
// process go on sharing the load, and what it stores is fenced. One goroutine, that
// of lease.Keep, owns what changes.
type leaseWatch struct {
	r              *madcrow.Redis
	key, token     string
	life           time.Duration // -1: the lease is not renewed
	every, timeout time.Duration // between two renewals; of a call

	renewed  time.Time         // when the last renewal that succeeded was sent
	tracking *madcrow.Tracking // of the last read
}

func (w *leaseWatch) isDue() bool { return w.life > 0 && time.Since(w.renewed) >= w.every }

// isHeld says that Redis has notified of no change since the last read.
func (w *leaseWatch) isHeld() bool { return w.tracking.Valid() && !w.isDue() }

// check renews the lease when that is due, and reads it.
func (w *leaseWatch) check(ctx context.Context) (held bool, err error) {
	if w.isDue() {
		// First, and whatever reads say: after a stall not much of the lease is left.
		if held, err := w.renew(ctx); err != nil || !held {
			return held, err
		}
	}
	got := w.r.GetTracked(ctx, []string{w.key}, madcrow.Timeout(w.timeout))[0]
	w.tracking = got.Tracking
	if got.Err != nil {
		return true, nil
	}
	holder, err := got.Message.ToString()
	return err == nil && holder == w.token, nil //nolint:nilerr // no lease is another's
}

func (w *leaseWatch) renew(ctx context.Context) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	now := time.Now()
	m, err := w.r.Eval(ctx, scriptRenew, []string{w.key}, []string{w.token, millis(w.life)}).Message()
	if err != nil {
		return false, err
	}
	n, err := m.AsInt64()
	if err != nil {
		return false, err
	}
	w.renewed = now
	return n == 1, nil
}

// leaseEnd is a way to end a lease, with its arguments as store.lua knows them.
type leaseEnd interface {
	args() []string
	changesValue() bool
}

type (
	// leaseStore stores the value that was loaded.
	leaseStore struct {
		entry string
		life  time.Duration
	}
	// leaseRemove removes the value: the loader says that there is none.
	leaseRemove struct{}
	// leaseDrop leaves the value as it is.
	leaseDrop struct{}
	// leaseFail leaves the failure in the place of the lease, for others to wait.
	leaseFail struct {
		text    string
		backoff time.Duration
	}
)

func (e leaseStore) args() []string { return []string{"set", e.entry, millis(e.life)} }
func (leaseRemove) args() []string  { return []string{"remove"} }
func (leaseDrop) args() []string    { return []string{"drop"} }
func (e leaseFail) args() []string  { return []string{"fail", e.text, millis(e.backoff)} }

func (leaseStore) changesValue() bool  { return true }
func (leaseRemove) changesValue() bool { return true }
func (leaseDrop) changesValue() bool   { return false }
func (leaseFail) changesValue() bool   { return false }

// leaseEndTimeout bounds the end of a lease. The load may have used up its own
// time; what it brought is still wanted.
const leaseEndTimeout = time.Second

// endLease ends a lease that is held, in the given way.
func (c *Cache[T]) endLease(ctx context.Context, l *loadLease, how leaseEnd) {
	if !l.held.Load() || c.removals.has(l.encKey) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseEndTimeout)
	defer cancel()
	m, err := c.r.Eval(ctx, scriptStore, []string{l.valueKey, l.key}, append([]string{l.token}, how.args()...)).Message()
	if how.changesValue() {
		c.near.Drop(l.encKey) // it is older than what somebody may have seen
	}
	if _, stores := how.(leaseStore); stores && errors.Is(err, madcrow.ErrTooLarge) { // it was not sent
		c.eventOf(ctx, madcrow.EventCacheTooLarge, err)
		c.endLease(ctx, l, leaseDrop{})
		return
	}
	if err != nil {
		c.eventOf(ctx, madcrow.EventCacheStoreError, err)
		return
	}
	if n, _ := m.AsInt64(); n == 0 {
		c.event(ctx, madcrow.EventCacheFenced)
	}
}

// giveUp drops a lease in the background: Redis does not answer as it should.
func (c *Cache[T]) giveUp(l *loadLease) {
	l.held.Store(false)
	keys, args := []string{l.valueKey, l.key}, append([]string{l.token}, leaseDrop{}.args()...)
	c.background("give up "+l.token, func(ctx context.Context) {
		_ = c.r.Eval(ctx, scriptStore, keys, args).Err()
	})
}
