package cache

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/madcrow-go/madcrow"
)

const (
	// pollFirst and pollMost are how often a waiter looks whether another
	// process has loaded, beside what Redis notifies of.
	pollFirst = 25 * time.Millisecond
	pollMost  = 250 * time.Millisecond
)

// heardFailure is a load that failed in another process.
type remoteFailure struct {
	text string
	left time.Duration // until others may try
}

func (e *remoteFailure) Error() string { return ErrLoadFailed.Error() + ": " + e.text }

func (e *remoteFailure) Unwrap() error { return ErrLoadFailed }

// lease takes the right to load. done is true when there is nothing to load:
// another process did, or failed. A lease is taken also where processes load
// for themselves: without it what is stored is not fenced.
func (c *Cache[T]) lease(ctx context.Context, j *job[T]) (res Result[T], done bool, err error) {
	vk := c.valueKey(j.encKey)
	life := c.opt.LeaseTTL
	if life < 0 {
		life = c.opt.LoadTimeout
	}
	for poll := pollFirst; ; poll = min(2*poll, pollMost) {
		wake, unwake := c.watchers.add(vk, vk+leaseSuffix)
		removed := c.removals.hasAny(j.encKey, j.states)
		taken, holder, err := c.tryLease(ctx, j, vk, life)
		if err != nil || taken != nil {
			unwake()
			if err != nil {
				if e := (*madcrow.Error)(nil); !errors.As(err, &e) || e.Outcome != madcrow.OutcomeNotApplied {
					c.releaseLease(j) // perhaps it was taken
				}
				j.away = err
				return res, false, nil
			}
			j.held.Store(true)
			if removed || c.removals.has(j.encKey) {
				return res, false, nil
			}
			return c.taken(ctx, j, *taken)
		}
		if holder.failed {
			unwake()
			return res, true, &remoteFailure{holder.text, max(holder.life, time.Millisecond)}
		}
		if j.batchSlot != nil {
			j.batchSlot.leave() // the others do not wait for this one
		}
		if c.opt.LeaseTTL < 0 {
			unwake()
			j.alone = true
			return res, false, nil
		}
		j.leaveSlot() // waiting is no load
		f, again, err := c.awaitHolder(ctx, j, wake, min(poll, max(holder.life, time.Millisecond)))
		unwake()
		if err == nil && again {
			err = j.takeSlot(ctx)
		}
		switch {
		case err != nil:
			return res, true, err
		case !again:
			return c.loadedElsewhere(f)
		}
	}
}

// releaseLease gives the lease back in the background, when Redis does not answer as
// it should.
func (c *Cache[T]) releaseLease(j *job[T]) {
	j.held.Store(false)
	vk, token := c.valueKey(j.encKey), j.token
	c.background("let go "+token, func(ctx context.Context) {
		_, _ = c.r.Eval(ctx, scriptStore, []string{vk, vk + leaseSuffix}, []string{token, "drop"})
	})
}

// holder is another process that has the lease, or whose load failed.
type holder struct {
	failed bool
	text   string
	life   time.Duration
}

// tryLease asks once. taken is the value that is there by now, when it was
// taken.
func (c *Cache[T]) tryLease(ctx context.Context, j *job[T], vk string, life time.Duration) (taken *madcrow.Tracked, h holder, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.ReadTimeout)
	defer cancel()
	var m madcrow.Message
	err = c.r.SplitKeys(ctx, vk, func(ctx context.Context) error {
		m, err = c.r.Eval(ctx, scriptLease, []string{vk, vk + leaseSuffix}, []string{j.token, millis(life)})
		return err
	}, nil) // while its slot is being moved, a value is loaded without a lease
	if err != nil {
		return nil, h, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) < 2 {
		return nil, h, errors.Join(errReply, err)
	}
	what, err := list[0].AsInt64()
	if err != nil {
		return nil, h, errors.Join(errReply, err)
	}
	last, err := list[len(list)-1].AsInt64()
	if err != nil {
		return nil, h, errors.Join(errReply, err)
	}
	left := time.Duration(last) * time.Millisecond
	switch what {
	case 1:
		return &madcrow.Tracked{Message: list[1], TTL: left}, h, nil
	case 2:
		h.failed = true
		h.text, _ = list[1].ToString()
	}
	h.life = left
	return nil, h, nil
}

var errReply = errors.New("the script returned an unexpected reply")

// taken uses what another process stored just before the lease was ours.
func (c *Cache[T]) taken(ctx context.Context, j *job[T], got madcrow.Tracked) (res Result[T], done bool, err error) {
	seen := c.tags.changes.Load()
	f, marked, ok := c.decode(got, nil)
	j.there = f
	if !ok || f.State != Fresh || !j.newer(f) {
		return res, false, nil
	}
	gens, err := c.tags.fetch(ctx, c.opt.ReadTimeout, 0, j.states)
	if err != nil {
		return res, false, nil //nolint:nilerr // then it is loaded
	}
	if err := c.judge(ctx, &f, marked, slices.Clip(j.states), gens); err != nil || f.State != Fresh {
		return res, false, nil //nolint:nilerr // as above
	}
	if !c.flights.found(j.flight, func() bool { return c.tags.still(f.tags, seen) }) {
		return res, false, nil
	}
	c.end(ctx, j, "drop")
	return c.loadedElsewhere(f)
}

// newer says whether what was found is not what there was when the load was
// asked for, because it was soon to end. Ages are true to a millisecond or so.
func (j *job[T]) newer(f Found[T]) bool { return !j.old.refresh || f.Age < j.old.Age/2 }

// loadedElsewhere is the result of a load by another process.
func (c *Cache[T]) loadedElsewhere(f Found[T]) (Result[T], bool, error) {
	res := c.served(f)
	if f.negative {
		return res, true, ErrNotFound
	}
	return res, true, nil
}

// awaitHolder waits until something happens to the value or the lease. again is
// true when it is worth another try.
func (c *Cache[T]) awaitHolder(ctx context.Context, j *job[T], wake chan struct{}, poll time.Duration) (f Found[T], again bool, err error) {
	// This also has Redis tell of changes to both.
	c.r.GetTracked(ctx, c.opt.ReadTimeout, c.valueKey(j.encKey)+leaseSuffix)
	seen := c.tags.changes.Load()
	f, err = c.read(ctx, j.encKey, j.ca)
	if err == nil && f.State == Fresh && j.newer(f) && c.flights.found(j.flight, func() bool { return c.tags.still(f.tags, seen) }) {
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

// watchAfter is how long a load runs before it is looked after.
const watchAfter = 5 * time.Millisecond

// hold prolongs the lease while the load runs, and hears when it is taken away:
// what is being loaded is then older than a change, and no one who comes later
// shall share it.
func (c *Cache[T]) hold(ctx context.Context, j *job[T]) (stop func()) {
	if j.away != nil || !j.held.Load() {
		return func() {}
	}
	ctx, stop = context.WithCancel(ctx)
	go func() {
		start := time.NewTimer(watchAfter)
		defer start.Stop()
		select {
		case <-start.C:
			c.watch(ctx, j)
		case <-ctx.Done():
		}
	}()
	return stop
}

func (c *Cache[T]) watch(ctx context.Context, j *job[T]) {
	key := c.valueKey(j.encKey) + leaseSuffix
	wake, unwake := c.watchers.add(key)
	defer unwake()
	every := c.opt.LeaseTTL / 3
	if c.opt.LeaseTTL < 0 { // it is not prolonged, only looked at
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	look := time.NewTicker(c.opt.NearTTL) // for where Redis does not notify
	defer look.Stop()
	for {
		got := c.r.GetTracked(ctx, c.opt.ReadTimeout, key)[0]
		if holder, err := got.Message.ToString(); got.Err == nil && (err != nil || holder != j.token) {
			c.flights.detach(j.flight)
			return
		}
		if got.Err == nil && got.Tracking != nil {
			look.Stop()
		}
		select {
		case <-wake:
		case <-look.C:
		case <-tick.C:
			if c.opt.LeaseTTL > 0 {
				_, _ = c.r.Eval(ctx, scriptRenew, []string{key}, []string{j.token, millis(c.opt.LeaseTTL)})
			}
		case <-ctx.Done():
			return
		}
	}
}
