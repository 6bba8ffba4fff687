package inject

import (
	"context"
	"net/http"
)

// Carrier puts dependencies into the context of a request, for adapters whose
// handlers cannot take them as parameters; [Carried] returns them. Create it with
// [Set.Carrier] and fill it with [Carry] and [CarryOptional] when a route is made.
type Carrier struct {
	set  *Set
	each []func(*http.Request) (*http.Request, error)
}

// Carrier returns an empty Carrier.
func (s *Set) Carrier() *Carrier { return &Carrier{set: s} }

// Carry adds the dependency of type D to c, see [Find].
func Carry[D any](c *Carrier) error {
	d, err := Find[D](c.set)
	if err == nil {
		carry(c, d)
	}
	return err
}

// CarryOptional is Carry for the dependency as an [Optional].
func CarryOptional[D any](c *Carrier) error {
	d, err := Find[D](c.set)
	if err == nil {
		carry(c, Maybe(d))
	}
	return err
}

func carry[D any](c *Carrier, d Dep[D]) {
	c.each = append(c.each, func(r *http.Request) (*http.Request, error) {
		v, err := Get(r, d)
		if err != nil {
			return r, err
		}
		return r.WithContext(context.WithValue(r.Context(), carryKey[D]{}, v)), nil
	})
}

type carryKey[D any] struct{}

// Len returns the number of dependencies in c.
func (c *Carrier) Len() int { return len(c.each) }

// Into returns a copy of r that is [Scoped] and has the dependencies in its context,
// or the error of the first dependency that is unavailable.
func (c *Carrier) Into(r *http.Request) (*http.Request, error) {
	r = Scoped(r)
	for _, add := range c.each {
		var err error
		if r, err = add(r); err != nil {
			return r, err
		}
	}
	return r, nil
}

// Carried returns the D that [Carry], or the [Optional] that [CarryOptional], has put
// into the context; false if there is none.
func Carried[D any](ctx context.Context) (D, bool) {
	v, ok := ctx.Value(carryKey[D]{}).(D)
	return v, ok
}
