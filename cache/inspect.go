package cache

import (
	"context"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/keys"
)

// Entry is what Redis holds under one key of a cache, for tools that do not know
// the type of its values.
type Entry struct {
	// Codec is the ID of the codec that wrote Data, the encoded value.
	Codec byte
	Data  []byte
	// Negative is true where the absence of a value is cached. There is no Data
	// then.
	Negative bool
	// Removed is true when a tag, or the whole cache, was removed since: no one
	// is served it.
	Removed bool
	// Age is how long ago it was stored, or touched.
	Age time.Duration
	// TTL is how long it is still fresh; 0 for a stale one.
	TTL time.Duration
	// KeptFor is when Redis drops it, TTL included; -1 is never: somebody took
	// its lifetime away.
	KeptFor time.Duration
	// Cost is how long it took to load; 0 where it was set.
	Cost time.Duration
	// ETag is the one the loader set.
	ETag string
	// Tags are those it can be removed by.
	Tags []string
}

// Inspect looks at the entry of a key in the cache of that name, as it is in
// Redis: near copies are neither asked nor made. It changes nothing. A missing
// key is false. What is there but is no entry is a [*madcrow.Error], and so is Redis
// away. It takes two round trips.
func Inspect(ctx context.Context, r *madcrow.Redis, name, key string) (Entry, bool, error) {
	if err := checkName(name); err != nil {
		return Entry{}, false, err
	}
	failed := func(err error) (Entry, bool, error) {
		return Entry{}, false, fail.Wrap("inspect", name, err)
	}
	prefix := r.Config().KeyPrefix
	got := r.GetTracked(ctx, []string{valuePrefix(prefix, name) + keys.Encode(key) + "}"})[0]
	switch {
	case got.Err != nil:
		return failed(got.Err)
	case got.Message.IsNil():
		return Entry{}, false, nil
	}
	raw, err := got.Message.ToString()
	if err != nil {
		return failed(err)
	}
	h, size, err := parseHeader(raw, nil)
	if err != nil {
		return failed(err)
	}
	e := Entry{
		Codec: h.codec, Data: []byte(raw[size:]), Negative: h.negative,
		KeptFor: got.TTL, Cost: h.cost, ETag: h.etag,
	}
	if got.TTL >= 0 {
		e.Age = max(0, h.storedFor-got.TTL)
	}
	e.TTL = max(0, h.freshFor-e.Age)
	v, err := inspectTags(ctx, newTagTable(r, prefix, name, 0), h.tags)
	if err != nil {
		return failed(err)
	}
	if e.Removed = v == gone; v == stale {
		e.TTL = 0
	}
	for _, m := range h.tags {
		if m.name != "" { // that of the whole cache
			e.Tags = append(e.Tags, m.name)
		}
	}
	return e, true, nil
}

// inspectTags compares an entry with its tags. One that is missing has taken the
// entry with it, and is not made again.
func inspectTags(ctx context.Context, t *tagTable, marks []tagMark) (freshness, error) {
	names := make([]string, 0, len(marks))
	for _, m := range marks {
		if m.name != "" {
			names = append(names, m.name)
		}
	}
	states := t.of(names)
	ask := make([]string, len(states))
	for i, s := range states {
		ask[i] = s.key
	}
	gens := make([]*tagGen, len(states))
	for i, got := range t.r.GetTracked(ctx, ask) {
		if got.Err != nil {
			return gone, got.Err
		}
		if gens[i] = t.gen(got, clock.Now()); gens[i] == nil {
			return gone, nil
		}
	}
	v, _ := compareTags(marks, states, gens)
	return v, nil
}
