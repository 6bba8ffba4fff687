package inject

import (
	"fmt"
	"net/http"
	"strings"
)

// handler writes the error of h as a problem.
func handler(s *Set, scope bool, h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if scope {
			r = Scoped(r)
		}
		if err := h(w, r); err != nil {
			s.problems.Write(w, r, err)
		}
	})
}

// Controller is one resource with its routes.
type Controller interface {
	Routes(*Routes)
}

// Routes registers the routes of a controller under its prefix.
type Routes struct {
	mux    *http.ServeMux
	prefix string
	around []func(http.Handler) http.Handler
}

// Mount adds the routes of a controller to a mux, under a prefix such as
// "/users" ("" for none), with middlewares around each, the first outermost. It
// panics where the mux would, and for a prefix that does not begin with '/' or
// ends with it.
func Mount(mux *http.ServeMux, prefix string, c Controller, around ...func(http.Handler) http.Handler) {
	if prefix != "" && (!strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/")) {
		panic(fmt.Sprintf("inject: the prefix %q must begin with '/' and not end with it", prefix))
	}
	c.Routes(&Routes{mux: mux, prefix: prefix, around: around})
}

// Handle adds a route: "GET /{id}", or "GET" for the prefix itself.
func (g *Routes) Handle(pattern string, h http.Handler) {
	method, path, _ := strings.Cut(pattern, " ")
	if path = g.prefix + strings.TrimSpace(path); path == "" {
		path = "/{$}"
	}
	for i := len(g.around) - 1; i >= 0; i-- {
		h = g.around[i](h)
	}
	g.mux.Handle(method+" "+path, h)
}
