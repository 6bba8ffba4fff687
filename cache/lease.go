package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/madcrow-go/madcrow"
)

const (
	// pollFirst and pollMost are how often a waiter looks whether another
	// process has loaded, beside what Redis tells.
	pollFirst = 25 * time.Millisecond
	pollMost  = 250 * time.Millisecond
)

// lease takes the right to load. done is true when there is nothing to load:
// another process did, or failed. A lease is taken also where processes load
// for themselves: without it what is stored is not fenced.
func (c *Cache[T]) lease(ctx context.Context, j *job[T]) (res Result[T], done bool, err error) {
	j.token = newToken()
	vk := c.valueKey(j.form)
	life := c.opt.LeaseTTL
	if life < 0 {
		life = c.opt.LoadTimeout
	}
	for poll := pollFirst; ; poll = min(2*poll, pollMost) {
		wake, unwake := c.wakes.add(vk, vk+leaseSuffix)
		taken, holder, err := c.tryLease(ctx, j, vk, life)
		if err != nil || taken != nil {
			unwake()
			if err != nil {
				j.degraded = err
				return res, false, nil
			}
			return c.taken(ctx, j, *taken)
		}
		if holder.failed {
			unwake()
			return res, true, fmt.Errorf("%w: %s", ErrLoadFailed, holder.text)
		}
		if j.seat != nil {
			j.seat.leave() // the others do not wait for this one
		}
		if c.opt.LeaseTTL < 0 {
			unwake()
			j.token = "" // loads without a lease, and does not store
			return res, false, nil
		}
		f, again, err := c.awaitHolder(ctx, j, wake, min(poll, max(holder.life, time.Millisecond)))
		unwake()
		switch {
		case err != nil:
			return res, true, err
		case !again:
			return c.loadedElsewhere(f)
		}
	}
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
	m, err := c.r.Eval(ctx, scriptLease, []string{vk, vk + leaseSuffix}, []string{j.token, millis(life)})
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
	f, marked, ok := c.decode(got)
	if !ok || f.state != isFresh || j.old.refresh && f.ttl <= j.old.ttl {
		return res, false, nil
	}
	gens, err := c.tags.fetch(ctx, c.opt.ReadTimeout, 0, j.states)
	if err != nil {
		return res, false, nil //nolint:nilerr // then it is loaded
	}
	if _, err := c.judge(ctx, &f, marked, j.states, gens); err != nil || f.state != isFresh {
		return res, false, nil //nolint:nilerr // as above
	}
	c.end(ctx, j, "drop")
	return c.loadedElsewhere(f)
}

// loadedElsewhere is the result of a load by another process.
func (c *Cache[T]) loadedElsewhere(f found[T]) (Result[T], bool, error) {
	res := c.served(f)
	if f.negative {
		return res, true, ErrNotFound
	}
	return res, true, nil
}

// awaitHolder waits until something happens to the value or the lease. again is
// true when it is worth another try.
func (c *Cache[T]) awaitHolder(ctx context.Context, j *job[T], wake chan struct{}, poll time.Duration) (f found[T], again bool, err error) {
	vk := c.valueKey(j.form)
	// This also has Redis tell of changes to both.
	c.r.GetTracked(ctx, c.opt.ReadTimeout, vk+leaseSuffix)
	f, err = c.read(ctx, j.form, j.ca)
	if err == nil && f.state == isFresh && !(j.old.refresh && f.ttl <= j.old.ttl) {
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

// renew prolongs the lease while the load runs.
func (c *Cache[T]) renew(ctx context.Context, j *job[T]) (stop func()) {
	if j.degraded != nil || j.token == "" || c.opt.LeaseTTL < 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(c.opt.LeaseTTL / 3)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = c.r.Eval(ctx, scriptRenew, []string{c.valueKey(j.form) + leaseSuffix}, []string{j.token, millis(c.opt.LeaseTTL)})
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
