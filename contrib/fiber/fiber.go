package madcrowfiber

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
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
	problems.Rules = append(slices.Clip(problems.Rules), problem.As(func(e *fiber.Error) problem.Problem { return problem.Problem{Status: e.Code, Message: e.Message} }))
	return func(c fiber.Ctx, err error) error {
		problems.Write(newWriter(c), request(c), err)
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
		var r *http.Request
		if a.PerRequest() {
			r = inject.Scoped(request(c))
			c.SetContext(r.Context())
		}
		v, err := inject.Get(r, a)
		if err != nil {
			return err
		}
		return h(c, v)
	})
}

// With2 is With for two dependencies.
func With2[A, B any](a inject.Dep[A], b inject.Dep[B], h func(fiber.Ctx, A, B) error) fiber.Handler {
	return With(inject.Join(a, b), func(c fiber.Ctx, v inject.Pair[A, B]) error { return h(c, v.A, v.B) })
}

// With3 is With for three dependencies.
func With3[A, B, C any](a inject.Dep[A], b inject.Dep[B], d inject.Dep[C], h func(fiber.Ctx, A, B, C) error) fiber.Handler {
	return With2(inject.Join(a, b), d, func(c fiber.Ctx, v inject.Pair[A, B], vd C) error { return h(c, v.A, v.B, vd) })
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
	if !c.Matched() { // by Use the route is not known yet
		r.Pattern = ""
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
		defer w.load()
		w.c.SetContext(r.Context())
		w.err = w.c.Next()
	}))
	return func(c fiber.Ctx) error {
		w, r := newWriter(c), request(c)
		defer w.end()
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), writerKey{}, w)))
		return w.err
	}
}

type writerKey struct{}

// writer answers for a middleware. Fiber sends nothing before all have run.
type writer struct {
	c            fiber.Ctx
	header, sent http.Header // the middleware's, and the response's
	begun        bool
	err          error // of what comes after the middleware
}

func newWriter(c fiber.Ctx) *writer { return (&writer{c: c, header: http.Header{}}).load() }

func (w *writer) Header() http.Header { return w.header }

// load takes the headers of the response, but not Fiber's default type.
func (w *writer) load() *writer {
	clear(w.header)
	for name, value := range w.c.Response().Header.All() {
		if string(value) != fiber.MIMETextPlainCharsetUTF8 {
			w.header[string(name)] = append(w.header[string(name)], string(value))
		}
	}
	w.sent = maps.Clone(w.header)
	return w
}

// apply hands on the headers, if they have changed.
func (w *writer) apply() {
	if maps.EqualFunc(w.header, w.sent, slices.Equal) {
		return
	}
	for name := range w.sent {
		w.c.Response().Header.Del(name)
	}
	for name, values := range w.header {
		for _, v := range values {
			w.c.Response().Header.Add(name, v)
		}
	}
	w.sent = maps.Clone(w.header)
}

// end is deferred: a middleware's headers go out after a panic, too. One with
// [http.ErrAbortHandler] closes the connection; the program would end otherwise.
func (w *writer) end() {
	w.apply()
	if v := recover(); v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this too
		w.c.RequestCtx().HijackSetNoResponse(true)
		w.c.RequestCtx().Hijack(func(conn net.Conn) { _ = conn.Close() })
	} else if v != nil {
		panic(v)
	}
}

func (w *writer) WriteHeader(status int) {
	if w.begun || status < http.StatusOK {
		return
	}
	w.begun = true
	w.c.Response().ResetBody() // an answer that was begun before a panic
	w.c.Status(status)
	w.apply()
}

func (w *writer) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.c.Write(b)
}
