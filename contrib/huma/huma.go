package madcrowhuma

import (
	"context"
	"errors"
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
func (f *Required[D]) Resolve(ctx huma.Context) []error { return resolve(ctx, &f.v) }

func (*Required[D]) bind(f *fields, op *huma.Operation) error {
	op.Errors = append(op.Errors, http.StatusServiceUnavailable, http.StatusGatewayTimeout)
	d, err := inject.Find[D](f.set)
	if err == nil {
		f.into = append(f.into, d.Into)
	}
	return err
}

// Optional is a field of an input: a dependency that may not be there.
type Optional[D any] struct{ inject.Optional[D] }

// Resolve is for huma.
func (f *Optional[D]) Resolve(ctx huma.Context) []error { return resolve(ctx, &f.Optional) }

func (*Optional[D]) bind(f *fields, _ *huma.Operation) error {
	d, err := inject.Find[D](f.set)
	if err == nil {
		f.into = append(f.into, inject.Maybe(d).Into)
	}
	return err
}

// resolve takes what Register has found out that it is needed.
func resolve[D any](ctx huma.Context, to *D) (errs []error) {
	var ok bool
	if *to, ok = inject.From[D](ctx.Context()); !ok {
		errs = append(errs, huma.Error500InternalServerError("Register has not found this field"))
	}
	return errs
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
	// Of others' errors only the status: their text may not be for the caller.
	problems.Rules = append(slices.Clip(problems.Rules), problem.As(func(e *huma.ErrorModel) problem.Problem { return problem.Problem{Status: e.Status, Message: e.Detail} }),
		problem.ByItself, problem.As(func(e huma.StatusError) problem.Problem { return problem.Problem{Status: e.GetStatus()} }))
	found := &fields{set: s}
	bindFields(found, reflect.TypeFor[I](), &op)
	// The last: after the limits and sessions.
	op.Middlewares = append(slices.Clip(op.Middlewares), func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		r, err := found.in(r.WithContext(ctx.Context()))
		if err != nil {
			problems.Write(w, r, err)
			return
		}
		next(huma.WithContext(ctx, r.Context()))
	})
	document(api, &op)
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		var se huma.StatusError // a 304 is an error there
		if err == nil || errors.As(err, &se) && se.GetStatus() >= 200 && se.GetStatus() < 400 {
			return out, err
		}
		return nil, answered(ctx, problems, err, op.Method, op.Path)
	})
}

// fields are the dependencies of an operation's input: each puts its value into the
// context of a request.
type fields struct {
	set  *inject.Set
	into []func(*http.Request) (*http.Request, error)
}

// in returns the request with all of them, or the error of the first that is not there.
func (f *fields) in(r *http.Request) (_ *http.Request, err error) {
	r = inject.Scoped(r)
	for _, into := range f.into {
		if r, err = into(r); err != nil {
			break
		}
	}
	return r, err
}

// bindFields finds the fields once, when the operation is made, where huma does:
// in structs of the input, too.
func bindFields(f *fields, input reflect.Type, op *huma.Operation) {
	for i := range input.NumField() {
		field, before := input.Field(i), len(f.into)
		if field.Name == "Body" || field.Type.Kind() != reflect.Struct {
			continue
		}
		bindFields(f, field.Type, op)
		dep, ok := reflect.New(field.Type).Interface().(interface {
			bind(*fields, *huma.Operation) error
		})
		var err error
		if ok && len(f.into) == before { // not by what it embeds
			err = dep.bind(f, op)
		}
		if len(f.into) > before && !field.IsExported() {
			err = errors.New("huma does not see it, it is not exported")
		}
		if err != nil {
			panic("madcrowhuma: " + op.Method + " " + op.Path + ": " + field.Name + ": " + err.Error())
		}
	}
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
type answer struct {
	problem.Problem
	header http.Header
}

func (a *answer) Error() string             { return a.Code }
func (a *answer) GetStatus() int            { return a.Status }
func (a *answer) GetHeaders() http.Header   { return a.header }
func (a *answer) ContentType(string) string { return problem.ContentType }

func answered(ctx context.Context, problems problem.Writer, err error, method, route string) *answer {
	a := &answer{problems.From(err), http.Header{}}
	problem.Log(ctx, problems.Logger, a.Problem, err, slog.String("method", method), slog.String("route", route))
	a.SetHeaders(a.header)
	var own huma.HeadersError
	if errors.As(err, &own) {
		_ = huma.ErrorWithHeaders(a, own.GetHeaders()) // adds them
	}
	return a
}

// Problems makes problem documents of what huma itself finds wrong with a
// request. It is for the Config of each API whose operations are registered
// here.
func Problems(s *inject.Set) huma.Transformer {
	return func(ctx huma.Context, _ string, v any) (any, error) {
		if e, ok := v.(*huma.ErrorModel); ok && e.Status >= 400 {
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
