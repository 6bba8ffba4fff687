package cache

import (
	"math"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/memsize"
)

// While Redis is away, what was loaded is kept near for Options.NearTTL, where
// there is a near cache, so that the source is asked once in that time and not
// by every caller.

// keepDegraded keeps a value that could not be stored.
func (c *Cache[T]) keepDegraded(l *loader[T], h header, value T) {
	if !c.near.Enabled() {
		return
	}
	size := len(h.etag)
	if !h.negative { // as one that is read: what the loader returned may be shared with others, who change it
		data, err := codec.Append(c.opt.Codec, nil, value)
		if err != nil {
			return
		}
		if value, err = codec.Adopt(c.opt.Codec, text(data)); err != nil {
			return
		}
		size += memsize.Of(&value)
	}
	tags := make([]nearTag, len(l.req.states))
	for i, s := range l.req.states {
		tags[i].state = s
	}
	now := clock.Now()
	e := &nearEntry[T]{
		value: value, negative: h.negative, etag: h.etag, weight: weightOf(l.req.encKey, size), tags: tags, degraded: true,
		stored: now, expires: now + int64(min(c.opt.NearTTL, h.freshFor)), refresh: math.MaxInt64, slide: math.MaxInt64,
	}
	c.flights.mu.Lock()
	defer c.flights.mu.Unlock()
	// A change since the load began has forgotten the flight.
	if c.flights.running[l.req.encKey] == l.flight {
		c.near.setDegraded(l.req.encKey, e, e.expires+int64(c.opt.StaleTTL))
	}
}

// lastKnown is the near copy that was true when Redis was last heard of, as a
// stale value: for a source that fails while Redis is away.
func (c *Cache[T]) lastKnown(encKey string, tags []string) (f Found[T]) {
	e, ok := c.near.Get(encKey)
	now := clock.Now()
	if !ok || e.negative || c.opt.StaleTTL == 0 || now >= e.expires+int64(c.opt.StaleTTL) || !e.has(tags) || c.removals.has(encKey) {
		return f
	}
	for i := range e.tags {
		if t := &e.tags[i]; !e.degraded && t.state.cur.Load() != t.gen || c.removals.hasTag(t.state.key) {
			return f // it may have been removed
		}
	}
	age := time.Duration(now - e.stored)
	return Found[T]{
		State: Stale, near: true, Value: e.value, etag: e.etag, Age: age,
		storedFor: age + time.Duration(e.expires-now) + c.opt.StaleTTL,
	}
}
