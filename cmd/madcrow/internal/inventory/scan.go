package inventory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/keys"
)

// pageSize is how many keys Redis passes in one step: at most a few milliseconds
// of its time.
const pageSize = 1000

// passed is what a scan has seen.
type passed struct {
	keys int64
	why  string // it is not complete; empty: it is
}

// slots is how many slots a cluster has.
const slots = 1 << 14

// place is a node, by a key of one of its slots. A server that is no cluster is one
// place.
type place struct {
	key  string
	slot bool
}

// to sends a command that has no key to a place.
func (p place) to(cmd madcrow.Command) madcrow.Command {
	if p.slot {
		return cmd.SetSlot(p.key)
	}
	return cmd
}

// scan calls each for every key that matches, on all nodes at the same time, until ctx
// ends. Calls do not overlap. A key may come twice.
func scan(ctx context.Context, r *madcrow.Redis, match string, progress func(passed, all int64), each func(key string)) (passed, error) {
	places, err := placesOf(ctx, r)
	if err != nil {
		return passed{}, err
	}
	s := &scanner{r: r, match: match, progress: progress, each: each}
	var all sync.WaitGroup
	for _, p := range places {
		all.Go(func() { s.node(ctx, p) })
	}
	all.Wait()
	out := passed{keys: s.keys}
	switch {
	case len(s.failures) == len(places) && ctx.Err() == nil:
		return out, errors.Join(s.failures...)
	case ctx.Err() != nil:
		out.why = fmt.Sprintf("the time is over: about %d of %d keys were looked at", min(s.passed, s.keys), s.keys)
	case len(s.failures) > 0:
		out.why = fmt.Sprintf("%d of %d nodes could not be asked: %v", len(s.failures), len(places), s.failures[0])
	}
	return out, nil
}

type scanner struct {
	r        *madcrow.Redis
	match    string
	progress func(passed, all int64)
	each     func(key string)

	mu           sync.Mutex
	passed, keys int64
	failures     []error
}

// node passes all keys of a node.
func (s *scanner) node(ctx context.Context, at place) {
	if err := s.pages(ctx, at); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failures = append(s.failures, err)
	}
}

func (s *scanner) pages(ctx context.Context, at place) error {
	m, err := s.r.Do(ctx, at.to(s.r.B().Dbsize().Build())).Message()
	if err != nil {
		return err
	}
	size, err := m.AsInt64()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.keys += size
	s.mu.Unlock()
	for cursor, left := uint64(0), size; ; {
		m, err := s.r.Do(ctx, at.to(s.r.B().Scan().Cursor(cursor).Match(s.match).Count(pageSize).Build())).Message()
		if err != nil {
			return err
		}
		page, err := m.AsScanEntry()
		if err != nil {
			return err
		}
		step := min(pageSize, left)
		left -= step
		s.page(page.Elements, step)
		if cursor = page.Cursor; cursor == 0 {
			return nil
		}
	}
}

func (s *scanner) page(keys []string, step int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		s.each(key)
	}
	s.passed += step
	if s.progress != nil {
		s.progress(s.passed, s.keys)
	}
}

// placesOf returns all nodes that hold keys.
func placesOf(ctx context.Context, r *madcrow.Redis) ([]place, error) {
	if !r.Config().Cluster.Enabled {
		return []place{{}}, nil
	}
	m, err := r.Do(ctx, r.B().ClusterSlots().Build()).Message()
	if err != nil {
		return nil, err
	}
	ranges, err := m.ToArray()
	if err != nil {
		return nil, err
	}
	ofNode := map[string]uint16{} // a slot of each master
	for i := range ranges {
		fields, err := ranges[i].ToArray()
		if err != nil || len(fields) < 3 {
			continue
		}
		slot, err1 := fields[1].AsInt64() // the last: slot 0 looks like none
		master, err2 := fields[2].ToArray()
		if err := errors.Join(err1, err2); err != nil || len(master) < 2 {
			continue
		}
		host, _ := master[0].ToString()
		port, _ := master[1].AsInt64()
		ofNode[host+":"+strconv.FormatInt(port, 10)] = uint16(slot)
	}
	if len(ofNode) == 0 {
		return nil, errors.New("the cluster names no node that holds slots")
	}
	wanted := map[uint16]bool{}
	for _, slot := range ofNode {
		wanted[slot] = true
	}
	var out []place
	for i := 0; len(out) < len(wanted); i++ {
		key := strconv.Itoa(i)
		cmd := r.Client().B().Get().Key(key).Build()
		if slot := cmd.Slot() & (slots - 1); wanted[slot] {
			wanted[slot] = false
			out = append(out, place{key, true})
		}
	}
	return out, nil
}

// elsewhereWithin bounds the search of Elsewhere.
const elsewhereWithin = 2 * time.Second

// Elsewhere names other prefixes with keys of Madcrow, and other databases that
// have keys, as far as they are found quickly: for somebody who looks in the wrong
// place.
func Elsewhere(ctx context.Context, r *madcrow.Redis) (places []string) {
	ctx, cancel := context.WithTimeout(ctx, elsewhereWithin)
	defer cancel()
	prefixes := map[string]bool{}
	_, _ = scan(ctx, r, "*"+keys.Typed+"*", nil, func(key string) {
		before, rest, _ := strings.Cut(key, keys.Typed)
		kind, _, _ := strings.Cut(rest, ":")
		if _, known := patterns[Kind(kind+"s")]; (known || kind == Login) && before != r.Config().KeyPrefix {
			prefixes[before] = true
		}
	})
	for _, p := range slices.Sorted(maps.Keys(prefixes)) {
		places = append(places, "the prefix "+strconv.Quote(p))
	}
	if len(places) > 10 {
		places = append(places[:10], "…")
	}
	m, err := r.Do(ctx, r.B().Info().Section("keyspace").Build()).Message()
	if err != nil {
		return places
	}
	info, _ := m.ToString()
	for line := range strings.Lines(info) {
		name, _, found := strings.Cut(line, ":keys=")
		if db, isDB := strings.CutPrefix(name, "db"); found && isDB && db != strconv.Itoa(r.Config().DB) {
			places = append(places, "database "+db)
		}
	}
	return places
}
