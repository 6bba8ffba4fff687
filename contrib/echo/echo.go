package madcrowecho

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v5"

	"github.com/madcrow-go/madcrow/carry"
	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
)

// ErrorHandler answers errors with problems: those of handlers that were not
// made here, and Echo's own, such as 404. After an answer was begun the connection
// is closed.
func ErrorHandler(s *inject.Set) echo.HTTPErrorHandler {
	problems := s.Problems()
	problems.Rules = append(slices.Clip(problems.Rules), problem.ByItself, status)
	return func(c *echo.Context, err error) {
		w := c.Response()
		if r, _ := echo.UnwrapResponse(w); r != nil {
			w = response{w, r}
		}
		problems.Write(w, named(c), err)
	}
}

// response tells package problem whether the answer was begun.
type response struct {
	http.ResponseWriter
	r *echo.Response
}

func (w response) Written() bool               { return w.r.Committed }
func (w response) Status() int                 { return w.r.Status }
func (w response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// status is the rule for Echo's errors. The message of an HTTPError is for the
// caller.
func status(err error) (p problem.Problem, ok bool) {
	var coder echo.HTTPStatusCoder
	if !errors.As(err, &coder) {
		return p, false
	}
	p.Status = coder.StatusCode()
	var e *echo.HTTPError
	if errors.As(err, &e) {
		p.Message = e.Message
	}
	return p, true
}

// Handler is a handler without dependencies whose error becomes a problem.
func Handler(s *inject.Set, h func(*echo.Context) error) echo.HandlerFunc {
	answer := ErrorHandler(s)
	return func(c *echo.Context) error {
		if err := h(c); err != nil {
			answer(c, err)
		}
		return nil
	}
}

// With makes a handler of a function that needs a. Use [inject.Maybe] for what
// is optional.
func With[A any](a inject.Dep[A], h func(*echo.Context, A) error) echo.HandlerFunc {
	return Handler(a.Set(), func(c *echo.Context) error {
		va, err := get(c, a)
		if err != nil {
			return err
		}
		return h(c, va)
	})
}

// With2 is With for two dependencies.
func With2[A, B any](a inject.Dep[A], b inject.Dep[B], h func(*echo.Context, A, B) error) echo.HandlerFunc {
	return With(inject.Join(a, b), func(c *echo.Context, v inject.Pair[A, B]) error { return h(c, v.A, v.B) })
}

// With3 is With for three dependencies.
func With3[A, B, C any](a inject.Dep[A], b inject.Dep[B], d inject.Dep[C], h func(*echo.Context, A, B, C) error) echo.HandlerFunc {
	return With2(inject.Join(a, b), d, func(c *echo.Context, v inject.Pair[A, B], vd C) error { return h(c, v.A, v.B, vd) })
}

func get[A any](c *echo.Context, a inject.Dep[A]) (A, error) {
	if a.PerRequest() {
		c.SetRequest(inject.Scoped(named(c)))
	}
	return inject.Get(c.Request(), a)
}

// named tells net/http's way which route it is.
func named(c *echo.Context) *http.Request {
	r := c.Request()
	r.Pattern = strings.TrimSpace(r.Method + " " + c.Path())
	for _, p := range c.PathValues() {
		r.SetPathValue(p.Name, p.Value)
	}
	return r
}

// Middleware carries a middleware of net/http into Echo: sessions, limits,
// [problem.Writer.Recover], a cache of pages, compression, [http.TimeoutHandler].
// What comes after it answers through it, its errors too: Echo's HTTPErrorHandler
// runs inside, and a middleware of Echo outside is returned no error. A request
// ends no sooner than its handlers, for Echo uses its context again.
func Middleware(mw func(http.Handler) http.Handler) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		serve := carry.Middleware(mw, false, func(c *echo.Context, w http.ResponseWriter, r *http.Request) {
			outer, request := c.Response(), c.Request()
			defer func() { c.SetResponse(outer); c.SetRequest(request) }()
			c.SetRequest(r)
			c.SetResponse(echo.NewResponse(w, c.Echo().Logger))
			if err := next(c); err != nil {
				c.Echo().HTTPErrorHandler(c, err)
			}
		})
		return func(c *echo.Context) error {
			serve(c, c.Response(), named(c))
			return nil
		}
	}
}

// Health adds the routes /health/live, /health/ready and /health of a
// [health.Monitor]. Redis is not asked.
func Health(e *echo.Echo, m *health.Monitor) {
	e.GET("/health/live", echo.WrapHandler(m.Live()))
	e.GET("/health/ready", echo.WrapHandler(m.Ready()))
	e.GET("/health", echo.WrapHandler(m.Detail()))
}
