// Package inventory finds what Madcrow keeps in a Redis: the names of caches,
// limits, semaphores, sessions, streams and topics. It looks at the keys under a
// prefix by SCAN, on every node, until its context ends.
package inventory

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/madcrow-go/madcrow"
)

// Kind is one kind of things. The text is that of the command line and of JSON.
type Kind string

// The kinds.
const (
	Caches     Kind = "caches"
	Limits     Kind = "limits"
	Semaphores Kind = "semaphores"
	Sessions   Kind = "sessions"
	Streams    Kind = "streams"
	Topics     Kind = "topics"
)

// Kinds are all kinds, in the order in which they are shown.
var Kinds = []Kind{Caches, Limits, Semaphores, Sessions, Streams, Topics}

// Options narrow what is looked for. The zero value finds everything.
type Options struct {
	// Kind finds one kind alone. Defaults to all.
	Kind Kind
	// NamesOnly leaves out what takes further commands: groups of streams and
	// the lengths of histories.
	NamesOnly bool
	// Progress, when set, is called after each step: how many keys were passed,
	// and how many there are. Calls do not overlap.
	Progress func(passed, all int64)
}

// Inventory is what was found. Lists are in the order of names.
type Inventory struct {
	Prefix string `json:"prefix"`
	// Keys is how many keys the database has, on all nodes.
	Keys int64 `json:"keys"`
	// Complete is false where the context ended, or a node could not be asked:
	// there may be more. Why says it.
	Complete bool   `json:"complete"`
	Why      string `json:"why,omitempty"`

	Caches     []Cache     `json:"caches"`
	Limits     []Limit     `json:"limits"`
	Semaphores []Semaphore `json:"semaphores"`
	Sessions   []Session   `json:"sessions"`
	Streams    []Stream    `json:"streams"`
	Topics     []Topic     `json:"topics"`
	Other      Other       `json:"other"`

	samples map[string]string // the key of an entry of each cache
}

// Cache is a typed cache, or one of responses (package httpcache).
type Cache struct {
	Name    string `json:"name"`
	HTTP    bool   `json:"http"`
	Entries int64  `json:"entries"`
	// Loading is how many entries are being loaded now.
	Loading int64 `json:"loading"`
}

// Login is the algorithm of a Limit that is a ratelimit.Login.
const Login = "login"

// Limit is a limit by one algorithm, or a login.
type Limit struct {
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	// Subjects have something counted, Blocked ones are denied everything. A login
	// remembers its blocks: of it, Blocked are also those whose block is over.
	Subjects int64 `json:"subjects"`
	Blocked  int64 `json:"blocked"`
}

// Semaphore is a concurrency limit.
type Semaphore struct {
	Name     string `json:"name"`
	Subjects int64  `json:"subjects"`
	Blocked  int64  `json:"blocked"`
}

// Session are the sessions of one session.Manager.
type Session struct {
	Name     string `json:"name"`
	Sessions int64  `json:"sessions"`
	// Users are those that are logged in.
	Users int64 `json:"users"`
}

// Stream is a stream of work.
type Stream struct {
	// Name is "~" and a hash where the name has other signs than letters, digits
	// and -_.:@/+=,| or is longer than 128 bytes. Hashed then.
	Name   string `json:"name"`
	Hashed bool   `json:"hashed,omitempty"`
	Length int64  `json:"length"`
	// Delayed messages wait for their time.
	Delayed int64   `json:"delayed"`
	Groups  []Group `json:"groups"`
}

// Group is a group of workers of a stream.
type Group struct {
	Name string `json:"name"`
	// Waiting is nil where Redis does not know.
	Waiting *int64 `json:"waiting"`
	Pending int64  `json:"pending"`
	Workers int64  `json:"workers"`
	Dead    int64  `json:"dead"`
	Lost    int64  `json:"lost"`
}

// Topic is a topic with a history.
type Topic struct {
	Name   string `json:"name"` // as that of a stream
	Hashed bool   `json:"hashed,omitempty"`
	// History is how many messages are kept, for KeptFor seconds from now on.
	History int64   `json:"history"`
	KeptFor float64 `json:"kept_for_seconds"`
}

// Other counts the keys that have no name of their own. Logins and BlockedLogins are
// those of the FastAPI layout.
type Other struct {
	Tags            int64 `json:"tags"`
	Once            int64 `json:"once"`
	Logins          int64 `json:"logins"`
	BlockedLogins   int64 `json:"blocked_logins"`
	FastAPISessions int64 `json:"fastapi_sessions"`
	HTTPLimits      int64 `json:"http_limits"`
	// Plain are all other keys under the prefix: those of service.SetCache, and
	// of anybody.
	Plain int64 `json:"plain"`
}

// Empty says whether nothing of Madcrow's own was found.
func (i *Inventory) Empty() bool {
	o := i.Other
	o.Plain = 0
	return len(i.Caches)+len(i.Limits)+len(i.Semaphores)+len(i.Sessions)+len(i.Streams)+len(i.Topics) == 0 && o == Other{}
}

// Names are the names of one kind, each once.
func (i *Inventory) Names(k Kind) []string {
	var names []string
	switch k {
	case Caches:
		names = namesOf(i.Caches, func(c Cache) string { return c.Name })
	case Limits:
		names = namesOf(i.Limits, func(l Limit) string { return l.Name })
	case Semaphores:
		names = namesOf(i.Semaphores, func(s Semaphore) string { return s.Name })
	case Sessions:
		names = namesOf(i.Sessions, func(s Session) string { return s.Name })
	case Streams:
		names = namesOf(i.Streams, func(s Stream) string { return s.Name })
	case Topics:
		names = namesOf(i.Topics, func(t Topic) string { return t.Name })
	}
	return slices.Compact(names)
}

func namesOf[T any](list []T, name func(T) string) []string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = name(x)
	}
	return out
}

// Find looks at the keys under the prefix of r until all were seen, or ctx ends.
// The error is that of Redis where no node could be asked at all.
func Find(ctx context.Context, r *madcrow.Redis, opt Options) (*Inventory, error) {
	prefix := r.Config().KeyPrefix
	f := newFinder(prefix)
	match := escapeGlob(prefix) + "*"
	if opt.Kind != "" {
		match = escapeGlob(prefix) + patterns[opt.Kind]
	}
	seen, err := scan(ctx, r, match, opt.Progress, f.add)
	if err != nil {
		return nil, err
	}
	out := f.inventory(opt.Kind)
	out.Prefix, out.Keys, out.Complete, out.Why = prefix, seen.keys, seen.why == "", seen.why
	if opt.NamesOnly {
		return out, nil
	}
	return out, addDetails(context.WithoutCancel(ctx), r, out)
}

// sorted are the values of a map in the order of its keys.
func sorted[K cmp.Ordered, V any](m map[K]*V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, *m[k])
	}
	return out
}
