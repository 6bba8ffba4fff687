package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/cachelimit"
	"github.com/madcrow-go/madcrow/internal/keys"
)

// Load is what a loader of GetOrLoadWith can see and say.
type Load[T any] struct {
	// Previous is the value that is stale, or soon will be, and ETag the one
	// set with it; Found says whether there is one.
	Previous T
	ETag     string
	Found    bool

	job         *job[T]
	ttl         time.Duration
	staleFor    time.Duration
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

// SetStaleFor is Options.StaleFor for this value, if it is shorter; a longer or
// negative one is ignored.
func (l *Load[T]) SetStaleFor(d time.Duration) {
	if d >= 0 && d < l.staleFor {
		l.staleFor = d
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
// change. A loader that returns [ErrNotFound] says that there is none: that is
// cached too.
//
// The load runs apart from its callers: ctx bounds the waiting of this one
// alone, its values are those of the first. When it fails, a stale value is
// returned where Options.StaleFor has kept one; otherwise the error is an
// [*Error] with the loader's own. When Redis is away it loads, with nothing
// but this process to share the load with, at most Options.MaxLoads at a time.
func (c *Cache[T]) GetOrLoad(ctx context.Context, key string, load func(context.Context) (T, error), opts ...CallOption) (T, error) {
	if len(opts) == 0 && (key == "" || key[0] != keys.Hashed[0]) {
		if e, ok := c.hot(key); ok {
			c.event("hit_near")
			return e.value, nil
		}
	}
	res, err := c.GetOrLoadWith(ctx, key, func(ctx context.Context, _ *Load[T]) (T, error) { return load(ctx) }, opts...)
	return res.Value, err
}

// GetOrLoadWith is GetOrLoad for a loader that wants to see the stale value or
// to say more of the new one. The result says how it was served. A value that
// is not there is [ErrNotFound] and SourceNegative.
func (c *Cache[T]) GetOrLoadWith(ctx context.Context, key string, load func(context.Context, *Load[T]) (T, error), opts ...CallOption) (Result[T], error) {
	ca, err := c.options(opts)
	if err != nil {
		return Result[T]{}, err
	}
	f, readErr := c.find(ctx, key, ca)
	if readErr != nil && (ctx.Err() != nil || errors.Is(readErr, ErrClosed) || errors.Is(readErr, madcrow.ErrCanceled)) {
		return Result[T]{}, c.failed("load", readErr) // it says nothing of Redis
	}
	newJob := func() *job[T] {
		return &job[T]{c: c, encKey: keys.Form(key), ca: ca, load: load, old: f, degraded: readErr}
	}
	if f.State == Fresh {
		if f.refresh {
			c.event("refresh")
			c.start(ctx, newJob())
		}
		res := c.served(f)
		if f.negative {
			return res, c.failed("load", ErrNotFound)
		}
		return res, nil
	}
	c.event("miss")
	job := newJob()
	if readErr != nil {
		job.old = c.lastKnown(job.encKey, ca.tags...)
	}
	fl, err := c.start(ctx, job)
	return c.await(ctx, job, fl, err)
}

// await waits for a flight as long as that makes sense. err is why there is
// none.
func (c *Cache[T]) await(ctx context.Context, j *job[T], fl *flight[T], err error) (Result[T], error) {
	if err != nil {
		return c.orStale(j, err)
	}
	wait := c.opt.HardTimeout
	soft := j.old.State == Stale && c.opt.SoftTimeout > 0
	if soft {
		wait = c.opt.SoftTimeout
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-fl.done:
	case <-ctx.Done():
		return Result[T]{}, c.failed("load", ctx.Err())
	case <-timer.C:
		return c.orStale(j, ErrLoadTimeout)
	}
	switch {
	case errors.Is(fl.err, ErrNotFound):
		return fl.result, c.failed("load", ErrNotFound)
	case fl.err != nil:
		return c.orStale(j, fl.err)
	}
	return fl.result, nil
}

// orStale serves the old value in the place of an error.
func (c *Cache[T]) orStale(j *job[T], err error) (Result[T], error) {
	if j.old.State != Stale {
		c.event("load_error")
		return Result[T]{Degraded: j.degraded != nil, Err: err}, c.failed("load", err)
	}
	c.event("stale")
	return Result[T]{
		Value: j.old.Value, Found: true, Source: SourceStale, Age: j.old.Age, ETag: j.old.etag,
		Degraded: j.degraded != nil, Err: err,
	}, nil
}

// start runs the load of a key, or joins the one that runs.
func (c *Cache[T]) start(ctx context.Context, j *job[T]) (*flight[T], error) {
	j.states = c.tags.of(c.opt.Tags, j.ca.tags)
	fl, lead, err := c.flights.join(j.encKey, j.states)
	if lead {
		j.flight, j.token = fl, newToken()
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.opt.LoadTimeout)
		unhook := context.AfterFunc(c.life, cancel)
		go func() {
			defer c.flights.all.Done()
			defer cancel()
			defer unhook()
			c.fly(own, fl, j)
		}()
	}
	return fl, err
}

// job is what a load is about.
type job[T any] struct {
	c         *Cache[T]
	encKey    string
	ca        call
	load      func(context.Context, *Load[T]) (T, error)
	old       Found[T]
	states    []*tagState
	flight    *flight[T]    // the one that this job leads
	degraded  error         // why Redis was not asked, before the load
	batchSlot *batchSlot[T] // in a batch; nil for a load alone

	// Of the load that runs.
	away  error // why Redis is not asked
	token string
	held  atomic.Bool // the lease is, or may be
	there Found[T]    // what was in Redis when it was taken
	alone bool        // it loads without a lease, and does not store
	slots bool        // it has one of the slots
	gens  []*tagGen
}

// removed says whether f was removed by one of its tags before the load began.
func (j *job[T]) removed(f Found[T]) bool {
	return slices.ContainsFunc(f.tags, func(t nearTag) bool {
		i := slices.IndexFunc(j.states, t.state.same)
		return i < 0 || i >= len(j.gens) || j.gens[i].deleted != t.gen.deleted
	})
}

// takeSlot waits for one of the loads that may run. A batch takes one for all.
func (j *job[T]) takeSlot(ctx context.Context) error {
	if j.batchSlot != nil || j.slots {
		return nil
	}
	err := j.c.flights.slot(ctx)
	j.slots = err == nil
	return err
}

func (j *job[T]) leaveSlot() {
	if j.slots {
		j.slots = false
		j.c.flights.leaveSlot()
	}
}

// fly runs a load to its end, and lands the flight whatever happens. When the
// loader does not heed its deadline the flight lands without it.
func (c *Cache[T]) fly(ctx context.Context, fl *flight[T], j *job[T]) {
	done := make(chan struct{})
	var res Result[T]
	err := errGoexit
	go func() {
		defer close(done)
		res, err = c.run(ctx, fl, j)
	}()
	ended := true
	select {
	case <-done:
	case <-ctx.Done():
		select {
		case <-done:
		case <-time.After(graceAfterLoad):
			ended = false
		}
	}
	if ended {
		fl.result, fl.err = res, err
	} else {
		fl.err = ErrLoadTimeout
	}
	wait := c.backoff(fl.fails)
	if heard := (*remoteFailure)(nil); errors.As(fl.err, &heard) {
		wait = heard.left
	}
	switch {
	case fl.err == nil || errors.Is(fl.err, ErrNotFound):
		c.flights.clearFailure(fl.encKey)
	case !errors.Is(fl.err, ErrBusy):
		c.flights.recordFailure(fl, fl.err, wait)
	}
	c.flights.finish(fl)
	if !ended || errors.Is(fl.err, errGoexit) {
		c.fail(ctx, fl, j) // no one else does
	}
}

// graceAfterLoad is how long a loader has to heed its deadline.
const graceAfterLoad = 5 * time.Millisecond

func (c *Cache[T]) backoff(fails int) time.Duration {
	return c.opt.Backoff * time.Duration(min(1<<min(fails, 10), maxBackoff))
}

// run takes a slot and the lease, loads and stores.
func (c *Cache[T]) run(ctx context.Context, fl *flight[T], j *job[T]) (Result[T], error) {
	if j.batchSlot != nil {
		defer j.batchSlot.leave()
	}
	if err := j.takeSlot(ctx); err != nil {
		return Result[T]{}, err
	}
	defer j.leaveSlot()
	j.away = j.degraded
	if j.away == nil {
		if res, done, err := c.lease(ctx, j); done {
			return res, err
		}
	}
	if j.away == nil {
		// The tags must be known before the load begins: what is invalidated
		// from now on is invalidated.
		var err error
		need := c.opt.LoadTimeout
		if !c.lateTTL {
			need += c.ttlOf(j.ca) + c.opt.StaleFor
		}
		if j.gens, err = c.tags.fetch(ctx, c.opt.ReadTimeout, need, j.states); err != nil {
			j.away = err
			c.releaseLease(j)
		} else {
			c.flights.loads(fl, j.gens)
		}
	}
	stop := c.hold(ctx, j)
	defer stop() // also where the loader ends its goroutine
	began := time.Now()
	l := &Load[T]{job: j, Previous: j.old.Value, ETag: j.old.etag, Found: j.old.State != Missing && !j.old.negative, staleFor: c.opt.StaleFor}
	value, err := guarded(ctx, j.load, l)
	cost := time.Since(began)
	stop()
	c.event("load")
	return c.finish(ctx, fl, j, l, value, cost, err)
}

// guarded turns a panic of the loader into an error.
func guarded[T any](ctx context.Context, load func(context.Context, *Load[T]) (T, error), l *Load[T]) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked("the loader", p)
		}
	}()
	return load(ctx, l)
}

func panicked(who string, p any) error { return fmt.Errorf("%s: %w: %v", who, errPanic, p) }

// finish stores what was loaded, if it is still the value.
func (c *Cache[T]) finish(ctx context.Context, fl *flight[T], j *job[T], l *Load[T], value T, cost time.Duration, err error) (Result[T], error) {
	if l.notModified && err == nil {
		value, l.etag = l.Previous, l.ETag
	}
	switch {
	case errors.Is(err, ErrNotFound):
		if c.opt.NegativeTTL > 0 {
			c.store(ctx, j, header{negative: true, freshFor: c.jittered(c.opt.NegativeTTL)}, value)
		} else {
			c.end(ctx, j, "remove")
		}
		return Result[T]{Source: SourceNegative, Degraded: j.away != nil, Err: j.away}, ErrNotFound
	case err != nil:
		c.fail(ctx, fl, j)
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = errors.Join(ErrLoadTimeout, err)
		}
		return Result[T]{}, err
	}
	ttl := c.ttlOf(j.ca)
	if l.ttl > 0 {
		ttl = l.ttl
	}
	ttl = c.jittered(ttl)
	res := Result[T]{Value: value, Found: true, Source: SourceLoad, TTL: ttl, ETag: l.etag, Degraded: j.away != nil, Err: j.away}
	if l.skip {
		c.end(ctx, j, "drop")
		return res, nil
	}
	c.store(ctx, j, header{freshFor: ttl, storedFor: ttl + l.staleFor, cost: cost, etag: l.etag}, value)
	return res, nil
}

// store puts a loaded value into Redis. That it fails is no failure of the
// load: it is noted, and the value is served.
func (c *Cache[T]) store(ctx context.Context, j *job[T], h header, value T) {
	if j.away != nil {
		c.keepDegraded(j, h, value)
		return
	}
	if !j.held.Load() {
		return // others store
	}
	h.codec, h.tags = c.opt.Codec.ID(), marks(j.states, j.gens)
	h.storedFor = max(h.storedFor, h.freshFor) // an absence is not kept longer
	c.tags.prolong(ctx, h.storedFor, j.states, j.gens)
	entry := h.appendTo(nil)
	if !h.negative {
		var err error
		if entry, err = c.encode(entry, value); err != nil {
			if c.unencodable.First(err) {
				c.log.Error("a value cannot be encoded, and is not cached", "cache", c.name, "reason", err)
			}
			c.event("unencodable")
			c.end(ctx, j, "drop")
			return
		}
	}
	c.end(ctx, j, "set", text(entry), millis(h.storedFor))
}

// fail ends a load that failed.
func (c *Cache[T]) fail(ctx context.Context, fl *flight[T], j *job[T]) {
	if c.life.Err() != nil { // this process only ends
		c.end(ctx, j, "drop")
		return
	}
	c.end(ctx, j, "fail", "the load failed in another process", millis(c.backoff(fl.fails)))
}

// end gives the lease back, with what came of it. It does not keep the callers
// waiting for longer than a read.
func (c *Cache[T]) end(ctx context.Context, j *job[T], how ...string) {
	if !j.held.Load() || c.removals.has(j.encKey) {
		return
	}
	done := make(chan struct{})
	// The load may have used up its time; what it brought is still wanted.
	ctx = context.WithoutCancel(ctx)
	apart := c.flights.once("end "+j.token+how[0], func() {
		defer close(done)
		c.endNow(ctx, j, how)
	})
	if !apart { // it is being closed
		c.endNow(ctx, j, how)
		return
	}
	timer := time.NewTimer(c.opt.ReadTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

func (c *Cache[T]) endNow(ctx context.Context, j *job[T], how []string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	vk := c.valueKey(j.encKey)
	m, err := c.r.Eval(ctx, scriptStore, []string{vk, vk + leaseSuffix}, append([]string{j.token}, how...))
	if how[0] == "set" || how[0] == "remove" {
		c.near.drop(j.encKey) // it is older than what somebody may have seen
	}
	switch {
	case errors.Is(err, madcrow.ErrTooLarge) && how[0] == "set": // it was not sent
		c.event("too_large")
		c.endNow(ctx, j, []string{"drop"})
		return
	case err != nil:
		c.event("store_error")
		return
	}
	if n, _ := m.AsInt64(); n == 0 {
		c.event("fenced")
	}
}

func newToken() string { return rand.Text() }
