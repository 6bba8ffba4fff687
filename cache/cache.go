package cache

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/cachelimit"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

// Cache is a cache of values of one type. It is safe for concurrent use. Make
// it with [New].
type Cache[T any] struct {
	r      *madcrow.Redis
	events events.Source
	log    *slog.Logger
	name   string
	prefix string // of every key, up to the encoded user key
	opt    Options[T]
	// lateTTL is true where a load says only at its end how long its entry lives.
	lateTTL bool

	health      loadHealth
	unencodable logonce.Reasons // why values are not cached
	unreadable  logonce.Reasons // why entries cannot be decoded

	tags     *tagTable
	near     *near[T]
	clock    *coarseClock
	flights  *flights[T]
	registry *registry
	removals cacheRemovals
	watchers watchers

	life          context.Context
	stop          context.CancelFunc
	stopListening func()
	over          atomic.Bool
}

// New makes a cache of values of type T. name (1 to 64 letters, digits, '-',
// '_', '.') is part of its keys: caches with one name share their values, also
// those of other processes. A second cache of one name on r, with another type or
// codec than the first, is an error: neither could read what the other stores.
// Redis is not asked. All that is wrong is in one [*madcrow.ArgumentError]. Close it when it is not
// needed any more, before the Redis.
func New[T any](r *madcrow.Redis, name string, options Options[T]) (*Cache[T], error) {
	opt, err := options.filled(r, name)
	if err != nil {
		return nil, err
	}
	cfg := r.Config()
	c := &Cache[T]{
		r: r, events: events.Of(r, name), log: opt.Logger, name: name, opt: opt,
		prefix: valuePrefix(cfg.KeyPrefix, name),
		tags:   newTagTable(r, cfg.KeyPrefix, name, opt.NearTTL),
		near:   newNear[T](opt.NearCacheBytes),
		clock:  newCoarseClock(),
	}
	c.health = newLoadHealth(c.log, name)
	c.flights = newFlights[T](opt.MaxLoads)
	c.registry = registryOf(r)
	removals, err := c.registry.join(c)
	if err != nil {
		c.clock.close()
		return nil, err
	}
	c.removals = cacheRemovals{removals, c.prefix}
	c.life, c.stop = context.WithCancel(context.Background())
	c.stopListening = r.OnInvalidate(c.invalidated)
	return c, nil
}

func checkName(name string) error {
	if !keys.ValidName(name) {
		return fail.Argument("new", "", "name", keys.NameRule)
	}
	return nil
}

// valuePrefix begins the keys of values; the encoded user key and a '}'
// follow.
func valuePrefix(prefix, name string) string { return prefix + "m1:cache:" + name + ":{" }

// Close ends the loads that run, after it has waited for them until ctx ends,
// and what was queued for Redis is lost. The Redis stays open. It is safe to
// call twice.
func (c *Cache[T]) Close(ctx context.Context) error {
	if c.over.Swap(true) {
		return nil
	}
	c.stopListening()
	done := make(chan struct{})
	go func() {
		c.flights.close()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.stop()
	c.clock.close()
	c.registry.leave(c)
	return err
}

// invalidated is called by the reader of a connection with every key that changed.
func (c *Cache[T]) invalidated(key string) {
	if c.tags.invalidated(key) {
		return
	}
	c.valueChanges(key)
	c.watchers.wake(key)
}

// valueChanges is called when a value changes, and before: what was read or
// loaded until now is no longer what to serve.
func (c *Cache[T]) valueChanges(key string) {
	if encKey, ok := c.encKeyOf(key); ok {
		c.flights.remove(encKey)
		c.near.Drop(encKey)
	}
}

// tagChanges is the same for a tag.
func (c *Cache[T]) tagChanges(key string) {
	if c.tags.invalidated(key) {
		c.flights.removeTag(key)
		c.near.dropDegraded(clock.Now())
	}
}

// encKeyOf returns the user's part of one of this cache's value keys.
func (c *Cache[T]) encKeyOf(key string) (string, bool) {
	encKey, ok := strings.CutPrefix(key, c.prefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(encKey, "}")
}

func (c *Cache[T]) valueKey(encKey string) string { return c.prefix + encKey + "}" }

// Name returns the name given to New.
func (c *Cache[T]) Name() string { return c.name }

// options of a call, on the caller's stack where there are none.
func (c *Cache[T]) options(opts []CallOption) (call, error) {
	if len(opts) == 0 {
		return call{}, nil
	}
	var ca call
	for _, o := range opts {
		o(&ca)
	}
	if err := checkTags(c.name, ca.tags); err != nil {
		return ca, err
	}
	if len(ca.tags)+len(c.opt.Tags) >= cachelimit.MaxTags {
		return ca, fail.Argument("call", c.name, "tags", fmt.Sprintf("at most %d with those of the options", cachelimit.MaxTags-1))
	}
	if ca.ttl != 0 && (ca.ttl < minTTL || ca.ttl > maxTTL) {
		return ca, fail.Argument("call", c.name, "ttl", fmt.Sprintf("must be from %s to %s", inWords(minTTL), inWords(maxTTL)))
	}
	return ca, nil
}

// Get returns the value of key if there is a fresh one: a missing key is (zero,
// false, nil), and so is one whose absence is cached, or that no longer
// decodes. The error is a [*madcrow.Error]: Redis could not be asked.
//
// It takes no round trip where the near copy is true, one otherwise, and one
// more for tags that this process does not know yet.
func (c *Cache[T]) Get(ctx context.Context, key string, opts ...CallOption) (T, bool, error) {
	if len(opts) == 0 {
		if v, ok := c.hotValue(ctx, key); ok {
			return v, true, nil
		}
	}
	res, err := c.GetResult(ctx, key, opts...)
	return res.Value, res.Found, err
}

// hotValue is the value of hot, counted as a hit.
func (c *Cache[T]) hotValue(ctx context.Context, key string) (v T, ok bool) {
	if key != "" && key[0] == keys.Hashed[0] {
		return v, false // another key, encoded, may look like this one
	}
	e, ok := c.hot(key)
	if !ok {
		return v, false
	}
	c.event(ctx, madcrow.EventCacheHitNear)
	return e.value, true
}

// hot is fromNear for what will be valid, present and not due for anything for
// some time yet.
func (c *Cache[T]) hot(encKey string) (*nearEntry[T], bool) {
	if !c.near.Enabled() {
		return nil, false
	}
	upperBound := c.clock.upperBound()
	e, ok := c.near.hot(encKey, upperBound)
	if !ok || e.negative {
		return nil, false
	}
	return e, upperBound < e.slide && upperBound < e.refresh && e.valid(upperBound) && !c.over.Load()
}

// fromNear returns the near copy, if it may be served, and restarts its life
// when that is due.
func (c *Cache[T]) fromNear(encKey string, now int64) (*nearEntry[T], bool) {
	e, ok := c.near.Get(encKey)
	if !ok || !e.valid(now) || c.over.Load() {
		return nil, false
	}
	if now >= e.slide {
		c.slideLater(encKey)
	}
	return e, true
}

// GetResult is Get, and says how the value was served. A cached absence is no
// error: Found is false, and Source is SourceNegative.
func (c *Cache[T]) GetResult(ctx context.Context, key string, opts ...CallOption) (Result[T], error) {
	ca, err := c.options(opts)
	if err != nil {
		return Result[T]{}, err
	}
	ca.readOnly = true
	f, _, err := c.lookup(ctx, key, ca)
	if err != nil {
		failure := c.failed("get", err)
		c.eventOf(ctx, madcrow.EventCacheError, failure)
		return Result[T]{Degraded: true, Err: err}, failure
	}
	if f.State != Fresh {
		c.event(ctx, madcrow.EventCacheMiss)
		return Result[T]{}, nil
	}
	return c.served(ctx, f), nil
}

// served is the result of what was found fresh.
func (c *Cache[T]) served(ctx context.Context, f Found[T]) Result[T] {
	res := Result[T]{Value: f.Value, Found: true, Source: SourceRedis, Age: f.Age, TTL: f.TTL, ETag: f.etag}
	if f.near {
		res.Source = SourceNear
	}
	switch {
	case f.negative:
		res.Found, res.Source = false, SourceNegative
		c.event(ctx, madcrow.EventCacheHitNegative)
	case f.near:
		c.event(ctx, madcrow.EventCacheHitNear)
	default:
		c.event(ctx, madcrow.EventCacheHit)
	}
	return res
}

// Set stores a value for the TTL of the call or of the options. When Redis is
// away the error is [ErrQueued] and a cause: the old value is no longer served
// here, and is removed when Redis is back; the new one is not stored.
func (c *Cache[T]) Set(ctx context.Context, key string, value T, opts ...CallOption) error {
	ca, err := c.options(opts)
	if err != nil {
		return err
	}
	return c.set(ctx, key, value, ca)
}

// set is Set with what was checked.
func (c *Cache[T]) set(ctx context.Context, key string, value T, ca call) error {
	if c.over.Load() {
		return c.failed("set", ErrClosed)
	}
	return c.r.Within(ctx, func(ctx context.Context) error { return c.write(ctx, keys.Encode(key), value, ca) })
}

// write reads the tags of a value and sends it, within one deadline.
func (c *Cache[T]) write(ctx context.Context, encKey string, value T, ca call) error {
	states := c.tags.of(c.opt.Tags, ca.tags)
	ttl := c.jittered(c.ttlOf(ca))
	h := header{codec: c.opt.Codec.ID(), freshFor: ttl, storedFor: ttl + c.opt.StaleTTL}
	gens, err := c.tags.fetch(ctx, 0, h.storedFor, states)
	if err != nil {
		return c.queue(ctx, "set", encKey, err)
	}
	h.tags = marks(states, gens)
	entry, err := codec.Append(c.opt.Codec, h.appendTo(nil), value)
	if err != nil {
		return c.failed("encode", err)
	}
	vk := c.valueKey(encKey)
	c.changing(encKey)
	err = c.r.SplitKeys(ctx, vk, func(ctx context.Context) error {
		err := c.r.Eval(ctx, scriptSet, []string{vk, vk + leaseSuffix}, []string{text(entry), millis(h.storedFor)}).Err()
		return err
	}, func(ctx context.Context) error { return c.setSplit(ctx, vk, text(entry), h.storedFor.Milliseconds()) })
	c.changing(encKey)
	if err != nil {
		return c.queue(ctx, "set", encKey, err)
	}
	c.removals.discard(encKey)
	return nil
}

// Delete removes the value of key, and keeps one that is being loaded from
// being stored. When Redis is away the error is [ErrQueued] and a cause.
func (c *Cache[T]) Delete(ctx context.Context, key string) error {
	if c.over.Load() {
		return c.failed("delete", ErrClosed)
	}
	encKey := keys.Encode(key)
	vk := c.valueKey(encKey)
	c.changing(encKey)
	err := c.r.SplitKeys(ctx, vk, func(ctx context.Context) error {
		err := c.r.Do(ctx, c.r.B().Del().Key(vk, vk+leaseSuffix).Build()).Err()
		return err
	}, func(ctx context.Context) error { return c.deleteSplit(ctx, vk) })
	c.changing(encKey)
	if err != nil {
		return c.queue(ctx, "delete", encKey, err)
	}
	c.removals.discard(encKey)
	return nil
}

// setSplit stores a value with commands of one key each: its slot is being moved.
func (c *Cache[T]) setSplit(ctx context.Context, vk, entry string, life int64) error {
	_, err := c.r.DoMulti(ctx, fencing(c.r.B(), vk, c.r.B().Set().Key(vk).Value(entry).PxMilliseconds(life).Build())...)
	return err
}

func (c *Cache[T]) deleteSplit(ctx context.Context, vk string) error {
	_, err := c.r.DoMulti(ctx, fencing(c.r.B(), vk, c.r.B().Del().Key(vk).Build())...)
	return err
}

// fencing is a change of a value in commands of one key each. No load begins
// or ends meanwhile: for so long their scripts are refused too.
func fencing(b madcrow.Builder, vk string, change madcrow.Command) []madcrow.Command {
	lease := vk + leaseSuffix
	return []madcrow.Command{b.Del().Key(lease).Build(), change, b.Del().Key(lease).Build()}
}

// changing is called before and after a change of this process: what was read
// or loaded before is no longer the value, in all caches of the process.
func (c *Cache[T]) changing(encKey string) { c.registry.valueChanges(c.valueKey(encKey)) }

// Exists says whether there is a fresh value of key. A cached absence is none.
func (c *Cache[T]) Exists(ctx context.Context, key string) (bool, error) {
	res, err := c.GetResult(ctx, key)
	return res.Found, err
}

// TTL returns how long the value of key is still fresh; false when there is none,
// or its absence is cached.
func (c *Cache[T]) TTL(ctx context.Context, key string) (time.Duration, bool, error) {
	res, err := c.GetResult(ctx, key)
	return res.TTL, res.Found, err
}

// Touch restarts the life of a fresh value, and says whether there was one. The
// life of a cached absence is not restarted.
// It takes two round trips.
func (c *Cache[T]) Touch(ctx context.Context, key string) (bool, error) {
	if c.over.Load() {
		return false, c.failed("touch", ErrClosed)
	}
	encKey := keys.Encode(key)
	req := request{encKey: encKey}
	c.addTags(&req)
	f, err := c.read(ctx, req)
	if err == nil && f.State == Fresh && !f.negative {
		var ok bool
		ok, err = c.touch(ctx, encKey, f)
		if err == nil {
			return ok, nil
		}
	}
	if err != nil {
		return false, c.failed("touch", err)
	}
	return false, nil
}

func (c *Cache[T]) touch(ctx context.Context, encKey string, f Found[T]) (bool, error) {
	states := make([]*tagState, len(f.tags))
	for i, t := range f.tags {
		states[i] = t.state
	}
	if _, err := c.tags.fetch(ctx, c.opt.ReadTimeout, f.storedFor, states); err != nil {
		return false, err // they must live as long
	}
	m, err := c.r.Eval(ctx, scriptTouch, []string{c.valueKey(encKey)}, []string{f.head, millis(f.storedFor)}).Message()
	if err != nil {
		return false, err
	}
	n, err := m.AsInt64()
	c.near.Drop(encKey)
	return n == 1, err
}

func (c *Cache[T]) failed(op string, err error) error { return failed(op, c.name, err) }

func (c *Cache[T]) event(ctx context.Context, t madcrow.EventType) { c.events.Count(ctx, t) }

// eventOf reports an event with its cause.
func (c *Cache[T]) eventOf(ctx context.Context, t madcrow.EventType, cause error) {
	c.events.Send(ctx, madcrow.Event{Type: t, Err: cause})
}
