package cache

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/keys"
)

// A tag is a random generation in Redis; an entry carries the one that was in
// force when its load began. Invalidating a tag replaces the generation, in
// O(1), without clocks. A generation that is not there is made again, so that
// one that was evicted takes its entries with it.
//
// There are two of them in one value: "deleted" and "expired". An entry of
// another deleted one is gone, one of another expired one is stale.

// maxTagStates bounds how many tags a process remembers.
const maxTagStates = 65536

// minTagLife is how long a tag lives at least after it was made, and minShortLife
// one of those that anybody can have made.
const (
	minTagLife   = 24 * time.Hour
	minShortLife = 10 * time.Minute
)

// maxTagTries bounds how often a tag is made that is then not there.
const maxTagTries = 5

var errTagLost = errors.New("redis does not keep a tag")

// tagGen is what was read of a tag. It does not change.
type tagGen struct {
	deleted, expired uint64
	dies             int64             // when Redis drops it, monotonic
	tracking         *madcrow.Tracking // nil: believed until
	until            int64

	// Of the whole cache alone, which most entries have for their only tag: lists
	// of it, made once.
	gens []*tagGen
	tags []nearTag
}

func (g *tagGen) valid(now int64) bool {
	return g != nil && (g.tracking.Valid() || g.tracking == nil && now < g.until)
}

// tagState is what this process knows of a tag.
type tagState struct {
	name, key string
	cur       atomic.Pointer[tagGen] // nil: nothing

	mu      sync.Mutex
	version uint64 // counts what may have changed it
	dead    bool   // it no longer hears of changes
}

// invalidate notes that the tag may have changed.
func (s *tagState) invalidate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.cur.Store(nil)
}

// die is invalidate for good.
func (s *tagState) die() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	s.cur.Store(nil)
}

func (s *tagState) seen() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// learn keeps what was read, unless the tag may have changed since version.
func (s *tagState) learn(g *tagGen, version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.version == version && !s.dead {
		s.cur.Store(g)
	}
}

// same says whether both are of one tag: a process may have forgotten one.
func (s *tagState) same(o *tagState) bool { return s == o || s.key == o.key }

// still says whether what is known of the tag is what g says.
func (s *tagState) still(g *tagGen, now int64) bool {
	cur := s.cur.Load()
	return cur.valid(now) && cur.deleted == g.deleted && cur.expired == g.expired
}

// tagTable is the tags of one cache.
type tagTable struct {
	r       *madcrow.Redis
	prefix  string
	nearTTL time.Duration
	// shortLived begins the names of tags that anybody can have made; "" is none.
	shortLived string
	whole      *tagState   // of the cache itself, for Clear
	alone      []*tagState // whole
	states     *otter.Cache[string, *tagState]
	// hashed holds those whose key does not show their name, by form: rare.
	hashed  sync.Map
	changes atomic.Uint64 // counts those of all tags
}

func newTagTable(r *madcrow.Redis, prefix, name string, nearTTL time.Duration) *tagTable {
	t := &tagTable{
		r: r, prefix: prefix + "m1:tag:{", nearTTL: nearTTL,
		whole: &tagState{key: prefix + "m1:cache:" + name + ":gen"},
	}
	t.alone = []*tagState{t.whole}
	t.states = otter.Must(&otter.Options[string, *tagState]{
		MaximumSize: maxTagStates,
		// What near copies hold on to must not be believed when no one hears
		// of its changes any more.
		OnAtomicDeletion: func(e otter.DeletionEvent[string, *tagState]) {
			e.Value.die()
			if encKey := t.encKeyOf(e.Value.key); encKey[0] == keys.Hashed[0] {
				t.hashed.CompareAndDelete(encKey, e.Value)
			}
		},
	})
	return t
}

func (t *tagTable) encKeyOf(key string) string { return key[len(t.prefix) : len(key)-1] }

func (t *tagTable) state(name string) *tagState {
	if s, ok := t.states.GetIfPresent(name); ok {
		return s
	}
	name = strings.Clone(name) // it may be a piece of an entry
	encKey := keys.Encode(name)
	s, added := t.states.SetIfAbsent(name, &tagState{name: name, key: t.prefix + encKey + "}"})
	if added && encKey[0] == keys.Hashed[0] {
		t.hashed.Store(encKey, s)
		if now, _ := t.states.GetIfPresent(name); now != s { // it has gone meanwhile
			t.hashed.CompareAndDelete(encKey, s)
		}
	}
	return s
}

// still says whether what was read of an entry's tags is so now; seen is what
// changes was before. It does not say so wrongly.
func (t *tagTable) still(tags []nearTag, seen uint64) bool {
	if t.changes.Load() == seen {
		return true
	}
	now := clock.Now()
	for i := range tags {
		if !tags[i].state.still(tags[i].gen, now) {
			return false
		}
	}
	return true
}

// invalidated is called with every key that changed.
func (t *tagTable) invalidated(key string) bool {
	if key == t.whole.key {
		t.whole.invalidate()
		t.changes.Add(1)
		return true
	}
	if len(key) < len(t.prefix)+2 || key[:len(t.prefix)] != t.prefix {
		return false
	}
	encKey := t.encKeyOf(key)
	if encKey[0] == keys.Hashed[0] {
		if s, ok := t.hashed.Load(encKey); ok {
			s.(*tagState).invalidate() //nolint:forcetypeassert // there is nothing else in it
		}
	} else if s, ok := t.states.GetIfPresent(encKey); ok {
		s.invalidate()
	}
	t.changes.Add(1)
	return true
}

// prolong lets tags live as long as an entry that is to live for need. Where
// that fails, the entry goes with them.
func (t *tagTable) prolong(ctx context.Context, need time.Duration, states []*tagState, gens []*tagGen) {
	for i, s := range states {
		if gens[i].dies-clock.Now() < int64(need) {
			_ = t.ensure(ctx, need, s)
		}
	}
}

// of returns the states of the whole cache and of tags. The list is not to be
// changed.
func (t *tagTable) of(names ...[]string) []*tagState {
	if !slices.ContainsFunc(names, func(some []string) bool { return len(some) > 0 }) {
		return t.alone
	}
	list := append(make([]*tagState, 0, 8), t.whole)
	for _, some := range names {
		for _, name := range some {
			if s := t.state(name); !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
	}
	return list
}

// known returns what is known of the states, and which of them must be read:
// tags have to live for at least need. Where none must, the list is not to be
// changed.
func (t *tagTable) known(need time.Duration, states []*tagState) (gens []*tagGen, unknown []int) {
	now := clock.Now()
	if len(states) == 1 && states[0] == t.whole {
		if g := t.whole.cur.Load(); g.valid(now) && g.dies-now >= int64(need) {
			return g.gens, nil
		}
	}
	gens = make([]*tagGen, len(states))
	for i, s := range states {
		if g := s.cur.Load(); g.valid(now) && g.dies-now >= int64(need) {
			gens[i] = g
		} else {
			unknown = append(unknown, i)
		}
	}
	return gens, unknown
}

// fetch returns what the states are now, asking for those that are not known.
func (t *tagTable) fetch(ctx context.Context, within, need time.Duration, states []*tagState) ([]*tagGen, error) {
	gens, unknown := t.known(need, states)
	return gens, t.complete(ctx, within, need, states, gens, unknown)
}

// complete asks for the unknown ones, all together, and makes those that are
// not there.
func (t *tagTable) complete(ctx context.Context, within, need time.Duration, states []*tagState, gens []*tagGen, unknown []int) error {
	for try := 0; len(unknown) > 0; try++ {
		names := make([]string, len(unknown))
		versions := make([]uint64, len(unknown))
		for i, at := range unknown {
			names[i], versions[i] = states[at].key, states[at].seen()
		}
		asked := clock.Now()
		var later []int
		for i, got := range t.r.GetTracked(ctx, names, madcrow.Timeout(within)) {
			at := unknown[i]
			if got.Err != nil && !errors.Is(got.Err, madcrow.ErrWrongType) {
				return got.Err
			}
			if gens[at] = t.accept(states[at], got, asked, versions[i], need, try > 2); gens[at] != nil {
				continue
			}
			if try == maxTagTries {
				return errTagLost
			}
			if err := t.ensure(ctx, need, states[at]); err != nil {
				return err
			}
			later = append(later, at)
		}
		unknown = later
	}
	return nil
}

// accept takes over what was read of a tag: nil when it is not there, or would
// not live long enough.
func (t *tagTable) accept(s *tagState, got madcrow.Tracked, asked int64, version uint64, need time.Duration, anyway bool) *tagGen {
	g := t.gen(got, asked)
	if g == nil || g.dies-asked < int64(need) && !anyway {
		return nil
	}
	if s == t.whole {
		g.gens, g.tags = []*tagGen{g}, []nearTag{{s, g}}
	}
	s.learn(g, version)
	return g
}

// ensure makes a tag that is not there, and prolongs one that is.
func (t *tagTable) ensure(ctx context.Context, need time.Duration, s *tagState) error {
	life := max(2*need, minTagLife)
	if t.shortLived != "" && strings.HasPrefix(s.name, t.shortLived) {
		life = max(2*need, minShortLife)
	}
	err := t.r.Eval(ctx, scriptTag, []string{s.key}, []string{newGeneration() + newGeneration(), millis(life), tagKeep}).Err()
	return err
}

// gen reads the reply; nil is one that is not there, or cannot be read.
func (t *tagTable) gen(got madcrow.Tracked, asked int64) *tagGen {
	if got.Err != nil {
		return nil
	}
	text, err := got.Message.ToString()
	if err != nil || len(text) != 32 || strings.ToLower(text) != text {
		return nil
	}
	var raw [16]byte
	if _, err := hex.Decode(raw[:], []byte(text)); err != nil {
		return nil
	}
	g := &tagGen{
		deleted: binary.BigEndian.Uint64(raw[:8]), expired: binary.BigEndian.Uint64(raw[8:]),
		dies: asked + int64(got.TTL), tracking: got.Tracking,
	}
	if got.TTL < 0 {
		g.dies = asked + int64(maxTTL)
	}
	if g.tracking == nil {
		g.until = asked + int64(t.nearTTL)
	}
	return g
}

// newGeneration is 64 random bits as text. They need not be secret.
func newGeneration() string {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], rand.Uint64()) //nolint:gosec // as said
	return hex.EncodeToString(raw[:])
}

// changeTag replaces a generation of a tag: both for what is to be gone, one
// for what is to be stale.
func changeTag(ctx context.Context, f *registry, key, how string) error {
	f.tagChanges(key)
	err := replaceTag(ctx, f.r, key, how)
	f.tagChanges(key)
	return err
}

func replaceTag(ctx context.Context, r *madcrow.Redis, key, how string) error {
	err := r.Eval(ctx, scriptTag, []string{key}, []string{newGeneration() + newGeneration(), millis(minTagLife), how}).Err()
	return err
}

// The ways to change a tag, as the script knows them.
const (
	tagKeep   = "keep"
	tagDelete = "delete"
	tagExpire = "expire"
)

// freshness compares what an entry carries with what is in force.
type freshness uint8

const (
	fresh freshness = iota
	stale
	gone
)

// compareTags says what an entry is by its tags. missing names tags of the entry
// whose state is not among those that are known.
func compareTags(marks []tagMark, states []*tagState, gens []*tagGen) (v freshness, missing []string) {
	for i := range marks {
		m := &marks[i]
		at := slices.IndexFunc(states, func(s *tagState) bool { return s.name == m.name })
		if at < 0 {
			missing = append(missing, m.name)
			continue
		}
		switch g := gens[at]; {
		case g.deleted != m.deleted:
			return gone, nil
		case g.expired != m.expired:
			v = stale
		}
	}
	for _, s := range states {
		if !slices.ContainsFunc(marks, func(m tagMark) bool { return m.name == s.name }) {
			return gone, nil // it could not be removed by this tag
		}
	}
	return v, missing
}
