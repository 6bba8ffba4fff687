package cache

import (
	"context"
	"errors"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/cachelimit"
)

// Load is what a loader of GetOrLoadWith can see and say.
type Load[T any] struct {
	// Previous is the value that is stale, or soon will be, and ETag the one
	// set with it; Found says whether there is one.
	Previous T
	ETag     string
	Found    bool

	loader      *loader[T] // that calls it
	ttl         time.Duration
	staleTTL    time.Duration
	etag        string
	skip        bool
	notModified bool
}

// SetTTL is Options.TTL for this value, from 10 ms to 10 years; others are
// ignored.
func (l *Load[T]) SetTTL(d time.Duration) {
	if d >= minTTL && d <= maxTTL {
		l.ttl = d
	}
}

// SetStaleTTL is Options.StaleTTL for this value, if it is shorter; a longer or
// negative one is ignored.
func (l *Load[T]) SetStaleTTL(d time.Duration) {
	if d >= 0 && d < l.staleTTL {
		l.staleTTL = d
	}
}

// SetETag stores an ETag with the value, at most 256 bytes; longer ones are
// ignored.
func (l *Load[T]) SetETag(etag string) {
	if len(etag) <= cachelimit.MaxTagSize {
		l.etag = etag
	}
}

// Skip keeps what is loaded from being stored.
func (l *Load[T]) Skip() { l.skip = true }

// NotModified lets the previous value live for another TTL; what the loader
// returns is then ignored. It does nothing where there is none.
func (l *Load[T]) NotModified() { l.notModified = l.Found }

// GetOrLoad returns the value of key, and loads and stores it when there is no
// fresh one. Of all callers in this process one loads, and of all processes
// one; the others wait for it and get the same value, which they must not
// change. A loader that returns [ErrNotFound] says that there is none. That is
// cached too, and GetOrLoad returns ErrNotFound.
//
// The load has a goroutine of its own: ctx bounds the waiting of this caller
// alone, its values are those of the first. When the load fails, a stale value is
// returned where Options.StaleTTL has kept one. Otherwise the error is a
// [*madcrow.Error] around the loader's own, which errors.Is and errors.As find. Its
// problem document is that of the loader's error, where that describes one, and
// else 500 LOAD_FAILED: the cache did not fail. A panic of the loader is an error
// too; its stack is in the log. When Redis is away it loads, with
// nothing but this process to share the load with, at most Options.MaxLoads at a
// time.
func (c *Cache[T]) GetOrLoad(ctx context.Context, key string, load func(context.Context) (T, error), opts ...CallOption) (T, error) {
	if len(opts) == 0 {
		if v, ok := c.hotValue(ctx, key); ok {
			return v, nil
		}
	}
	res, err := c.GetOrLoadWith(ctx, key, func(ctx context.Context, _ *Load[T]) (T, error) { return load(ctx) }, opts...)
	return res.Value, err
}

// Load is GetOrLoad with Options.Load. It is an error where there is none.
func (c *Cache[T]) Load(ctx context.Context, key string, opts ...CallOption) (T, error) {
	if c.opt.Load == nil {
		var none T
		return none, fail.Argument("load", c.name, "Options.Load", "must be set for Cache.Load")
	}
	if len(opts) == 0 {
		if v, ok := c.hotValue(ctx, key); ok {
			return v, nil
		}
	}
	return c.GetOrLoad(ctx, key, func(ctx context.Context) (T, error) { return c.opt.Load(ctx, key) }, opts...)
}

// GetOrLoadWith is GetOrLoad for a loader that wants to see the stale value or
// to say more of the new one. The result says how it was served. Where the loader
// returned [ErrNotFound], or that is cached, the error is ErrNotFound, and the
// result has SourceNegative.
func (c *Cache[T]) GetOrLoadWith(ctx context.Context, key string, load func(context.Context, *Load[T]) (T, error), opts ...CallOption) (Result[T], error) {
	ca, err := c.options(opts)
	if err != nil {
		return Result[T]{}, err
	}
	f, req, readErr := c.lookup(ctx, key, ca)
	if readErr != nil && notOfRedis(ctx, readErr) {
		return Result[T]{}, c.failed("load", readErr)
	}
	if f.State == Fresh {
		if f.refresh {
			c.event(ctx, madcrow.EventCacheRefresh)
			c.begin(ctx, &loader[T]{c: c, req: req, load: load, old: f})
		}
		res := c.served(ctx, f)
		if f.negative {
			return res, c.failed("load", ErrNotFound)
		}
		return res, nil
	}
	c.event(ctx, madcrow.EventCacheMiss)
	if readErr != nil {
		f = c.lastKnown(req.encKey, ca.tags)
	}
	l := &loader[T]{c: c, req: req, load: load, old: f, readErr: readErr}
	return c.begin(ctx, l).await(ctx)
}

// notOfRedis says whether a read failed for a reason that says nothing of Redis:
// it is no reason to load.
func notOfRedis(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, ErrClosed) || errors.Is(err, madcrow.ErrCanceled)
}

// waiting is a caller that began a load or joined one.
type waiting[T any] struct {
	l      *loader[T]
	flight *flight[T] // nil where there is no load,
	err    error      // and why
}

// begin starts a load, or joins the one that runs for its key.
func (c *Cache[T]) begin(ctx context.Context, l *loader[T]) waiting[T] {
	c.addTags(&l.req)
	fl, leads, err := c.flights.join(l.req.encKey, l.req.states)
	if leads {
		l.lead(ctx, fl)
	}
	return waiting[T]{l, fl, err}
}

// await waits for the load as long as the options and ctx say.
func (w waiting[T]) await(ctx context.Context) (Result[T], error) {
	c, old := w.l.c, w.l.old
	if w.err != nil {
		return w.orStale(ctx, w.err)
	}
	wait := c.opt.HardTimeout
	if old.State == Stale && c.opt.SoftTimeout > 0 {
		wait = c.opt.SoftTimeout
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-w.flight.done:
	case <-ctx.Done():
		return Result[T]{}, c.failed("load", ctx.Err())
	case <-timer.C:
		return w.orStale(ctx, w.flight.tooLate())
	}
	switch err := w.flight.err; {
	case errors.Is(err, ErrNotFound):
		return w.flight.result, c.failed("load", ErrNotFound)
	case err != nil:
		return w.orStale(ctx, err)
	}
	return w.flight.result, nil
}

// orStale serves the old value in the place of an error.
func (w waiting[T]) orStale(ctx context.Context, err error) (Result[T], error) {
	c, old, degraded := w.l.c, w.l.old, w.l.readErr != nil
	if old.State != Stale {
		err := c.failed("load", err)
		c.eventOf(ctx, madcrow.EventCacheError, err)
		return Result[T]{Degraded: degraded, Err: err}, err
	}
	c.eventOf(ctx, madcrow.EventCacheStale, err)
	c.health.servedStale()
	return Result[T]{
		Value: old.Value, Found: true, Source: SourceStale, Age: old.Age, ETag: old.etag,
		Degraded: degraded, Err: err,
	}, nil
}
