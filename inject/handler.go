package inject

import "net/http"

// Handler makes a handler without dependencies; its error becomes a problem.
func (s *Set) Handler(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return handler(s, false, h)
}

// With makes a handler from a function with the dependency a. Use [Maybe] for one that
// is optional.
func With[A any](a Dep[A], h func(http.ResponseWriter, *http.Request, A) error) http.Handler {
	pa := a.provider()
	return handler(pa.set, pa.scope, func(w http.ResponseWriter, r *http.Request) error {
		va, err := Get(r, a)
		if err != nil {
			return err
		}
		return h(w, r, va)
	})
}

// With2 is With for two dependencies.
func With2[A, B any](a Dep[A], b Dep[B], h func(http.ResponseWriter, *http.Request, A, B) error) http.Handler {
	pa, pb := a.provider(), b.provider()
	return handler(pa.set, pa.scope || pb.scope, func(w http.ResponseWriter, r *http.Request) error {
		va, err := Get(r, a)
		if err != nil {
			return err
		}
		vb, err := Get(r, b)
		if err != nil {
			return err
		}
		return h(w, r, va, vb)
	})
}

// With3 is With for three dependencies.
func With3[A, B, C any](a Dep[A], b Dep[B], c Dep[C], h func(http.ResponseWriter, *http.Request, A, B, C) error) http.Handler {
	pa, pb, pc := a.provider(), b.provider(), c.provider()
	return handler(pa.set, pa.scope || pb.scope || pc.scope, func(w http.ResponseWriter, r *http.Request) error {
		va, err := Get(r, a)
		if err != nil {
			return err
		}
		vb, err := Get(r, b)
		if err != nil {
			return err
		}
		vc, err := Get(r, c)
		if err != nil {
			return err
		}
		return h(w, r, va, vb, vc)
	})
}

// Maybe returns d as an optional dependency: its handlers run without Redis, too.
// Call it where the routes are made, not for each request.
func Maybe[D any](d Dep[D]) Dep[Optional[D]] {
	p := d.provider()
	// It is not added to the set: adapters look up d itself.
	return Dep[Optional[D]]{&provider[Optional[D]]{set: p.set, scope: p.scope, maybe: true, build: func(r *http.Request) (Optional[D], error) {
		return optionalOf(r, d), nil
	}}}
}

// Pair is two dependencies as one, see [Join].
type Pair[A, B any] struct {
	A A
	B B
}

// Join combines two dependencies into one, for adapters whose handlers take several.
// Each is resolved by [Get], the first one first. Call it where the routes are made,
// not for each request.
func Join[A, B any](a Dep[A], b Dep[B]) Dep[Pair[A, B]] {
	pa, pb := a.provider(), b.provider()
	return Dep[Pair[A, B]]{&provider[Pair[A, B]]{set: pa.set, scope: pa.scope || pb.scope, maybe: true, build: func(r *http.Request) (v Pair[A, B], err error) {
		if v.A, err = Get(r, a); err == nil {
			v.B, err = Get(r, b)
		}
		return v, err
	}}}
}
