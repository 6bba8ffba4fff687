package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/memsize"
)

// Presence is what a read found.
type Presence uint8

// What a lookup can find.
const (
	Missing Presence = iota
	Stale
	Fresh
)

// Found is what a lookup found of a key. It is for [Engine].
type Found[T any] struct {
	State     Presence
	near      bool
	Value     T
	negative  bool
	etag      string
	Age, TTL  time.Duration
	cost      time.Duration
	storedFor time.Duration
	head      string // how the entry begins
	tags      []nearTag
	refresh   bool // it is time to load it again
}

// request is a key and what a call says of it, as every step of the call needs it.
type request struct {
	encKey string
	call   call
	states []*tagState // of all its tags, the whole cache's first; nil: see addTags
}

// addTags sets the tags of a request. A near hit does without.
func (c *Cache[T]) addTags(req *request) {
	if req.states == nil {
		req.states = c.tags.of(c.opt.Tags, req.call.tags)
	}
}

// lookup returns what there is of a key: near, then in Redis. The request is for
// the steps that follow.
func (c *Cache[T]) lookup(ctx context.Context, key string, ca call) (Found[T], request, error) {
	req := request{encKey: keys.Encode(key), call: ca}
	if c.over.Load() {
		return Found[T]{}, req, ErrClosed
	}
	now := clock.Now()
	if e, ok := c.fromNear(req.encKey, now); ok && e.has(ca.tags) {
		return e.found(now), req, nil
	}
	c.addTags(&req)
	f, err := c.read(ctx, req)
	return f, req, err
}

// read asks Redis for a value, and for the tags that are not known, in one
// round trip. It keeps a near copy. The request has its tags.
func (c *Cache[T]) read(ctx context.Context, req request) (Found[T], error) {
	encKey, states := req.encKey, req.states
	removed := c.removals.hasAny(encKey, states)
	gens, unknown := c.tags.known(0, states)
	ask := make([]string, 1, 1+len(unknown))
	ask[0] = c.valueKey(encKey)
	versions := make([]uint64, len(unknown))
	for i, at := range unknown {
		ask = append(ask, states[at].key)
		versions[i] = states[at].seen()
	}
	var version uint64
	if c.near.Enabled() {
		version = c.near.BeginRead(encKey)
	}
	asked := clock.Now()
	var got []madcrow.Tracked
	if req.call.readOnly && !c.near.Enabled() && len(unknown) == 0 {
		got = c.r.GetWithTTL(ctx, ask, madcrow.Timeout(c.opt.ReadTimeout))
	} else {
		got = c.r.GetTracked(ctx, ask, madcrow.Timeout(c.opt.ReadTimeout))
	}
	for i, at := range unknown {
		gens[at] = c.tags.accept(states[at], got[1+i], asked, versions[i], 0, false)
	}
	f, keep, err := c.readReply(ctx, encKey, got[0], states, gens, asked)
	if removed {
		f, keep = Found[T]{}, nil
	}
	if c.near.Enabled() {
		c.near.EndRead(encKey, version, keep)
	}
	return f, err
}

// readReply returns what a reply holds, and what keeps a near copy of it, if there
// is to be one.
func (c *Cache[T]) readReply(ctx context.Context, encKey string, got madcrow.Tracked, states []*tagState, gens []*tagGen, asked int64) (f Found[T], keep func(), err error) {
	switch {
	case errors.Is(got.Err, madcrow.ErrWrongType):
		c.undecodable(ctx, "type", got.Err)
		return f, nil, nil
	case got.Err != nil:
		return f, nil, got.Err
	}
	var room [2]tagMark
	f, marked, ok := c.decode(ctx, got, room[:0])
	if !ok || c.removals.has(encKey) {
		return Found[T]{}, nil, nil
	}
	if err := c.applyTags(ctx, &f, marked, states, gens); err != nil {
		return Found[T]{}, nil, err
	}
	if f.State == Fresh {
		c.plan(&f, encKey)
		if c.near.Enabled() {
			keep = c.keep(encKey, f, got.Tracking, asked, c.weigh(encKey, &f, sizeOf(got)))
		}
	}
	return f, keep, nil
}

// weigh returns what a near copy takes in memory: that of the decoded value,
// which may be many times what Redis sent, or of what Redis sent where the
// value is a part of it.
func (c *Cache[T]) weigh(encKey string, f *Found[T], sent int) uint32 {
	size := memsize.Of(&f.Value)
	if codec.Adopts(c.opt.Codec) {
		size = max(size, sent)
	}
	return weightOf(encKey, size+len(f.etag))
}

func sizeOf(got madcrow.Tracked) int {
	s, _ := got.Message.ToString()
	return len(s)
}

// applyTags makes an entry stale, or a miss, as its tags say, and notes the tags as
// they were then. Tags that only the entry knows are asked for now.
func (c *Cache[T]) applyTags(ctx context.Context, f *Found[T], marked []tagMark, states []*tagState, gens []*tagGen) error {
	for i := range gens {
		if gens[i] == nil {
			if err := c.tags.complete(ctx, c.opt.ReadTimeout, 0, states, gens, []int{i}); err != nil {
				return err
			}
		}
	}
	v, missing := compareTags(marked, states, gens)
	removed := false
	if v != gone && len(missing) > 0 {
		more := c.tags.of(missing)[1:]
		removed = c.removals.hasTagOf(more)
		moreGens, err := c.tags.fetch(ctx, c.opt.ReadTimeout, 0, more)
		if err != nil {
			return err
		}
		states, gens = append(states, more...), append(gens, moreGens...)
		v, _ = compareTags(marked, states, gens)
	}
	if len(gens) == 1 && gens[0].tags != nil {
		f.tags = gens[0].tags
	} else {
		f.tags = make([]nearTag, len(states))
		for i, s := range states {
			f.tags[i] = nearTag{s, gens[i]}
		}
	}
	if removed || c.removals.hasTagOf(states) {
		v = gone
	}
	switch {
	case v == gone, v == stale && f.negative: // an old absence is of no use
		*f = Found[T]{}
	case v == stale && f.State == Fresh:
		f.State, f.TTL = Stale, 0
	}
	return nil
}

// decode reads an entry; false is a miss, also for what cannot be read. There may
// be room for its tags.
func (c *Cache[T]) decode(ctx context.Context, got madcrow.Tracked, room []tagMark) (f Found[T], marked []tagMark, ok bool) {
	if got.Message.IsNil() {
		return f, nil, false
	}
	raw, err := got.Message.ToString()
	if err != nil {
		return f, nil, false
	}
	return c.decodeText(ctx, raw, got.TTL, room)
}

func (c *Cache[T]) decodeText(ctx context.Context, raw string, left time.Duration, room []tagMark) (f Found[T], marked []tagMark, ok bool) {
	h, size, err := parseHeader(raw, room)
	if err != nil {
		c.undecodable(ctx, "format", err)
		return f, nil, false
	}
	if own := c.opt.Codec.ID(); h.codec != own {
		c.undecodable(ctx, "codec", fmt.Errorf("the entry was written by codec %d, this cache has codec %d", h.codec, own))
		return f, nil, false
	}
	f = Found[T]{State: Fresh, negative: h.negative, etag: strings.Clone(h.etag), cost: h.cost, storedFor: h.storedFor, head: raw[:size]}
	if left >= 0 { // without a lifetime somebody took it away; it is fresh
		f.Age = max(0, h.storedFor-left)
	}
	if f.TTL = h.freshFor - f.Age; f.TTL <= 0 {
		f.State, f.TTL = Stale, 0
	}
	if !h.negative {
		if f.Value, err = codec.Adopt(c.opt.Codec, raw[size:]); err != nil {
			c.undecodable(ctx, "value", err)
			return Found[T]{}, nil, false
		}
	} else if f.State == Stale {
		return Found[T]{}, nil, false // an old absence is of no use
	}
	return f, h.tags, true
}

// undecodable reports an entry that counts as a miss. The log has each reason once,
// and another codec by its number; the text of a codec's own error may hold a part of
// the value.
func (c *Cache[T]) undecodable(ctx context.Context, reason string, err error) {
	c.events.Send(ctx, madcrow.Event{Type: madcrow.EventCacheUndecodable, Reason: reason, Err: err})
	said := errors.New(reason)
	if reason == "codec" {
		said = err
	}
	if !c.unreadable.First(said) {
		return
	}
	switch reason {
	case "codec":
		c.log.Warn("an entry of another codec counts as a miss: is another program, or another version of this one, using this cache's name with another codec or type?",
			"cache", c.name, "reason", err)
	case "value":
		c.log.Warn("an entry that the codec cannot decode counts as a miss: is another version of this program storing another type?", "cache", c.name)
	default:
		c.log.Warn("a key of the cache holds what is no entry, and counts as a miss: is another program using the same keys (REDIS_KEY_PREFIX)?", "cache", c.name)
	}
}

// plan says whether it is time to load a fresh value again, or to begin its life
// again.
func (c *Cache[T]) plan(f *Found[T], encKey string) {
	f.refresh = f.TTL <= c.refreshBefore(*f)
	if c.opt.Sliding && !f.negative && f.Age > (f.Age+f.TTL)/2 {
		c.slide(encKey, *f)
	}
}

// refreshBefore is how long before its end a value is loaded again.
func (c *Cache[T]) refreshBefore(f Found[T]) time.Duration {
	before := time.Duration(-1)
	if c.opt.RefreshAhead > 0 {
		before = time.Duration(float64(f.Age+f.TTL) * (1 - c.opt.RefreshAhead))
	}
	if c.opt.RefreshEarly > 0 {
		early := -float64(f.cost) * c.opt.RefreshEarly * math.Log(1-rand.Float64()) //nolint:gosec // no secret
		before = max(before, time.Duration(min(early, float64(maxTTL))))
	}
	return before
}

// keep returns what puts a copy near.
func (c *Cache[T]) keep(encKey string, f Found[T], tracking *madcrow.Tracking, asked int64, weight uint32) func() {
	life := f.TTL
	if tracking == nil {
		life = min(life, c.opt.NearTTL)
	}
	e := &nearEntry[T]{
		value: f.Value, negative: f.negative, etag: f.etag, tracking: tracking, weight: weight, tags: f.tags,
		stored: asked - int64(f.Age), expires: asked + int64(life), refresh: math.MaxInt64, slide: math.MaxInt64,
	}
	if before := c.refreshBefore(f); before >= 0 {
		e.refresh = asked + int64(f.TTL-before)
	}
	if c.opt.Sliding && !f.negative {
		e.slide = e.stored + int64(f.Age+f.TTL)/2
	}
	return func() { c.near.keep(encKey, e) }
}

// slide restarts the life of a value, in the background.
func (c *Cache[T]) slide(encKey string, f Found[T]) {
	c.background("slide "+encKey, func(ctx context.Context) { _, _ = c.touch(ctx, encKey, f) })
}

func (c *Cache[T]) slideLater(encKey string) {
	c.background("slide "+encKey, func(ctx context.Context) {
		req := request{encKey: encKey}
		c.addTags(&req)
		if f, err := c.read(ctx, req); err == nil && f.State == Fresh {
			_, _ = c.touch(ctx, encKey, f)
		}
	})
}

// background runs a task once at a time, until Close.
func (c *Cache[T]) background(name string, do func(context.Context)) {
	c.flights.once(name, func() { do(c.life) })
}

func (c *Cache[T]) ttlOf(ca call) time.Duration {
	if ca.ttl > 0 {
		return ca.ttl
	}
	return c.opt.TTL
}

// jittered shortens a life at random.
func (c *Cache[T]) jittered(d time.Duration) time.Duration {
	if c.opt.Jitter > 0 {
		d -= time.Duration(rand.Float64() * c.opt.Jitter * float64(d)) //nolint:gosec // no secret
	}
	return max(d.Truncate(time.Millisecond), time.Millisecond)
}

func marks(states []*tagState, gens []*tagGen) []tagMark {
	out := make([]tagMark, len(states))
	for i, s := range states {
		out[i] = tagMark{s.name, gens[i].deleted, gens[i].expired}
	}
	return out
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// text is bytes as the client takes them; they must not change after that.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
