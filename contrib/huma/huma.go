package madcrowhuma

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
)

// Required is a field of an input: a dependency without which the operation
// does not run.
type Required[D any] struct{ v D }

// Get returns the dependency.
func (f *Required[D]) Get() D { return f.v }

// Resolve is for huma.
func (f *Required[D]) Resolve(ctx huma.Context) []error {
	f.v, _ = ctx.Context().Value(key[D]{}).(D)
	return nil
}

func (*Required[D]) bind(s *inject.Set, op *huma.Operation) (give, error) {
	op.Errors = append(op.Errors, http.StatusServiceUnavailable, http.StatusGatewayTimeout)
	d, err := inject.Find[D](s)
	return with(d), err
}

// Optional is a field of an input: a dependency that may not be there.
type Optional[D any] struct{ inject.Optional[D] }

// Resolve is for huma.
func (f *Optional[D]) Resolve(ctx huma.Context) []error {
	f.Optional, _ = ctx.Context().Value(key[inject.Optional[D]]{}).(inject.Optional[D])
	return nil
}

func (*Optional[D]) bind(s *inject.Set, _ *huma.Operation) (give, error) {
	d, err := inject.Find[D](s)
	if err != nil {
		return nil, err
	}
	return with(inject.Maybe(d)), nil
}

type key[D any] struct{}

// give puts a dependency into the context of a request.
type give func(*http.Request) (*http.Request, error)

func with[D any](d inject.Dep[D]) give {
	return func(r *http.Request) (*http.Request, error) {
		v, err := inject.Get(r, d)
		return r.WithContext(context.WithValue(r.Context(), key[D]{}, v)), err
	}
}

// Limited returns the operation with a limit before it, and 429 in its
// documentation.
func Limited(op huma.Operation, limited func(http.Handler) http.Handler) huma.Operation {
	op.Middlewares = append(slices.Clip(op.Middlewares), Middleware(limited))
	op.Errors = append(slices.Clip(op.Errors), http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusGatewayTimeout)
	return op
}

// Register adds an operation whose input may have fields that are [Required] or
// [Optional], and whose errors become problems. It panics for a field without a
// dependency.
func Register[I, O any](s *inject.Set, api huma.API, op huma.Operation, h func(context.Context, *I) (*O, error)) {
	problems := s.Problems()
	problems.Rules = append(slices.Clip(problems.Rules), problem.As(func(e *huma.ErrorModel) problem.Problem { return problem.Problem{Status: e.Status, Message: e.Detail} }))
	fields := fieldsOf(s, reflect.TypeFor[I](), &op)
	// The last: after the limits and sessions.
	op.Middlewares = append(slices.Clip(op.Middlewares), func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		r = inject.Scoped(r.WithContext(ctx.Context()))
		var err error
		for _, field := range fields {
			if r, err = field(r); err != nil {
				problems.Write(w, r, err)
				return
			}
		}
		next(huma.WithContext(ctx, r.Context()))
	})
	document(api, &op)
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, answered(ctx, problems, err, op.Method, op.Path)
		}
		return out, nil
	})
}

// fieldsOf finds the fields once, when the operation is made.
func fieldsOf(s *inject.Set, input reflect.Type, op *huma.Operation) (fields []give) {
	for i := range input.NumField() {
		field, ok := reflect.New(input.Field(i).Type).Interface().(interface {
			bind(*inject.Set, *huma.Operation) (give, error)
		})
		if ok {
			f, err := field.bind(s, op)
			if err != nil {
				panic("madcrowhuma: " + op.Method + " " + op.Path + ": " + input.Field(i).Name + ": " + err.Error())
			}
			fields = append(fields, f)
		}
	}
	return fields
}

// document says which problems the operation is answered with.
func document(api huma.API, op *huma.Operation) {
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	schema := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[problem.Problem](), true, "Problem")
	for _, status := range append(slices.Clip(op.Errors), http.StatusUnprocessableEntity, http.StatusInternalServerError) {
		res := &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{problem.ContentType: {Schema: schema}}}
		if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
			res.Headers = map[string]*huma.Param{"Retry-After": {Description: "Seconds to wait", Schema: &huma.Schema{Type: huma.TypeInteger}}}
		}
		op.Responses[strconv.Itoa(status)] = res
	}
	op.Errors = nil // huma would describe its own model
}

// answer is a problem on its way through huma.
type answer struct{ problem.Problem }

func (a *answer) Error() string             { return a.Code }
func (a *answer) GetStatus() int            { return a.Status }
func (a *answer) ContentType(string) string { return problem.ContentType }

func (a *answer) GetHeaders() http.Header {
	h := http.Header{}
	a.SetHeaders(h)
	return h
}

func answered(ctx context.Context, problems problem.Writer, err error, method, route string) *answer {
	p := problems.From(err)
	problem.Log(ctx, problems.Logger, p, err, slog.String("method", method), slog.String("route", route))
	return &answer{p}
}

// Problems makes problem documents of what huma itself finds wrong with a
// request. It is for the Config of each API whose operations are registered
// here.
func Problems(s *inject.Set) huma.Transformer {
	return func(ctx huma.Context, _ string, v any) (any, error) {
		if e, ok := v.(*huma.ErrorModel); ok {
			ctx.SetHeader("Cache-Control", "no-store")
			v = answered(ctx.Context(), s.Problems(), refused(e), ctx.Method(), ctx.Operation().Path)
		}
		return v, nil
	}
}

// refused says where, and what is expected, and never what was sent.
func refused(e *huma.ErrorModel) error {
	if e.Status != http.StatusUnprocessableEntity {
		return problem.With(problem.Problem{Status: e.Status})
	}
	fields := make([]problem.FieldError, len(e.Errors))
	for i, d := range e.Errors {
		fields[i] = problem.FieldError{Field: d.Location, Message: d.Message}
		if !strings.HasPrefix(d.Message, "expected ") && !strings.HasPrefix(d.Message, "required ") {
			fields[i].Message = "expected another form or range"
		}
	}
	return problem.Validation(fields...)
}

// Middleware carries a middleware of net/http to one operation: a session.
func Middleware(mw func(http.Handler) http.Handler) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		mw(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next(humago.NewContext(ctx.Operation(), r, w))
		})).ServeHTTP(w, r.WithContext(ctx.Context()))
	}
}
