package service

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/internal/localcache"
)

// nearEntry is the result of a read. It is immutable.
type nearEntry struct {
	value    string
	found    bool
	expires  int64 // monotonic
	tracking *madcrow.Tracking
}

// noEnd is the expiry of an entry without a lifetime.
const noEnd = math.MaxInt64

// ttl returns the remaining lifetime.
func (c *nearEntry) ttl(now int64) time.Duration {
	if c.expires == noEnd {
		return NoLifetime
	}
	return time.Duration(max(0, c.expires-now))
}

func (c *nearEntry) entry(now int64) Entry {
	if !c.found {
		return Entry{}
	}
	return Entry{Value: c.value, Found: true, TTL: c.ttl(now)}
}

// nearCache holds entries under the callers' keys. A nil nearCache holds none.
type nearCache struct {
	redis   *madcrow.Redis
	events  events.Source
	prefix  string
	entries *localcache.Cache[*nearEntry]
}

const nearOverhead = 200 // bytes of an entry beside key and value, about

func newNearCache(r *madcrow.Redis, bytes int64) *nearCache {
	n := &nearCache{
		redis: r, events: events.Of(r, ""), prefix: r.Config().KeyPrefix,
		entries: localcache.New(localcache.Options[*nearEntry]{
			MaxBytes: bytes,
			Weight: func(key string, c *nearEntry) uint32 {
				return uint32(min(uint64(len(key)+len(c.value)+nearOverhead), math.MaxUint32))
			},
		}),
	}
	r.OnInvalidate(n.changed)
	return n
}

// get returns a valid entry.
func (n *nearCache) get(ctx context.Context, key string) (*nearEntry, bool) {
	c, ok := n.entries.Get(key)
	if !ok || !c.tracking.Valid() {
		return nil, false
	}
	if c.expires != noEnd && monotonic() >= c.expires { // reading the clock costs as much as the rest
		return nil, false
	}
	n.events.Count(ctx, madcrow.EventServiceHitNear)
	return c, true
}

// read reads from Redis, and keeps the result unless the key changes meanwhile.
func (n *nearCache) read(ctx context.Context, key string) (*nearEntry, error) {
	version := n.entries.BeginRead(key)
	asked := monotonic()
	got := n.redis.GetTracked(ctx, []string{n.prefix + key})[0]
	c := &nearEntry{expires: noEnd, tracking: got.Tracking}
	err := got.Err
	if err == nil && !got.Message.IsNil() {
		c.value, err = got.Message.ToString()
		c.found = err == nil
	}
	if c.found && got.TTL >= 0 {
		c.expires = asked + int64(got.TTL)
	}
	var keep func()
	if err == nil && c.tracking != nil {
		keep = func() { n.entries.Set(key, c) }
	}
	n.entries.EndRead(key, version, keep)
	return c, err
}

// find returns a valid entry, or reads from Redis.
func (n *nearCache) find(ctx context.Context, key string) (*nearEntry, error) {
	if c, ok := n.get(ctx, key); ok {
		return c, nil
	}
	return n.read(ctx, key)
}

// changed drops the entry of a key, given with its prefix, and fences off reads of
// the key that are under way.
func (n *nearCache) changed(redisKey string) {
	if n == nil {
		return
	}
	if key, ours := strings.CutPrefix(redisKey, n.prefix); ours {
		n.entries.Drop(key)
	}
}

var began = time.Now()

// monotonic returns nanoseconds that changes of the clock do not affect.
func monotonic() int64 { return int64(time.Since(began)) }
