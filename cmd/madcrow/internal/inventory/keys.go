package inventory

import (
	"hash/maphash"
	"strings"

	"github.com/madcrow-go/madcrow/internal/keys"
)

// patterns match the keys of each kind, after the prefix.
var patterns = map[Kind]string{
	Caches:     keys.Typed + "cache:*",
	Limits:     keys.Typed + "l[io][mg]i[tn]:*", // limit: and login:
	Semaphores: keys.Typed + "limit:*",
	Sessions:   keys.Typed + "session:*",
	Streams:    keys.Typed + "stream:*",
	Topics:     keys.Typed + "topic:*",
}

// escapeGlob makes a pattern of a text that matches this text alone.
func escapeGlob(text string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(text)
}

// algorithms are the names of algorithms by their part of keys.
var algorithms = map[string]string{"l": "sliding-log", "s": "sorted-set-log", "w": "sliding-window", "g": "gcra"}

// finder collects what the keys say. It is not safe for concurrent use.
type finder struct {
	prefix string
	seed   maphash.Seed
	seen   map[uint64]struct{} // SCAN returns some keys twice

	caches     map[string]*Cache
	samples    map[string]string // the key of an entry of each cache
	limits     map[string]*Limit
	semaphores map[string]*Semaphore
	sessions   map[string]*Session
	streams    map[string]*Stream
	topics     map[string]*Topic
	other      Other
}

func newFinder(prefix string) *finder {
	return &finder{
		prefix: prefix, seed: maphash.MakeSeed(), seen: map[uint64]struct{}{},
		caches: map[string]*Cache{}, samples: map[string]string{}, limits: map[string]*Limit{}, semaphores: map[string]*Semaphore{},
		sessions: map[string]*Session{}, streams: map[string]*Stream{}, topics: map[string]*Topic{},
	}
}

// add reads one key.
func (f *finder) add(key string) {
	name, ok := strings.CutPrefix(key, f.prefix)
	if !ok {
		return
	}
	h := maphash.String(f.seed, key)
	if _, twice := f.seen[h]; twice {
		return
	}
	f.seen[h] = struct{}{}
	typed, ok := strings.CutPrefix(name, keys.Typed)
	if !ok {
		f.addPlain(name)
		return
	}
	kind, rest, _ := strings.Cut(typed, ":")
	switch kind {
	case "cache":
		f.addCache(key, rest)
	case "limit":
		f.addLimit(rest)
	case "session":
		f.addSession(rest)
	case "stream":
		if name, ok := tag(rest); ok {
			at(f.streams, name, Stream{Name: name, Hashed: hashed(name)})
		}
	case "topic":
		if name, ok := tag(rest); ok {
			at(f.topics, name, Topic{Name: name, Hashed: hashed(name)})
		}
	case "tag":
		f.other.Tags++
	case "once":
		f.other.Once++
	case "login":
		f.addLogin(rest)
	}
}

// addPlain counts a key of the FastAPI layout, or of anybody.
func (f *finder) addPlain(name string) {
	switch {
	case strings.HasPrefix(name, "session:"):
		f.other.FastAPISessions++
	case strings.HasPrefix(name, "login_attempts:"):
		f.other.Logins++
	case strings.HasPrefix(name, "rate_limit:"):
		f.other.HTTPLimits++
	default:
		f.other.Plain++
	}
}

// addCache reads NAME:{KEY}, NAME:{KEY}:lease or NAME:gen.
func (f *finder) addCache(key, rest string) {
	name, rest, _ := strings.Cut(rest, ":")
	switch {
	case strings.HasSuffix(rest, "}:lease"):
		at(f.caches, name, Cache{Name: name}).Loading++
	case strings.HasPrefix(rest, "{"):
		at(f.caches, name, Cache{Name: name}).Entries++
		f.samples[name] = key
	case rest == "gen":
		at(f.caches, name, Cache{Name: name})
	}
}

// addLimit reads NAME:ALGORITHM:{SUBJECT}, which may be followed by :block.
func (f *finder) addLimit(rest string) {
	name, rest, _ := strings.Cut(rest, ":")
	code, rest, _ := strings.Cut(rest, ":")
	blocked := strings.HasSuffix(rest, "}:block")
	if code == "c" {
		s := at(f.semaphores, name, Semaphore{Name: name})
		count(blocked, &s.Blocked, &s.Subjects)
		return
	}
	if algorithm := algorithms[code]; algorithm != "" {
		l := at(f.limits, name+":"+algorithm, Limit{Name: name, Algorithm: algorithm})
		count(blocked, &l.Blocked, &l.Subjects)
	}
}

// addLogin reads NAME:{SUBJECT}, which may be followed by :block, or the block of the
// FastAPI layout, which has no name.
func (f *finder) addLogin(rest string) {
	name, _, blocked, ok := loginOf(rest)
	if !ok {
		f.other.BlockedLogins++
		return
	}
	l := at(f.limits, name+":"+Login, Limit{Name: name, Algorithm: Login})
	count(blocked, &l.Blocked, &l.Subjects)
}

// loginOf reads the key of a login that has a name, after "login:".
func loginOf(rest string) (name, subject string, blocked, ok bool) {
	name, rest, ok = strings.Cut(rest, ":{")
	if !ok || name == "" || strings.HasPrefix(name, "{") {
		return "", "", false, false
	}
	subject, rest, ok = strings.Cut(rest, "}")
	return name, subject, rest != "", ok
}

// addSession reads NAME:{TAG}:s:MEMBER, NAME:{TAG}:i:USER and others of NAME.
func (f *finder) addSession(rest string) {
	name, rest, _ := strings.Cut(rest, ":")
	s := at(f.sessions, name, Session{Name: name})
	_, rest, _ = strings.Cut(rest, "}:")
	switch {
	case strings.HasPrefix(rest, "s:"):
		s.Sessions++
	case strings.HasPrefix(rest, "i:"):
		s.Users++
	}
}

// count adds one to the first number where it holds, otherwise to the second.
func count(first bool, a, b *int64) {
	if first {
		*a++
	} else {
		*b++
	}
}

// at returns the value under a key, which is fresh if there is none.
func at[V any](m map[string]*V, key string, fresh V) *V {
	if m[key] == nil {
		m[key] = &fresh
	}
	return m[key]
}

// tag returns the text between the braces at the beginning.
func tag(rest string) (string, bool) {
	rest, ok := strings.CutPrefix(rest, "{")
	name, _, closed := strings.Cut(rest, "}")
	return name, ok && closed
}

// hashed says whether a name stands as its hash.
func hashed(name string) bool { return strings.HasPrefix(name, keys.Hashed) }

// inventory is what was collected: of one kind, or everything.
func (f *finder) inventory(only Kind) *Inventory {
	all := &Inventory{
		Caches: sorted(f.caches), Limits: sorted(f.limits), Semaphores: sorted(f.semaphores), Sessions: sorted(f.sessions),
		Streams: sorted(f.streams), Topics: sorted(f.topics), Other: f.other,
	}
	all.samples = f.samples
	if only == Limits {
		all.Semaphores = []Semaphore{}
	}
	if only == Semaphores {
		all.Limits = []Limit{}
	}
	return all
}
