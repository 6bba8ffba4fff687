package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// loader is one load of one key: it acquires the lease, calls the user's loader,
// and commits what that brings or abandons the lease. One goroutine runs it, and
// owns what changes; flights and the watch of the lease see their own parts.
type loader[T any] struct {
	c       *Cache[T]
	req     request
	load    func(context.Context, *Load[T]) (T, error)
	old     Found[T]      // what there was before
	readErr error         // why Redis could not be asked for it
	batch   *batchSlot[T] // in a GetOrLoadMany; nil for a load of one key
	// staleFor is for how long the caller has a stale value that is not old.
	staleFor time.Duration

	flight  *flight[T]      // set where this load leads, as the next two
	ctx     context.Context // of the load
	since   time.Time       // when it began
	lease   loadLease
	away    error    // why Redis has no part in the load
	atLease Found[T] // what Redis had when the lease was acquired
	gens    []*tagGen
	slot    bool // it has one of Options.MaxLoads
	left    sync.Once
}

// graceAfterLoad is how long a loader has to heed its deadline.
const graceAfterLoad = 5 * time.Millisecond

// lead starts the goroutine of a load. When the loader does not heed its deadline
// the flight ends without it.
func (l *loader[T]) lead(ctx context.Context, fl *flight[T]) {
	c := l.c
	l.flight, l.lease = fl, c.newLease(l.req.encKey)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.opt.LoadTimeout)
	unhook := context.AfterFunc(c.life, cancel)
	returned := make(chan struct{})
	l.ctx, l.since = ctx, time.Now()
	watched := context.AfterFunc(ctx, func() {
		select {
		case <-returned:
		case <-time.After(graceAfterLoad):
			if l.finish(Result[T]{}, fl.tooLate()) {
				l.abandonFailed(ctx)
			}
			l.leave()
		}
	})
	go func() {
		defer l.leave()
		defer cancel()
		defer unhook()
		res, err := Result[T]{}, ofLoader(errGoexit)
		defer func() { // also where the loader ends its goroutine
			close(returned)
			watched()
			if l.finish(res, err); errors.Is(err, errGoexit) {
				l.abandonFailed(ctx)
			}
		}()
		res, err = l.run(ctx)
	}()
}

// leave lets Close go on.
func (l *loader[T]) leave() { l.left.Do(l.c.flights.all.Done) }

// run is the load from the lease to the end.
func (l *loader[T]) run(ctx context.Context) (Result[T], error) {
	if l.batch != nil {
		defer l.batch.leave()
	}
	if err := l.takeSlot(ctx); err != nil {
		return Result[T]{}, err
	}
	defer l.leaveSlot()
	if l.away = l.readErr; l.away == nil {
		if res, done, err := l.acquire(ctx); done {
			return res, err
		}
	}
	if l.away == nil {
		l.fetchTags(ctx)
	}
	call := &Load[T]{
		loader: l, Previous: l.old.Value, ETag: l.old.etag, staleTTL: l.c.opt.StaleTTL,
		Found: l.old.State != Missing && !l.old.negative,
	}
	stop := l.watch(ctx)
	defer stop() // also where the loader ends its goroutine
	began := time.Now()
	value, err := l.call(ctx, call)
	cost := time.Since(began)
	stop()
	l.leaveSlot()
	l.c.events.Send(ctx, madcrow.Event{Type: madcrow.EventCacheLoad, Duration: cost})
	return l.conclude(ctx, call, value, cost, err)
}

// fetchTags notes the tags as they are before the load begins: what is invalidated
// from now on is invalidated.
func (l *loader[T]) fetchTags(ctx context.Context) {
	c := l.c
	need := c.opt.LoadTimeout
	if !c.lateTTL {
		need += c.ttlOf(l.req.call) + c.opt.StaleTTL
	}
	gens, err := c.tags.fetch(ctx, c.opt.ReadTimeout, need, l.req.states)
	if err != nil {
		l.away = err
		c.giveUp(&l.lease)
		return
	}
	l.gens = gens
	c.flights.setGens(l.flight, gens)
}

// call calls the user's loader in a span. A panic is an error.
func (l *loader[T]) call(ctx context.Context, call *Load[T]) (v T, err error) {
	if l.batch != nil {
		return l.load(ctx, call) // its keys share one call
	}
	return guarded(ctx, &l.c.events, func(ctx context.Context) (T, error) { return l.load(ctx, call) })
}

// guarded calls a loader in a span, and returns its panic as an error.
func guarded[V any](ctx context.Context, source *events.Source, load func(context.Context) (V, error)) (v V, err error) {
	ctx, end := source.Start(ctx, "cache.load")
	returned := false
	defer func() {
		switch p := recover(); {
		case p != nil:
			err = fmt.Errorf("the loader: %w", guard.Recovered(p))
		case !returned:
			err = errGoexit
		}
		if err = ofLoader(err); errors.Is(err, ErrNotFound) {
			end(nil)
		} else {
			end(err)
		}
	}()
	v, err = load(ctx)
	returned = true
	return v, err
}

// conclude commits what was loaded, or abandons the lease.
func (l *loader[T]) conclude(ctx context.Context, call *Load[T], value T, cost time.Duration, err error) (Result[T], error) {
	c := l.c
	if call.notModified && err == nil {
		value, call.etag = call.Previous, call.ETag
	}
	switch {
	case errors.Is(err, ErrNotFound):
		res := Result[T]{Source: SourceNegative, Degraded: l.away != nil, Err: l.away}
		if c.opt.NegativeTTL > 0 {
			l.commit(ctx, res, ErrNotFound, header{negative: true, freshFor: c.jittered(c.opt.NegativeTTL)}, value)
		} else {
			l.end(ctx, res, ErrNotFound, leaseRemove{})
		}
		return res, ErrNotFound
	case err != nil:
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			if err = fmt.Errorf("%w: %w", ErrLoadTimeout, err); c.life.Err() != nil {
				err = ErrClosed
			}
		}
		defer l.finishEarly(Result[T]{}, err)()
		l.abandonFailed(ctx)
		return Result[T]{}, err
	}
	ttl := c.ttlOf(l.req.call)
	if call.ttl > 0 {
		ttl = call.ttl
	}
	ttl = c.jittered(ttl)
	res := Result[T]{Value: value, Found: true, Source: SourceLoad, TTL: ttl, ETag: call.etag, Degraded: l.away != nil, Err: l.away}
	if call.skip {
		l.end(ctx, res, nil, leaseDrop{})
	} else {
		l.commit(ctx, res, nil, header{freshFor: ttl, storedFor: ttl + call.staleTTL, cost: cost, etag: call.etag}, value)
	}
	return res, nil
}

// commit stores a loaded value. That it fails is no failure of the load: it is
// counted, and the value is served.
func (l *loader[T]) commit(ctx context.Context, res Result[T], resErr error, h header, value T) {
	c := l.c
	if l.away != nil {
		c.keepDegraded(l, h, value)
		return
	}
	if !l.lease.held.Load() {
		return // another process stores
	}
	h.codec, h.tags = c.opt.Codec.ID(), marks(l.req.states, l.gens)
	h.storedFor = max(h.storedFor, h.freshFor) // an absence is not kept longer
	entry := h.appendTo(nil)
	if !h.negative {
		var err error
		if entry, err = codec.Append(c.opt.Codec, entry, value); err != nil {
			if c.unencodable.First(err) {
				c.log.Error("a value cannot be encoded, and is not cached: each call loads it again", "cache", c.name, "reason", err)
			}
			c.eventOf(ctx, madcrow.EventCacheUnencodable, err)
			l.end(ctx, res, resErr, leaseDrop{})
			return
		}
	}
	c.tags.prolong(ctx, h.storedFor, l.req.states, l.gens)
	l.end(ctx, res, resErr, leaseStore{text(entry), h.storedFor})
}

// abandonFailed ends the lease of a load that failed: others wait for the backoff.
func (l *loader[T]) abandonFailed(ctx context.Context) {
	if l.c.life.Err() != nil { // the load failed because this process ends
		l.c.endLease(ctx, &l.lease, leaseDrop{})
		return
	}
	l.c.endLease(ctx, &l.lease, leaseFail{"the load failed in another process", l.c.backoff(l.flight.fails)})
}

// end ends the lease. The callers do not wait for it longer than for a read: then
// they have the result.
func (l *loader[T]) end(ctx context.Context, res Result[T], err error, how leaseEnd) {
	defer l.finishEarly(res, err)()
	l.c.endLease(ctx, &l.lease, how)
}

// finishEarly gives the callers their result after ReadTimeout, unless stop comes
// first.
func (l *loader[T]) finishEarly(res Result[T], err error) (stop func() bool) {
	return time.AfterFunc(l.c.opt.ReadTimeout, func() { l.finish(res, err) }).Stop
}

// finish gives the callers their result, once. first says whether it was this one.
func (l *loader[T]) finish(res Result[T], err error) (first bool) {
	c, fl := l.c, l.flight
	wait := c.backoff(fl.fails)
	if remote := (*remoteFailure)(nil); errors.As(err, &remote) {
		wait = remote.left
	}
	fl.ended.Do(func() {
		first = true
		fl.result, fl.err = res, err
		l.observe(err)
		switch {
		case err == nil || errors.Is(err, ErrNotFound):
			c.flights.clearFailure(fl.encKey)
		case !errors.Is(err, ErrBusy):
			c.flights.recordFailure(fl, err, wait)
		}
		c.flights.finish(fl)
	})
	return first
}

func (c *Cache[T]) backoff(fails int) time.Duration {
	return c.opt.Backoff * time.Duration(min(1<<min(fails, 10), maxBackoff))
}

// newer says whether what was found is not what there was when the load was
// asked for, because that was soon to end. Ages are true to a millisecond or so.
func (l *loader[T]) newer(f Found[T]) bool { return !l.old.refresh || f.Age < l.old.Age/2 }

// removed says whether f was removed by one of its tags before the load began.
func (l *loader[T]) removed(f Found[T]) bool {
	return slices.ContainsFunc(f.tags, func(t nearTag) bool {
		i := slices.IndexFunc(l.req.states, t.state.same)
		return i < 0 || i >= len(l.gens) || l.gens[i].deleted != t.gen.deleted
	})
}

// takeSlot waits for one of the loads that may run. A batch takes one for all.
func (l *loader[T]) takeSlot(ctx context.Context) error {
	if l.batch != nil || l.slot {
		return nil
	}
	l.flight.queued.Store(true)
	err := l.c.flights.slot(ctx)
	l.slot = err == nil
	l.flight.queued.Store(!l.slot)
	return err
}

func (l *loader[T]) leaveSlot() {
	if l.slot {
		l.slot = false
		l.c.flights.leaveSlot()
	}
}
