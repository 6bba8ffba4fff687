package server

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/madcrow-go/madcrow/problem"
)

// Problem is a problem document on its way through huma.
type Problem struct {
	problem.Problem
	cause error
}

func newProblem(err error) *Problem { return &Problem{problem.From(err), err} }

// Error is for huma, which knows answers as errors.
func (p *Problem) Error() string { return p.Code }

// Unwrap returns the cause, which is for the log.
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus is for huma.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is for huma.
func (p *Problem) ContentType(string) string { return problem.ContentType }

// tame replaces huma's makers of errors, which are global: by default a plain
// error shows its text, and a wrong value is sent back.
var tame = sync.OnceFunc(func() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(status, msg, errs)
	}
	huma.NewErrorWithContext = func(_ huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(status, msg, errs)
	}
	huma.ValidateStrictCasing = true
})

// humaConfig is huma's without $schema in the bodies, without its
// documentation (which loads scripts from the internet), and with unknown
// members allowed, as FastAPI Madcrow does.
func (s *Server) humaConfig() huma.Config {
	tame()
	c := huma.DefaultConfig("Madcrow", s.opt.Version)
	c.CreateHooks = nil
	c.Formats = exactFormats()
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.AllowAdditionalPropertiesByDefault = true
	c.Info.Description = "Cache, sessions, rate limits and messages on Redis. " +
		"Errors are problem documents (RFC 9457) with the members error, code, message and error_id."
	c.Transformers = []huma.Transformer{s.finishProblem}
	if s.opt.Token != "" {
		c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer"}}
		c.Security = []map[string][]string{{"bearer": {}}}
	}
	return c
}

// finishProblem is where every problem that huma writes passes: it is logged
// here and gets its headers.
func (s *Server) finishProblem(ctx huma.Context, _ string, v any) (any, error) {
	p, ok := v.(*Problem)
	if !ok {
		return v, nil
	}
	r, w := humago.Unwrap(ctx)
	p.SetHeaders(w.Header())
	problem.Log(r.Context(), s.opt.Logger, p.Problem, p.cause, requestAttrs(w, r)...)
	return p, nil
}

// fail writes a problem outside huma.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	problem.Write(w, r, s.opt.Logger.With(slog.String("request_id", w.Header().Get(requestIDHeader))), err)
}

func requestAttrs(w http.ResponseWriter, r *http.Request) []slog.Attr {
	return []slog.Attr{
		slog.String("route", routeOf(r)),
		slog.String("request_id", w.Header().Get(requestIDHeader)),
	}
}

// humaProblem turns what huma found wrong with a request into a problem. The
// original answers 422 to every kind of bad input.
func humaProblem(status int, msg string, errs []error) *Problem {
	if len(errs) == 1 {
		var p *Problem
		if errors.As(errs[0], &p) {
			return p
		}
	}
	switch status {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return newProblem(problem.Validation(fieldErrors(status, msg, errs)...))
	case http.StatusRequestEntityTooLarge:
		return newProblem(problem.New(status, "BODY_TOO_LARGE", "The request body is too large"))
	case http.StatusRequestTimeout:
		return newProblem(problem.New(status, "BODY_TIMEOUT", "The request body did not arrive in time"))
	}
	if msg == "cannot read request body" { // the caller went away in the middle
		return newProblem(problem.New(http.StatusBadRequest, "BODY_INCOMPLETE", "The request body could not be read"))
	}
	return newProblem(errors.Join(append(errs, errors.New(msg))...))
}

// fieldErrors says where and what is expected, and never what was sent: texts
// that quote it are replaced.
func fieldErrors(status int, msg string, errs []error) []problem.FieldError {
	switch {
	case status == http.StatusUnsupportedMediaType:
		return []problem.FieldError{{Field: "header.Content-Type", Message: "expected application/json"}}
	case len(errs) == 0 && strings.Contains(msg, "required"):
		return []problem.FieldError{{Field: "body", Message: "is required"}}
	}
	fields := make([]problem.FieldError, 0, len(errs))
	for _, err := range errs {
		var d huma.ErrorDetailer
		if !errors.As(err, &d) {
			continue
		}
		detail := d.ErrorDetail()
		fields = append(fields, fieldError(status, detail.Location, detail.Message))
	}
	return fields
}

func fieldError(status int, field, message string) problem.FieldError {
	if name, ok := strings.CutPrefix(message, "expected required property "); ok {
		name, _, _ = strings.Cut(name, " ")
		return problem.FieldError{Field: field + "." + name, Message: "is required"}
	}
	if name, ok := strings.CutPrefix(message, notUnicode); ok {
		return problem.FieldError{Field: field + "." + name, Message: strings.TrimSuffix(notUnicode, " in ")}
	}
	switch {
	case strings.HasPrefix(message, "expected "), strings.HasPrefix(message, "required "):
	case status == http.StatusBadRequest && field == "body":
		message = "expected well-formed JSON"
	default:
		message = "expected another form or range"
	}
	return problem.FieldError{Field: field, Message: message}
}
