package cache

import (
	"context"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/sealed"
)

// Engine is what package httpcache builds on: a cache whose lookups show stale
// values too, and whose loads are begun without waiting for them. Programs cannot
// make one.
type Engine[T any] struct{ *Cache[T] }

// NewEngine makes the cache of an Engine. Its loads say how long an entry lives
// only when they end. Tags that begin with shortLived are dropped by Redis ten
// minutes after their last entry, and not a day: anybody can have many of them
// made.
func NewEngine[T any](_ sealed.Key, r *madcrow.Redis, name string, options Options[T], shortLived string) (Engine[T], error) {
	c, err := New(r, name, options)
	if err != nil {
		return Engine[T]{}, err
	}
	c.lateTTL, c.tags.shortLived = true, shortLived
	return Engine[T]{c}, nil
}

// Lookup returns what there is of a key, near or in Redis. An error says that
// Redis could not be asked.
func (e Engine[T]) Lookup(ctx context.Context, key string, tags []string) (Found[T], error) {
	f, _, err := e.lookup(ctx, key, call{tags: tags})
	return f, err
}

// LastKnown returns the near copy that was true when Redis was last reached, as a
// stale value.
func (e Engine[T]) LastKnown(key string, tags []string) Found[T] {
	return e.lastKnown(keys.Encode(key), tags)
}

// Tier says whether what was found is "near" or of "redis".
func (e Engine[T]) Tier(f Found[T]) string {
	if f.near {
		return SourceNear.String()
	}
	return SourceRedis.String()
}

// Event reports an event of this cache.
func (e Engine[T]) Event(ctx context.Context, event madcrow.Event) { e.events.Send(ctx, event) }

// ServedStale notes a stale value that was served in the place of an error.
func (e Engine[T]) ServedStale() { e.health.servedStale() }

// Remember stores a value that helps later loads.
func (e Engine[T]) Remember(ctx context.Context, key string, value T, ttl time.Duration, tags []string) error {
	return e.set(ctx, key, value, call{ttl: ttl, tags: tags})
}

// RemoveTags removes tags themselves, and with them every entry that has one: as
// DeleteTag, but nothing stays in Redis.
func (e Engine[T]) RemoveTags(ctx context.Context, tags []string) error { return e.dropTags(ctx, tags) }

// RedisKey is the key of an entry in Redis.
func (e Engine[T]) RedisKey(key string) string { return e.valueKey(keys.Encode(key)) }

// EntryName is what names an entry in Redis among those of this cache.
func (e Engine[T]) EntryName(key string) string { return keys.Encode(key) }

// Evict removes an entry by its EntryName. Where Redis cannot be asked it stays
// until it ends.
func (e Engine[T]) Evict(ctx context.Context, entry string) {
	key := e.valueKey(entry)
	_ = e.r.Do(ctx, e.r.B().Del().Key(key).Build()).Err()
	e.registry.valueChanges(key)
}

// LoadRequest is a load to begin.
type LoadRequest[T any] struct {
	Key  string
	Tags []string // of the entry, beside those of the options
	Load func(context.Context, *Load[T]) (T, error)
	// Newer is set where an entry of an Age was found that does not do. What is
	// found while the load begins is taken only if it is younger than half of that.
	Newer bool
	Age   time.Duration
	// StaleFor is for how long the caller may serve what it has instead.
	StaleFor time.Duration
	// ReadErr says why Redis could not be asked before.
	ReadErr error
}

// Loading is a load that a caller began or joined.
type Loading[T any] struct{ waiting[T] }

// Begin begins a load, or joins the one that runs for the key.
func (e Engine[T]) Begin(ctx context.Context, req LoadRequest[T]) Loading[T] {
	return Loading[T]{e.begin(ctx, &loader[T]{
		c: e.Cache, req: request{encKey: keys.Encode(req.Key), call: call{tags: req.Tags}}, load: req.Load,
		old: Found[T]{Age: req.Age, refresh: req.Newer}, readErr: req.ReadErr, staleFor: req.StaleFor,
	})}
}

// Leads says whether the load of this request runs, and not that of another one.
func (l Loading[T]) Leads() bool { return l.l.flight != nil }

// Done is closed when the load has ended. It is nil where there is none.
func (l Loading[T]) Done() <-chan struct{} {
	if l.flight == nil {
		return nil
	}
	return l.flight.done
}

// Wait waits for the load as long as ctx and the options say.
func (l Loading[T]) Wait(ctx context.Context) (Result[T], error) { return l.await(ctx) }

// Degraded says whether the load of l runs without Redis.
func (e Engine[T]) Degraded(l *Load[T]) bool { return l.loader.away != nil }

// AtLease is what Redis had when the load of l got its lease.
func (e Engine[T]) AtLease(l *Load[T]) T { return l.loader.atLease.Value }

// Removed says whether an entry that was found before the load of l was removed
// since by one of its tags.
func (e Engine[T]) Removed(l *Load[T], f Found[T]) bool { return l.loader.removed(f) }
