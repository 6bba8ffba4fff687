package inject

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

// Set holds the dependencies of an application. It is safe for concurrent use.
// Make it with [New].
type Set struct {
	redis    *madcrow.Redis
	problems problem.Writer

	mu        sync.Mutex
	byType    map[reflect.Type][]any // for adapters that find by type
	overrides atomic.Pointer[map[any]any]
}

// New makes a set of dependencies that need r unless they say otherwise. The
// logger gets the causes of problems, and may be nil; r may be nil where
// nothing needs Redis.
func New(r *madcrow.Redis, logger *slog.Logger) *Set {
	return NewWith(r, problem.Writer{Logger: logger})
}

// NewWith is New with rules for the errors of handlers.
func NewWith(r *madcrow.Redis, problems problem.Writer) *Set {
	return &Set{redis: r, problems: problems, byType: map[reflect.Type][]any{}}
}

// Problems is what answers the errors of handlers: for adapters, and for
// middlewares of one's own.
func (s *Set) Problems() problem.Writer { return s.problems }

// Dep is a dependency of type D. Make it with [Value], [Plain], [On],
// [PerRequest] or [PerRequestPlain]; the zero value is none.
type Dep[D any] struct{ p *provider[D] }

// provider is what a Dep points to; its address is its name.
type provider[D any] struct {
	set   *Set
	redis *madcrow.Redis // nil: it needs none
	value D
	build func(*http.Request) (D, error) // nil: value, for all requests
	scope bool                           // it, or what it is of, is built once for each request
	maybe bool                           // build asks others, which remember
}

// Value makes a dependency of the application that needs the set's Redis: a
// service, a cache, a limiter, a session manager, or what is built of them.
func Value[D any](s *Set, v D) Dep[D] {
	return add(s, &provider[D]{set: s, redis: s.needed(), value: v})
}

// On is Value for another Redis.
func On[D any](s *Set, r *madcrow.Redis, v D) Dep[D] {
	return add(s, &provider[D]{set: s, redis: r, value: v})
}

// Plain makes a dependency of the application that needs no Redis: it is always
// there.
func Plain[D any](s *Set, v D) Dep[D] { return add(s, &provider[D]{set: s, value: v}) }

// PerRequest makes a dependency that is built for each request that needs it,
// once however many ask: by [Get] for another dependency, and by handlers. It
// needs the set's Redis. An error of build becomes the answer; where the
// dependency is optional, it is told.
func PerRequest[D any](s *Set, build func(*http.Request) (D, error)) Dep[D] {
	return add(s, &provider[D]{set: s, redis: s.needed(), build: build, scope: true})
}

// PerRequestPlain is PerRequest for what needs no Redis.
func PerRequestPlain[D any](s *Set, build func(*http.Request) (D, error)) Dep[D] {
	return add(s, &provider[D]{set: s, build: build, scope: true})
}

func (s *Set) needed() *madcrow.Redis {
	if s.redis == nil {
		panic("inject: the set has no Redis: use Plain or PerRequestPlain, or give New one")
	}
	return s.redis
}

func add[D any](s *Set, p *provider[D]) Dep[D] {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := reflect.TypeFor[D]()
	s.byType[t] = append(s.byType[t], Dep[D]{p})
	return Dep[D]{p}
}

// Find returns the one dependency of type D, for adapters that find by type.
// None, and more than one, are errors: find them when a route is made.
func Find[D any](s *Set) (Dep[D], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.byType[reflect.TypeFor[D]()]
	if len(list) != 1 {
		return Dep[D]{}, fmt.Errorf("inject: there are %d dependencies of type %v, not one", len(list), reflect.TypeFor[D]())
	}
	return list[0].(Dep[D]), nil //nolint:forcetypeassert // it is stored under its type
}

// Available says whether the dependency can be used now: nil, or why not. It
// asks nobody. The error knows its problem, a 503 with Retry-After.
func (d Dep[D]) Available() error {
	p := d.provider()
	if p.redis == nil || p.redis.Available() {
		return nil
	}
	if _, replaced := p.override(); replaced {
		return nil
	}
	return &Unavailable{Err: p.redis.Err()}
}

// Set is where the dependency was made. It panics where it was not: adapters
// ask when a route is made.
func (d Dep[D]) Set() *Set { return d.provider().set }

// PerRequest says whether [Get] looks at the request, which otherwise may be
// nil, and remembers in it what was built, if it is [Scoped].
func (d Dep[D]) PerRequest() bool { return d.provider().scope }

func (d Dep[D]) provider() *provider[D] {
	if d.p == nil {
		panic(fmt.Sprintf("inject: a dependency of type %v was not made", reflect.TypeFor[D]()))
	}
	return d.p
}

// override is what a test put in its place.
func (p *provider[D]) override() (v D, ok bool) {
	all := p.set.overrides.Load()
	if all == nil {
		return v, false
	}
	o, ok := (*all)[p]
	if !ok {
		return v, false
	}
	return o.(D), true //nolint:forcetypeassert // Override stored it
}

// Override puts v in the place of a dependency, available whatever Redis does,
// until restore is called. It is for tests.
func Override[D any](d Dep[D], v D) (restore func()) {
	p := d.provider()
	p.set.replace(p, v, true)
	return func() { p.set.replace(p, nil, false) }
}

func (s *Set) replace(key, v any, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[any]any{}
	if all := s.overrides.Load(); all != nil {
		for k, o := range *all {
			next[k] = o
		}
	}
	if delete(next, key); on {
		next[key] = v
	}
	if len(next) == 0 {
		s.overrides.Store(nil)
		return
	}
	s.overrides.Store(&next)
}

// Get returns the dependency for a request: inside the build function of
// another one, or in a middleware.
func Get[D any](r *http.Request, d Dep[D]) (D, error) {
	p := d.provider()
	if v, ok := p.override(); ok {
		return v, nil
	}
	if p.redis != nil && !p.redis.Available() {
		var none D
		return none, &Unavailable{Err: p.redis.Err()}
	}
	if p.build == nil {
		return p.value, nil
	}
	return p.built(r)
}

// scope is the context of one request, and remembers what was built for it.
type scope struct {
	context.Context
	mu    sync.Mutex
	built []any // pointers to builtValue; a request needs few
	space [2]any
}

type scopeKey struct{}

func (s *scope) Value(key any) any {
	if key == (scopeKey{}) {
		return s
	}
	return s.Context.Value(key)
}

// Scope lets dependencies that are made for each request be made once for all
// handlers and middlewares inside it. Without it, each handler has a scope of
// its own.
func Scope(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, Scoped(r))
	})
}

// Scoped is what [Scope] does, for adapters: it returns r, or a copy in which
// what is built for a request is remembered.
func Scoped(r *http.Request) *http.Request {
	if _, ok := r.Context().Value(scopeKey{}).(*scope); ok {
		return r
	}
	s := &scope{Context: r.Context()}
	s.built = s.space[:0]
	return r.WithContext(s)
}

type builtValue[D any] struct {
	of   *provider[D]
	once sync.Once
	v    D
	err  error
}

func (p *provider[D]) built(r *http.Request) (D, error) {
	if p.maybe {
		return p.build(r)
	}
	sc, ok := r.Context().Value(scopeKey{}).(*scope)
	if !ok {
		return p.build(Scoped(r))
	}
	b := p.in(sc)
	b.once.Do(func() { b.v, b.err = p.build(r) })
	return b.v, b.err
}

// in returns the dependency's place in a scope.
func (p *provider[D]) in(sc *scope) *builtValue[D] {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	for _, known := range sc.built {
		if b, ok := known.(*builtValue[D]); ok && b.of == p {
			return b
		}
	}
	b := &builtValue[D]{of: p}
	sc.built = append(sc.built, b)
	return b
}

// Unavailable says that a dependency cannot be used, because its Redis cannot.
type Unavailable struct {
	// Err is why; it may name addresses.
	Err error
}

// Error returns one line for logs.
func (e *Unavailable) Error() string { return fmt.Sprintf("inject: redis is not usable: %v", e.Err) }

// Unwrap returns why.
func (e *Unavailable) Unwrap() error { return e.Err }

// Problem returns a 503 with Retry-After.
func (e *Unavailable) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusServiceUnavailable, Code: "REDIS_UNAVAILABLE", Message: "Redis is not available", RetryAfter: time.Second}
}

// Optional is a dependency that may not be there.
type Optional[D any] struct {
	v   D
	err error
}

// Get returns the dependency; false when it cannot be used, see Err.
func (o Optional[D]) Get() (D, bool) { return o.v, o.err == nil }

// Err says why it cannot be used.
func (o Optional[D]) Err() error { return o.err }

// OptionalOf returns what [Get] does as an Optional.
func OptionalOf[D any](r *http.Request, d Dep[D]) Optional[D] {
	v, err := Get(r, d)
	if err != nil {
		var none D
		return Optional[D]{none, err}
	}
	return Optional[D]{v, nil}
}
