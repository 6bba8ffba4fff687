package inject

import (
	"context"
	"net/http"
)

// Into is a middleware: its handlers get the dependency by [From], for routers and
// adapters whose handlers cannot take it as a parameter. Its error becomes the
// response.
func Into[D any](d Dep[D]) func(http.Handler) http.Handler {
	problems := d.Set().Problems()
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r, err := d.Into(r)
			if err != nil {
				problems.Write(w, r, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Into is the function [Into] for adapters: it returns a copy of r that is [Scoped]
// and whose context has the dependency, or the error of [Get].
func (d Dep[D]) Into(r *http.Request) (*http.Request, error) {
	r = Scoped(r)
	v, err := Get(r, d)
	if err != nil {
		return r, err
	}
	return r.WithContext(context.WithValue(r.Context(), contextKey[D]{}, v)), nil
}

type contextKey[D any] struct{}

// From returns the D that [Into] has put into the context, an [Optional] where the
// dependency was made by [Maybe]; false if there is none.
func From[D any](ctx context.Context) (D, bool) {
	v, ok := ctx.Value(contextKey[D]{}).(D)
	return v, ok
}
