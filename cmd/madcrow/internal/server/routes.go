package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// routes registers the methods of one controller under its prefix.
type routes struct {
	s      *Server
	tag    string
	prefix string
}

func (s *Server) routes(tag, prefix string) routes { return routes{s, tag, prefix} }

// route says what a method answers to.
type route struct {
	method  string
	path    string
	summary string
	// operation and table name what a failure is reported as. With a table the
	// route requires Redis: without it the answer is 503, at once, before the
	// body is read or the method runs. Without a table the method runs always.
	operation, table string
	errors           []int
}

// output is a body; every route answers 200.
type output[T any] struct {
	Body *T
}

// handle registers a method. An error that it returns becomes a problem, never
// a text.
func handle[I, O any](g routes, rt route, method func(context.Context, *I) (*O, error)) {
	op := huma.Operation{
		OperationID:  operationID(rt.method, g.prefix+rt.path),
		Method:       rt.method,
		Path:         g.prefix + rt.path,
		Summary:      rt.summary,
		Tags:         []string{g.tag},
		MaxBodyBytes: g.s.opt.MaxBody + 1, // huma refuses the bound itself
		Errors:       rt.errors,
		// huma's own would take the place of the server's.
		BodyReadTimeout: g.s.opt.ReadTimeout,
	}
	if rt.table != "" {
		op.Errors = append(op.Errors, http.StatusServiceUnavailable, http.StatusGatewayTimeout)
		op.Middlewares = huma.Middlewares{g.s.requireRedis(rt.operation, rt.table)}
	}
	huma.Register(g.s.api, op, func(ctx context.Context, in *I) (*output[O], error) {
		body, err := method(ctx, in)
		if err != nil {
			return nil, newProblem(err)
		}
		return &output[O]{body}, nil
	})
}

// stream registers a route that writes its answer itself, as it comes. The
// members of I are checked before.
func stream[I any](g routes, rt route, about string, handler http.Handler) {
	op := huma.Operation{
		OperationID: operationID(rt.method, g.prefix+rt.path),
		Method:      rt.method,
		Path:        g.prefix + rt.path,
		Summary:     rt.summary,
		Description: about,
		Tags:        []string{g.tag},
		Errors:      []int{http.StatusServiceUnavailable},
		Middlewares: huma.Middlewares{g.s.requireRedis(rt.operation, rt.table)},
		Responses: map[string]*huma.Response{"200": {Content: map[string]*huma.MediaType{
			"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}},
		}}},
	}
	huma.Register(g.s.api, op, func(context.Context, *I) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			r, w := humago.Unwrap(ctx)
			handler.ServeHTTP(w, r)
		}}, nil
	})
}

// requireRedis is the required dependency: it makes no call.
func (s *Server) requireRedis(operation, table string) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		if err := s.svc.Unavailable(operation, table); err != nil {
			p := newProblem(err)
			_ = huma.WriteErr(s.api, ctx, p.Status, "", p)
			return
		}
		next(ctx)
	}
}

func operationID(method, path string) string {
	path = strings.Replace(path, apiPrefix, "redis", 1)
	path = strings.NewReplacer("/", "-", "{", "", "}", "", "_", "-").Replace(strings.TrimPrefix(path, "/"))
	return strings.ToLower(method) + "-" + path
}
