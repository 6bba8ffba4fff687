package cache

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/logonce"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/internal/pending"
)

// maxQueued bounds the values whose removals wait for Redis. Beyond it the
// caches they are of are cleared when Redis is back.
const maxQueued = 10000

// removalBackoff gives the pauses between tries while Redis seems well.
var removalBackoff = clock.Backoff{First: 20 * time.Millisecond, Most: time.Second}

// pendingRemovals is what must be removed from Redis when it is back. Until then this
// process takes it for removed.
type pendingRemovals struct {
	registry *registry
	log      *slog.Logger

	pending atomic.Int64 // how many there are; 0 almost always
	mu      sync.Mutex
	values  map[string]queuedValue // by key
	tags    map[string]queuedTag   // by key
	last    uint64                 // of the order in which they came
	failed  logonce.Reasons        // for good
	runner  *pending.Runner        // sends them, and ends with close
}

// A removal that comes while an earlier one of the same is being sent is
// another one: they differ by order.
type (
	queuedValue struct {
		whole string // the tag of the cache
		order uint64
	}
	queuedTag struct {
		how   string
		order uint64
	}
)

func newPendingRemovals(f *registry) *pendingRemovals {
	o := &pendingRemovals{registry: f, log: f.r.Logger(), values: map[string]queuedValue{}, tags: map[string]queuedTag{}}
	o.runner = pending.NewRunner(f.r, pending.RunnerOptions{Backoff: removalBackoff, Writable: true}, o.replay)
	return o
}

// retryable says whether a removal that failed is worth another try later.
func (o *pendingRemovals) retryable(err error) bool {
	// A removal needs no memory, a new value did.
	return operr.Temporary(err) || errors.Is(err, madcrow.ErrOutOfMemory)
}

// hasTagOf says whether one of them waits to be removed.
func (o *pendingRemovals) hasTagOf(states []*tagState) bool {
	return o.pending.Load() != 0 && slices.ContainsFunc(states, func(s *tagState) bool { return o.hasTag(s.key) })
}

// cacheRemovals is pendingRemovals as one cache sees it.
type cacheRemovals struct {
	*pendingRemovals
	prefix string // of its values' keys
}

func (r cacheRemovals) has(encKey string) bool {
	return r.pending.Load() != 0 && r.pendingRemovals.has(r.prefix+encKey+"}")
}

// hasAny is asked before Redis is: what was asked for while a removal waited may
// come from before it, also when it has been sent since.
func (r cacheRemovals) hasAny(encKey string, states []*tagState) bool {
	return r.has(encKey) || r.hasTagOf(states)
}

func (r cacheRemovals) discard(encKey string) {
	if r.pending.Load() != 0 {
		r.pendingRemovals.discard(r.prefix + encKey + "}")
	}
}

func (o *pendingRemovals) has(key string) bool {
	if o.pending.Load() == 0 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.values[key]
	return ok
}

func (o *pendingRemovals) hasTag(key string) bool {
	if o.pending.Load() == 0 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.tags[key]; ok {
		return true
	}
	_, ok := o.values[key]
	return ok
}

// add queues the removal of a value, or of the tag of a URL; whole is the tag of
// its cache.
func (o *pendingRemovals) add(key, whole string) {
	o.enqueue(func() {
		if o.values[key] = (queuedValue{whole, o.last}); len(o.values) <= maxQueued {
			return
		}
		for _, v := range o.values {
			o.tags[v.whole] = queuedTag{tagDelete, o.last}
		}
		clear(o.values)
	})
}

func (o *pendingRemovals) addTag(key, how string) {
	o.enqueue(func() {
		if o.tags[key].how == tagDelete {
			how = tagDelete // the stronger one stays
		}
		o.tags[key] = queuedTag{how, o.last}
	})
}

func (o *pendingRemovals) enqueue(add func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.runner.Stopped() {
		return
	}
	o.last++
	add()
	o.count()
	o.runner.Wake()
}

func (o *pendingRemovals) count() { o.pending.Store(int64(len(o.values) + len(o.tags))) }

// discard takes a value out that was removed or replaced meanwhile.
func (o *pendingRemovals) discard(key string) {
	if o.pending.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.values, key)
	o.count()
}

func (o *pendingRemovals) close() {
	o.runner.Stop()
}

// replay sends the removals, and keeps those that are worth another try.
func (o *pendingRemovals) replay(ctx context.Context) pending.Progress {
	o.mu.Lock()
	values := make(map[string]queuedValue, len(o.values))
	for key, v := range o.values {
		values[key] = v
	}
	tags := make(map[string]queuedTag, len(o.tags))
	for key, t := range o.tags {
		tags[key] = t
	}
	o.mu.Unlock()
	for key, t := range tags {
		if !o.sent(ctx, key, replaceTag(ctx, o.registry.r, key, t.how)) {
			return pending.None
		}
		o.registry.tagChanges(key)
		o.mu.Lock()
		if o.tags[key] == t {
			delete(o.tags, key)
		}
		o.count()
		o.mu.Unlock()
	}
	const batch = 500
	part := make([]string, 0, batch)
	for key := range values {
		if part = append(part, key); len(part) == batch {
			o.replayValues(ctx, part, values)
			part = part[:0]
		}
	}
	o.replayValues(ctx, part, values)
	if o.pending.Load() > 0 {
		return pending.None
	}
	return pending.Done
}

func (o *pendingRemovals) replayValues(ctx context.Context, keys []string, values map[string]queuedValue) {
	if len(keys) == 0 {
		return
	}
	cmds := make([]madcrow.Command, 0, 2*len(keys))
	for _, key := range keys { // each alone: their slot may be on its way to another node
		cmds = append(cmds, o.registry.r.B().Del().Key(key+leaseSuffix).Build(), o.registry.r.B().Del().Key(key).Build())
	}
	results, err := o.registry.r.DoMulti(ctx, cmds...)
	for i, key := range keys {
		if len(results) == 2*len(keys) {
			if err = results[2*i].Err(); err == nil {
				err = results[2*i+1].Err()
			}
		}
		if !o.sent(ctx, key, err) {
			continue
		}
		o.registry.valueChanges(key)
		o.registry.tagChanges(key)
		o.mu.Lock()
		if o.values[key] == values[key] {
			delete(o.values, key)
		}
		o.count()
		o.mu.Unlock()
	}
}

// sent says whether there is no more to do: also where another try is of no
// use.
func (o *pendingRemovals) sent(ctx context.Context, key string, err error) bool {
	if err == nil {
		return true
	}
	if o.retryable(err) || ctx.Err() != nil {
		return false
	}
	if o.failed.First(err) {
		o.log.Error("removals that were queued failed for good", "first", key, "reason", err)
	}
	return true
}
