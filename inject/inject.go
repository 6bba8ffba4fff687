package inject

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

// Set holds the dependencies of an application. It is safe for concurrent use.
// Create it with [New].
type Set struct {
	redis    *madcrow.Redis
	problems problem.Writer

	mu        sync.Mutex
	byType    map[reflect.Type][]any // for Find
	overrides atomic.Pointer[map[any]any]
}

// Options says how a set answers the errors of handlers.
type Options struct {
	// Logger gets the cause of each problem, under its error_id. Defaults to the
	// Redis' logger, and without a Redis to none.
	Logger *slog.Logger
	// Rules are for errors that do not describe themselves: see [problem.Writer].
	Rules []problem.Rule
	// Debug shows the text of errors to clients: see [problem.Writer]. Never set it
	// in production.
	Debug bool
}

// New makes a set of dependencies that need r unless they say otherwise. r may be
// nil where nothing needs Redis.
func New(r *madcrow.Redis, options Options) *Set {
	if options.Logger == nil && r != nil {
		options.Logger = r.Logger()
	}
	return &Set{
		redis: r, byType: map[reflect.Type][]any{},
		problems: problem.Writer{Logger: options.Logger, Rules: options.Rules, Debug: options.Debug},
	}
}

// Problems returns the writer that answers errors of handlers, for adapters and
// other middlewares.
func (s *Set) Problems() problem.Writer { return s.problems }

// Dep is a dependency of type D. Make it with [Value], [Plain],
// [PerRequest] or [PerRequestPlain]; the zero value is none.
type Dep[D any] struct{ p *provider[D] }

// provider is the target of a Dep; its address identifies the dependency.
type provider[D any] struct {
	set   *Set
	redis *madcrow.Redis // nil: needs no Redis
	value D
	build func(*http.Request) (D, error) // nil: value, for all requests
	scope bool                           // it, or a part of it, is built once for each request
	maybe bool                           // build calls Get of others, which keep their values in the scope
}

// Value makes a dependency of the application that needs the set's Redis: a
// service, a cache, a limiter, a session manager, or a value built from them. For a
// second Redis make a second set.
func Value[D any](s *Set, v D) Dep[D] {
	return add(s, &provider[D]{set: s, redis: s.requiredRedis(), value: v})
}

// Plain makes a dependency of the application that needs no Redis: it is always
// available.
func Plain[D any](s *Set, v D) Dep[D] { return add(s, &provider[D]{set: s, value: v}) }

// PerRequest makes a dependency that is built once for each request that needs it,
// however many handlers, and calls of [Get], use it. It needs the set's Redis. An
// error of build becomes the response; with an optional dependency the handler gets
// it from [Optional.Err].
func PerRequest[D any](s *Set, build func(*http.Request) (D, error)) Dep[D] {
	return add(s, &provider[D]{set: s, redis: s.requiredRedis(), build: build, scope: true})
}

// PerRequestPlain is PerRequest without the need for Redis.
func PerRequestPlain[D any](s *Set, build func(*http.Request) (D, error)) Dep[D] {
	return add(s, &provider[D]{set: s, build: build, scope: true})
}

func (s *Set) requiredRedis() *madcrow.Redis {
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

// Find returns the dependency of type D, for adapters that look up by type. No
// dependency, or more than one, is an error: call Find when a route is made.
func Find[D any](s *Set) (Dep[D], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.byType[reflect.TypeFor[D]()]
	if len(list) != 1 {
		return Dep[D]{}, fmt.Errorf("inject: there are %d dependencies of type %v, not one", len(list), reflect.TypeFor[D]())
	}
	return list[0].(Dep[D]), nil //nolint:forcetypeassert // it is stored under its type
}

// Set returns the set of the dependency. It panics for the zero Dep: adapters call it
// when a route is made.
func (d Dep[D]) Set() *Set { return d.provider().set }

// PerRequest reports whether [Get] uses the request, which otherwise may be nil. Get
// keeps the built value in a [Scoped] request.
func (d Dep[D]) PerRequest() bool { return d.provider().scope }

func (d Dep[D]) provider() *provider[D] {
	if d.p == nil {
		panic(fmt.Sprintf("inject: a dependency of type %v was not made", reflect.TypeFor[D]()))
	}
	return d.p
}

// override returns the replacement that a test has set.
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

// Override replaces a dependency by v, which is always available, until restore is
// called. It is for tests.
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
		return none, unavailable(p.redis)
	}
	if p.build == nil {
		return p.value, nil
	}
	return p.built(r)
}

// scope is the context of one request and keeps the values built for it.
type scope struct {
	context.Context
	mu    sync.Mutex
	built []any // pointers to builtValue; usually few
	space [2]any
}

type scopeKey struct{}

func (s *scope) Value(key any) any {
	if key == (scopeKey{}) {
		return s
	}
	return s.Context.Value(key)
}

// Scope shares per-request dependencies among all handlers and middlewares inside
// it. Without it, each handler has a scope of its own.
func Scope(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, Scoped(r))
	})
}

// Scoped is [Scope] for adapters: it returns r, or a copy that keeps the values built
// for the request.
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
	b := p.builtIn(sc)
	b.once.Do(func() { b.v, b.err = p.build(r) })
	return b.v, b.err
}

// builtIn returns the dependency's value in a scope.
func (p *provider[D]) builtIn(sc *scope) *builtValue[D] {
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

// unavailable returns the error of a dependency: a 503, whatever the reason.
func unavailable(r *madcrow.Redis) error {
	return &madcrow.Error{
		Op: "inject.get", Kind: madcrow.KindUnavailable, Outcome: madcrow.OutcomeNotApplied,
		Err: fmt.Errorf("redis is unavailable: %w", cmp.Or(r.Err(), error(madcrow.ErrUnavailable))),
	}
}

// Optional is a dependency that may be unavailable.
type Optional[D any] struct {
	v   D
	err error
}

// Get returns the dependency; false when it is unavailable, see Err.
func (o Optional[D]) Get() (D, bool) { return o.v, o.err == nil }

// Err returns the reason why it is unavailable, or nil.
func (o Optional[D]) Err() error { return o.err }

// optionalOf returns the result of [Get] as an Optional.
func optionalOf[D any](r *http.Request, d Dep[D]) Optional[D] {
	v, err := Get(r, d)
	if err != nil {
		var none D
		return Optional[D]{none, err}
	}
	return Optional[D]{v, nil}
}
