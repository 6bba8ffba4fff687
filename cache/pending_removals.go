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
	"github.com/madcrow-go/madcrow/internal/logonce"
)

// maxQueued bounds the values whose removals wait for Redis. Beyond it the
// caches they are of are cleared when Redis is back.
const maxQueued = 10000

// Between tries to send what waits, while Redis seems well.
const (
	replayFirst = 20 * time.Millisecond
	replayMost  = time.Second
)

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
	running bool
	ctx     context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup
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
	o.ctx, o.cancel = context.WithCancel(context.Background())
	return o
}

// retryable says whether a removal that failed is worth another try later.
func (o *pendingRemovals) retryable(err error) bool {
	var e *madcrow.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Kind {
	case madcrow.KindUnavailable, madcrow.KindTimeout, madcrow.KindCanceled, madcrow.KindReadOnly, madcrow.KindLoading, madcrow.KindBusy, madcrow.KindAuth:
		return !errors.Is(err, madcrow.ErrClosed)
	case madcrow.KindOutOfMemory: // a removal needs none, a new value did
		return true
	case madcrow.KindConfig: // the server of this moment is none for these settings
		return errors.Is(err, madcrow.ErrUnavailable)
	}
	return false
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

func (r cacheRemovals) forget(encKey string) {
	if r.pending.Load() != 0 {
		r.pendingRemovals.forget(r.prefix + encKey + "}")
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
	o.put(func() {
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
	o.put(func() {
		if o.tags[key].how == tagDelete {
			how = tagDelete // the stronger one stays
		}
		o.tags[key] = queuedTag{how, o.last}
	})
}

func (o *pendingRemovals) put(add func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx.Err() != nil {
		return
	}
	o.last++
	add()
	o.count()
	if !o.running {
		o.running = true
		o.done.Go(o.run)
	}
}

func (o *pendingRemovals) count() { o.pending.Store(int64(len(o.values) + len(o.tags))) }

// forget takes a value out that was removed or replaced meanwhile.
func (o *pendingRemovals) forget(key string) {
	if o.pending.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.values, key)
	o.count()
}

// run waits until Redis is back and sends what waits, until nothing does.
func (o *pendingRemovals) run() {
	for pause := replayFirst; o.await(pause); pause = min(2*pause, replayMost) {
		o.replay()
		o.mu.Lock()
		if o.pending.Load() == 0 {
			o.running = false
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
	}
}

// await waits for a while, and until Redis can be used; false after close.
func (o *pendingRemovals) await(pause time.Duration) bool {
	select {
	case <-time.After(pause):
	case <-o.ctx.Done():
		return false
	}
	for st := range o.registry.r.Watch(o.ctx) {
		switch st.State {
		case madcrow.StateUp, madcrow.StateDegraded:
			if !st.ReadOnly {
				return true
			}
		case madcrow.StateClosed:
			return false
		}
	}
	return false
}

func (o *pendingRemovals) close() {
	o.mu.Lock()
	o.cancel()
	o.mu.Unlock()
	o.done.Wait()
}

// replay sends what waits, and keeps what is worth another try.
func (o *pendingRemovals) replay() {
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
		if !o.sent(key, replaceTag(o.ctx, o.registry.r, key, t.how)) {
			return
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
			o.replayValues(part, values)
			part = part[:0]
		}
	}
	o.replayValues(part, values)
}

func (o *pendingRemovals) replayValues(keys []string, values map[string]queuedValue) {
	if len(keys) == 0 {
		return
	}
	results, err := o.registry.r.DoMulti(o.ctx, func(b madcrow.Builder) []madcrow.Command {
		cmds := make([]madcrow.Command, 0, 2*len(keys))
		for _, key := range keys { // each alone: their slot may be on its way to another node
			cmds = append(cmds, b.Del().Key(key+leaseSuffix).Build(), b.Del().Key(key).Build())
		}
		return cmds
	})
	for i, key := range keys {
		if len(results) == 2*len(keys) {
			if err = results[2*i].Err; err == nil {
				err = results[2*i+1].Err
			}
		}
		if !o.sent(key, err) {
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
func (o *pendingRemovals) sent(key string, err error) bool {
	if err == nil {
		return true
	}
	if o.retryable(err) || o.ctx.Err() != nil {
		return false
	}
	if o.failed.First(err) {
		o.log.Error("removals that were queued failed for good", "first", key, "reason", err)
	}
	return true
}
