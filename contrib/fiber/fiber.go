package madcrowfiber

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v3"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
)

// ErrorHandler answers errors with problems: those of handlers that were not
// made here, and Fiber's own, such as 404. Fiber's default shows their text.
func ErrorHandler(s *inject.Set) fiber.ErrorHandler {
	problems := s.Problems()
	// The message of Fiber's errors is for the caller.
	problems.Rules = append(slices.Clip(problems.Rules), problem.As(func(e *fiber.Error) problem.Problem {
		return problem.Problem{Status: e.Code, Message: e.Message}
	}))
	return func(c fiber.Ctx, err error) error {
		problems.Write(&writer{c: c, header: http.Header{}}, request(c), err)
		return nil
	}
}

// Handler is a handler without dependencies whose error becomes a problem.
func Handler(s *inject.Set, h func(fiber.Ctx) error) fiber.Handler {
	answer := ErrorHandler(s)
	return func(c fiber.Ctx) error {
		if err := h(c); err != nil {
			return answer(c, err)
		}
		return nil
	}
}

// With makes a handler of a function that needs a. Use [inject.Maybe] for what
// is optional.
func With[A any](a inject.Dep[A], h func(fiber.Ctx, A) error) fiber.Handler {
	return Handler(a.Set(), func(c fiber.Ctx) error {
		va, err := get(c, a)
		if err != nil {
			return err
		}
		return h(c, va)
	})
}

// With2 is With for two dependencies.
func With2[A, B any](a inject.Dep[A], b inject.Dep[B], h func(fiber.Ctx, A, B) error) fiber.Handler {
	b.Set()
	return With(a, func(c fiber.Ctx, va A) error {
		vb, err := get(c, b)
		if err != nil {
			return err
		}
		return h(c, va, vb)
	})
}

// With3 is With for three dependencies.
func With3[A, B, C any](a inject.Dep[A], b inject.Dep[B], d inject.Dep[C], h func(fiber.Ctx, A, B, C) error) fiber.Handler {
	d.Set()
	return With2(a, b, func(c fiber.Ctx, va A, vb B) error {
		vd, err := get(c, d)
		if err != nil {
			return err
		}
		return h(c, va, vb, vd)
	})
}

func get[A any](c fiber.Ctx, a inject.Dep[A]) (A, error) {
	if !a.PerRequest() {
		return inject.Get(nil, a)
	}
	r := inject.Scoped(request(c))
	c.SetContext(r.Context())
	return inject.Get(r, a)
}

// Health adds the routes /health/live, /health/ready and /health. Redis is not
// asked.
func Health(app fiber.Router, r *madcrow.Redis, draining func() bool, opt health.Options) {
	app.Get("/health/live", health.Live()).Get("/health/ready", health.Ready(r, draining)).Get("/health", health.Detail(r, opt))
}

// request is the request as net/http would have it. It copies all strings.
func request(c fiber.Ctx) *http.Request {
	in := c.Request()
	u := &url.URL{Path: string(in.URI().Path()), RawQuery: string(in.URI().QueryString())}
	r := &http.Request{
		Method: strings.Clone(c.Method()), URL: u, Host: string(in.Host()), Header: http.Header{}, RequestURI: string(in.RequestURI()),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, Pattern: c.Method() + " " + strings.Clone(c.FullPath()),
		RemoteAddr: c.RequestCtx().RemoteAddr().String(), TLS: c.RequestCtx().TLSConnectionState(),
	}
	for name, value := range in.Header.All() {
		r.Header.Add(string(name), string(value))
	}
	r.Header.Del("Host")
	if !in.IsBodyStream() {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(in.Body())), int64(len(in.Body()))
	}
	for _, name := range c.Route().Params {
		r.SetPathValue(name, strings.Clone(c.Params(name)))
	}
	return r.WithContext(c.Context())
}

// Middleware carries a middleware of net/http into Fiber: sessions, limits,
// [problem.Writer.Recover]. Its headers go out with the answer.
func Middleware(mw func(http.Handler) http.Handler) fiber.Handler {
	h := mw(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		w, _ := r.Context().Value(writerKey{}).(*writer)
		w.apply()
		w.c.SetContext(r.Context())
		w.err = w.c.Next()
	}))
	return func(c fiber.Ctx) error {
		w := &writer{c: c, header: http.Header{}}
		r := request(c)
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), writerKey{}, w)))
		w.apply()
		return w.err
	}
}

type writerKey struct{}

// writer answers for a middleware. Fiber sends nothing before all have run.
type writer struct {
	c            fiber.Ctx
	header, sent http.Header
	begun        bool
	err          error // of what comes after the middleware
}

func (w *writer) Header() http.Header { return w.header }

// apply hands on what changed of the headers.
func (w *writer) apply() {
	h := &w.c.Response().Header
	for name, values := range w.header {
		for i, v := range values {
			switch {
			case slices.Contains(w.sent[name], v):
			case i == 0 && name != fiber.HeaderSetCookie:
				h.Set(name, v)
			default:
				h.Add(name, v)
			}
		}
	}
	w.sent = maps.Clone(w.header)
}

func (w *writer) WriteHeader(status int) {
	if w.begun || status < http.StatusOK {
		return
	}
	w.begun = true
	w.c.Response().ResetBody() // an answer that was begun before a panic
	w.c.Response().Header.Del(fiber.HeaderContentEncoding)
	w.c.Status(status)
	w.apply()
}

func (w *writer) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.c.Response().AppendBody(b)
	return len(b), nil
}
