package cache

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/keys"
)

// GetMany returns the values of those keys that have a fresh one; keys whose absence
// is cached are left out too. It takes one
// round trip for each node of Redis, and none for near copies. The error joins
// those of the keys that could not be asked; what could is returned with it.
func (c *Cache[T]) GetMany(ctx context.Context, wanted []string, opts ...CallOption) (map[string]T, error) {
	ca, err := c.options(opts)
	if err != nil {
		return nil, err
	}
	out := make(map[string]T, len(wanted))
	all, err := c.findMany(ctx, wanted, ca)
	for key, f := range all {
		if f.State == Fresh {
			if res := c.served(ctx, f); res.Found {
				out[key] = f.Value
			}
		} else {
			c.event(ctx, madcrow.EventCacheMiss)
		}
	}
	return out, c.failed("get many", err)
}

// findMany is find for many keys. Keys that could not be asked are missing in
// the result, and the error says why.
func (c *Cache[T]) findMany(ctx context.Context, wanted []string, ca call) (map[string]Found[T], error) {
	if c.over.Load() {
		return nil, ErrClosed
	}
	out := make(map[string]Found[T], len(wanted))
	var ask []string
	now := clock.Now()
	for _, key := range wanted {
		if _, twice := out[key]; twice {
			continue
		}
		if e, ok := c.fromNear(keys.Encode(key), now); ok && e.has(ca.tags) {
			out[key] = e.found(now)
			continue
		}
		out[key] = Found[T]{}
		ask = append(ask, key)
	}
	if len(ask) == 0 {
		return out, nil
	}
	states := c.tags.of(c.opt.Tags, ca.tags)
	removed := c.removals.hasTagOf(states)
	gens, err := c.tags.fetch(ctx, c.opt.ReadTimeout, 0, states)
	if err != nil {
		for _, key := range ask {
			delete(out, key)
		}
		return out, err
	}
	return out, c.readMany(ctx, ask, states, gens, removed, out)
}

// readMany asks for values whose tags are known; allRemoved says that one of
// these waited to be removed.
func (c *Cache[T]) readMany(ctx context.Context, ask []string, states []*tagState, gens []*tagGen, allRemoved bool, out map[string]Found[T]) error {
	encKeys := make([]string, len(ask))
	valueKeys := make([]string, len(ask))
	versions := make([]uint64, len(ask))
	removed := make([]bool, len(ask))
	for i, key := range ask {
		encKeys[i] = keys.Encode(key)
		removed[i] = allRemoved || c.removals.has(encKeys[i])
		valueKeys[i] = c.valueKey(encKeys[i])
		versions[i] = c.near.BeginRead(encKeys[i])
	}
	asked := clock.Now()
	var errs []error
	for i, got := range c.r.GetTracked(ctx, valueKeys, madcrow.Timeout(c.opt.ReadTimeout)) {
		f, keep, err := c.readReply(ctx, encKeys[i], got, states[:len(states):len(states)], slices.Clone(gens), asked)
		if removed[i] {
			f, keep = Found[T]{}, nil
		}
		c.near.EndRead(encKeys[i], versions[i], keep)
		if err != nil {
			delete(out, ask[i])
			errs = append(errs, err)
			continue
		}
		out[ask[i]] = f
	}
	if len(errs) > 0 {
		return errs[0] // they are all alike
	}
	return nil
}

// SetMany stores values, in one round trip for each node of Redis. The error
// joins those of the keys that failed; the others are stored.
func (c *Cache[T]) SetMany(ctx context.Context, values map[string]T, opts ...CallOption) error {
	ca, err := c.options(opts)
	if err != nil || len(values) == 0 {
		return err
	}
	if c.over.Load() {
		return c.failed("set", ErrClosed)
	}
	return c.r.Within(ctx, func(ctx context.Context) error { return c.writeMany(ctx, values, ca) })
}

// encoded is a value as it goes to Redis.
type encoded struct {
	encKey, valueKey, entry string
	life                    int64 // milliseconds
}

func (c *Cache[T]) encodeMany(values map[string]T, ca call, marked []tagMark) ([]encoded, error) {
	all := make([]encoded, 0, len(values))
	for key, value := range values {
		ttl := c.jittered(c.ttlOf(ca))
		h := header{codec: c.opt.Codec.ID(), freshFor: ttl, storedFor: ttl + c.opt.StaleTTL, tags: marked}
		entry, err := codec.Append(c.opt.Codec, h.appendTo(nil), value)
		if err != nil {
			return nil, err
		}
		encKey := keys.Encode(key)
		all = append(all, encoded{encKey, c.valueKey(encKey), text(entry), h.storedFor.Milliseconds()})
	}
	return all, nil
}

// writeMany reads the tags of values and sends the values, within one deadline.
func (c *Cache[T]) writeMany(ctx context.Context, values map[string]T, ca call) error {
	states := c.tags.of(c.opt.Tags, ca.tags)
	gens, err := c.tags.fetch(ctx, 0, c.ttlOf(ca)+c.opt.StaleTTL, states)
	if err != nil {
		var errs []error
		for key := range values {
			errs = append(errs, c.queue(ctx, "set", keys.Encode(key), err))
		}
		return errors.Join(errs...)
	}
	all, err := c.encodeMany(values, ca, marks(states, gens))
	if err != nil {
		return c.failed("encode", err)
	}
	for _, e := range all {
		c.changing(e.encKey)
	}
	failures, err := c.sendMany(ctx, all)
	if err != nil {
		return err
	}
	var errs []error
	for i, e := range all {
		c.changing(e.encKey)
		if failures[i] != nil {
			errs = append(errs, c.queue(ctx, "set", e.encKey, failures[i]))
		} else {
			c.removals.discard(e.encKey)
		}
	}
	return errors.Join(errs...)
}

// sendMany returns what failed, of each value.
func (c *Cache[T]) sendMany(ctx context.Context, all []encoded) (failures []error, err error) {
	failures = make([]error, len(all))
	together := func(ctx context.Context) error {
		cmds := make([]madcrow.Command, len(all))
		for i, e := range all {
			cmds[i] = c.r.B().Eval().Script(luaSet).Numkeys(2).Key(e.valueKey, e.valueKey+leaseSuffix).Arg(e.entry, strconv.FormatInt(e.life, 10)).Build()
		}
		results, err := c.r.DoMulti(ctx, cmds...)
		for i, e := range all {
			if failures[i] = err; len(results) == len(all) {
				failures[i] = results[i].Err()
			}
			if errors.Is(failures[i], madcrow.ErrSlotMoving) {
				failures[i] = c.setSplit(ctx, e.valueKey, e.entry, e.life)
			}
		}
		return nil
	}
	// It begins with the pipeline also while the slot of the first key is being
	// moved: the other keys may be of other slots. It returns no error, so it runs once.
	return failures, c.r.SplitKeys(ctx, all[0].valueKey, together, together)
}

// GetOrLoadMany returns the values of keys, and loads those that have no fresh
// one with one call of load, which is given the keys that are missing and
// returns what there is of them: a key that it leaves out does not exist. That is
// cached as [ErrNotFound] is by GetOrLoad, and the result leaves the key out. A key that somebody else is loading already, here or in
// another process, is waited for and not loaded twice; then load may be called
// with fewer keys, or again with one of them.
//
// The values that could be had are returned in any case. The error joins what
// failed, with stale values in the place of errors as in [Cache.GetOrLoad].
func (c *Cache[T]) GetOrLoadMany(ctx context.Context, wanted []string, load func(ctx context.Context, missing []string) (map[string]T, error), opts ...CallOption) (map[string]T, error) {
	ca, err := c.options(opts)
	if err != nil {
		return nil, err
	}
	all, readErr := c.findMany(ctx, wanted, ca)
	if readErr != nil && (ctx.Err() != nil || errors.Is(readErr, ErrClosed) || errors.Is(readErr, madcrow.ErrCanceled)) {
		return nil, c.failed("load many", readErr) // it says nothing of Redis
	}
	out := make(map[string]T, len(wanted))
	b := &batch[T]{c: c, load: load, ready: make(chan struct{})}
	var wait []*loader[T]
	for key, f := range all {
		if f.State == Fresh {
			if res := c.served(ctx, f); res.Found {
				out[key] = f.Value
			}
			if !f.refresh {
				continue
			}
		} else {
			c.event(ctx, madcrow.EventCacheMiss)
		}
		j := b.add(key, ca, f)
		if f.State != Fresh {
			wait = append(wait, j)
		}
	}
	for _, key := range wanted {
		if _, asked := all[key]; !asked { // Redis could not be asked
			all[key] = Found[T]{}
			j := b.add(key, ca, c.lastKnown(keys.Encode(key), ca.tags))
			j.readErr = readErr
			wait = append(wait, j)
		}
	}
	b.start(ctx)
	var errs []error
	for _, l := range wait {
		res, err := l.batch.waiting.await(ctx)
		switch {
		case err == nil && res.Found:
			out[l.batch.key] = res.Value
		case err != nil && !errors.Is(err, ErrNotFound):
			errs = append(errs, err)
		}
	}
	return out, errors.Join(dedupe(errs)...)
}

// dedupe keeps one of errors that say the same: one load failed for many keys.
func dedupe(errs []error) []error {
	seen := map[string]bool{}
	return slices.DeleteFunc(errs, func(err error) bool {
		text := err.Error()
		was := seen[text]
		seen[text] = true
		return was
	})
}

// batch is one call of GetOrLoadMany. Each key has a flight of its own, so that
// others can join it; those that may load wait for one another, and one loads
// for all.
type batch[T any] struct {
	c     *Cache[T]
	load  func(context.Context, []string) (map[string]T, error)
	loads []*loader[T]

	mu      sync.Mutex
	expect  int           // flights that may still load together
	arrived []string      // keys of those that are ready to
	ready   chan struct{} // closed when all are
	once    sync.Once
	values  map[string]T
	err     error
}

// batchSlot is the place of one flight in a batch.
type batchSlot[T any] struct {
	b    *batch[T]
	key  string
	once sync.Once

	waiting waiting[T]
}

func (b *batch[T]) add(key string, ca call, old Found[T]) *loader[T] {
	s := &batchSlot[T]{b: b, key: key}
	l := &loader[T]{c: b.c, req: request{encKey: keys.Encode(key), call: ca}, load: s.load, old: old, batch: s}
	b.loads = append(b.loads, l)
	return l
}

// start begins or joins a flight for each key.
func (b *batch[T]) start(ctx context.Context) {
	b.expect = len(b.loads)
	for _, l := range b.loads {
		l.batch.waiting = b.c.begin(ctx, l)
		if l.flight == nil { // another caller loads it, or it has just failed
			l.batch.leave()
		}
	}
}

// leave says that this flight does not load with the others.
func (s *batchSlot[T]) leave() {
	s.once.Do(func() { s.b.change(func() { s.b.expect-- }) })
}

func (b *batch[T]) change(how func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if how(); len(b.arrived) == b.expect && b.expect > 0 {
		close(b.ready)
	}
}

// load is the loader of one key.
func (s *batchSlot[T]) load(ctx context.Context, _ *Load[T]) (v T, err error) {
	b := s.b
	together := false
	s.once.Do(func() {
		together = true
		b.change(func() { b.arrived = append(b.arrived, s.key) })
	})
	if !together { // it had to wait for another process
		values, err := b.loadNow(ctx, []string{s.key})
		return s.pick(values, err)
	}
	select {
	case <-b.ready:
	case <-ctx.Done():
		return v, ctx.Err()
	}
	b.once.Do(func() {
		b.err = ofLoader(errGoexit) // for the others, should it end so
		b.values, b.err = b.loadNow(ctx, b.arrived)
	})
	return s.pick(b.values, b.err)
}

func (b *batch[T]) loadNow(ctx context.Context, missing []string) (_ map[string]T, err error) {
	if err := b.c.flights.slot(ctx); err != nil {
		return nil, err
	}
	defer b.c.flights.leaveSlot()
	return guarded(ctx, &b.c.events, func(ctx context.Context) (map[string]T, error) { return b.load(ctx, missing) })
}

// pick finds one value among those that were loaded. What there is counts even
// beside an error.
func (s *batchSlot[T]) pick(values map[string]T, err error) (v T, _ error) {
	if v, ok := values[s.key]; ok {
		return v, nil
	}
	if err != nil {
		return v, err
	}
	return v, ErrNotFound
}
