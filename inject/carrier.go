package inject

import (
	"context"
	"net/http"
)

// Carrier puts dependencies into the context of a request, where [Carried] finds
// them: for adapters whose handlers do not get them as parameters. Make it with
// [Set.Carrier], and fill it with [Carry] and [CarryOptional], when a route is
// made.
type Carrier struct {
	set  *Set
	each []func(*http.Request) (*http.Request, error)
}

// Carrier returns one that carries nothing yet.
func (s *Set) Carrier() *Carrier { return &Carrier{set: s} }

// Carry lets c carry the one dependency of type D, see [Find].
func Carry[D any](c *Carrier) error {
	d, err := Find[D](c.set)
	if err == nil {
		carry(c, d)
	}
	return err
}

// CarryOptional is Carry for what [Maybe] makes of the dependency.
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

// Len says how many dependencies c carries.
func (c *Carrier) Len() int { return len(c.each) }

// Into returns a copy of r that is [Scoped] and has the dependencies in its
// context. The error is that of the first one that cannot be used.
func (c *Carrier) Into(r *http.Request) (*http.Request, error) {
	r = Scoped(r)
	for _, put := range c.each {
		var err error
		if r, err = put(r); err != nil {
			return r, err
		}
	}
	return r, nil
}

// Carried returns what was put into the context: a D by [Carry], an [Optional]
// by [CarryOptional]; false where neither has.
func Carried[D any](ctx context.Context) (D, bool) {
	v, ok := ctx.Value(carryKey[D]{}).(D)
	return v, ok
}
