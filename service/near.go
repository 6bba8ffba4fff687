package service

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/madcrow-go/madcrow"
	nearby "github.com/madcrow-go/madcrow/internal/near"
)

// WithNearCache keeps what GetCache and GetCacheWithTTL read in this process
// too, up to so many bytes, so that the next read asks nobody. That a key is
// missing is kept as well.
//
// Redis keeps the copies true: it tells of every change, by whatever program
// (CLIENT TRACKING). A copy of a key that another process changed may be served
// until that news arrives, commonly well under a millisecond; SetCache and
// DeleteCache of this Service are seen by its reads at once. Copies are dropped
// with the connection, and live no longer than in Redis. Where Redis refuses to
// track, there are none. While it is away reads are errors, as without.
//
// The copies last until the Redis is closed: make one Service, not one for each
// request.
func WithNearCache(bytes int64) Option { return func(s *Service) { s.nearBytes = bytes } }

// nearCopy is what Redis said of a key. It does not change.
type nearCopy struct {
	value    string
	found    bool
	expires  int64 // monotonic
	tracking *madcrow.Tracking
}

// noEnd is when a copy without a lifetime expires.
const noEnd = math.MaxInt64

// ttl is the lifetime that is left.
func (c *nearCopy) ttl(now int64) time.Duration {
	if c.expires == noEnd {
		return NoLifetime
	}
	return time.Duration(max(0, c.expires-now))
}

func (c *nearCopy) entry(now int64) Entry {
	if !c.found {
		return Entry{}
	}
	return Entry{Value: c.value, Found: true, TTL: c.ttl(now)}
}

// nearCache holds copies under the callers' keys. nil holds none.
type nearCache struct {
	redis  *madcrow.Redis
	rec    madcrow.Recorder // nil: nobody listens
	prefix string
	reads  *nearby.Reads
	copies *otter.Cache[string, *nearCopy]
}

const nearOverhead = 200 // bytes of a copy beside key and value, about

func newNearCache(r *madcrow.Redis, bytes int64) *nearCache {
	n := &nearCache{
		redis: r, prefix: r.Config().KeyPrefix, reads: nearby.NewReads(),
		copies: otter.Must(&otter.Options[string, *nearCopy]{
			MaximumWeight: uint64(bytes),
			Weigher: func(key string, c *nearCopy) uint32 {
				return uint32(min(uint64(len(key)+len(c.value)+nearOverhead), math.MaxUint32))
			},
		}),
	}
	if _, nobody := r.Recorder().(madcrow.NopRecorder); !nobody {
		n.rec = r.Recorder()
	}
	r.OnInvalidate(n.changed)
	return n
}

// get returns the copy of a key that may be served.
func (n *nearCache) get(key string) (*nearCopy, bool) {
	c, ok := n.copies.GetIfPresent(key)
	if !ok || !c.tracking.Valid() {
		return nil, false
	}
	if c.expires != noEnd && monotonic() >= c.expires { // a clock costs as much as all the rest
		return nil, false
	}
	if n.rec != nil {
		n.rec.Event("service", "hit_near", 1)
	}
	return c, true
}

// read asks Redis, and keeps a copy unless the key changes meanwhile.
func (n *nearCache) read(ctx context.Context, key string) (*nearCopy, error) {
	version := n.reads.Begin(key)
	asked := monotonic()
	got := n.redis.GetTracked(ctx, 0, n.prefix+key)[0]
	c := &nearCopy{expires: noEnd, tracking: got.Tracking}
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
		keep = func() { n.copies.Set(key, c) }
	}
	n.reads.End(key, version, keep)
	return c, err
}

// find looks near, then in Redis.
func (n *nearCache) find(ctx context.Context, key string) (*nearCopy, error) {
	if c, ok := n.get(key); ok {
		return c, nil
	}
	return n.read(ctx, key)
}

// changed drops the copy of a key, as it is named in Redis, and what is being
// read of it.
func (n *nearCache) changed(redisKey string) {
	if n == nil {
		return
	}
	if key, ours := strings.CutPrefix(redisKey, n.prefix); ours {
		n.reads.Change(key, func() { n.copies.Invalidate(key) })
	}
}

var began = time.Now()

// monotonic is nanoseconds that no clock change moves.
func monotonic() int64 { return int64(time.Since(began)) }
