package madcrowgin

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/inject"
)

// Handler is a handler without dependencies whose error becomes a problem.
// Handlers after it do not run then.
func Handler(s *inject.Set, h func(*gin.Context) error) gin.HandlerFunc {
	problems := s.Problems()
	return func(c *gin.Context) {
		if err := h(c); err != nil {
			_ = c.Error(err) // for gin's own log
			problems.Write(c.Writer, named(c), err)
			c.Abort()
		}
	}
}

// With makes a handler of a function that needs a. Use [inject.Maybe] for what
// is optional.
func With[A any](a inject.Dep[A], h func(*gin.Context, A) error) gin.HandlerFunc {
	return Handler(a.Set(), func(c *gin.Context) error {
		va, err := get(c, a)
		if err != nil {
			return err
		}
		return h(c, va)
	})
}

// With2 is With for two dependencies.
func With2[A, B any](a inject.Dep[A], b inject.Dep[B], h func(*gin.Context, A, B) error) gin.HandlerFunc {
	return With(inject.Join(a, b), func(c *gin.Context, v inject.Pair[A, B]) error { return h(c, v.A, v.B) })
}

// With3 is With for three dependencies.
func With3[A, B, C any](a inject.Dep[A], b inject.Dep[B], d inject.Dep[C], h func(*gin.Context, A, B, C) error) gin.HandlerFunc {
	return With2(inject.Join(a, b), d, func(c *gin.Context, v inject.Pair[A, B], vd C) error { return h(c, v.A, v.B, vd) })
}

func get[A any](c *gin.Context, a inject.Dep[A]) (A, error) {
	if a.PerRequest() {
		c.Request = inject.Scoped(named(c))
	}
	return inject.Get(c.Request, a)
}

// named tells net/http's way which route it is.
func named(c *gin.Context) *http.Request {
	c.Request.Pattern = strings.TrimSpace(c.Request.Method + " " + c.FullPath())
	for _, p := range c.Params {
		c.Request.SetPathValue(p.Key, p.Value)
	}
	return c.Request
}

// Health adds the routes /health/live, /health/ready and /health. Redis is not
// asked.
func Health(g gin.IRoutes, r *madcrow.Redis, draining func() bool, opt health.Options) {
	g.GET("/health/live", gin.WrapH(health.Live()))
	g.GET("/health/ready", gin.WrapH(health.Ready(r, draining)))
	g.GET("/health", gin.WrapH(health.Detail(r, opt)))
}

// Middleware carries a middleware of net/http into gin: sessions, limits,
// [problem.Writer.Recover]. What comes after it answers through it.
func Middleware(mw func(http.Handler) http.Handler) gin.HandlerFunc {
	h := mw(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call, _ := r.Context().Value(callKey{}).(*call)
		outer := call.c.Writer
		defer func() { call.c.Writer = outer }()
		call.c.Request, call.c.Writer = r, &writer{ResponseWriter: outer, w: w}
		call.c.Next()
		call.passed = true
	}))
	return func(c *gin.Context) {
		call := &call{c: c}
		h.ServeHTTP(c.Writer, named(c).WithContext(context.WithValue(c.Request.Context(), callKey{}, call)))
		if !call.passed { // refused, or it panicked
			c.Abort()
		}
	}
}

type callKey struct{}

type call struct {
	c      *gin.Context
	passed bool
}

// writer is gin's over the middleware's.
type writer struct {
	gin.ResponseWriter // knows the status
	w                  http.ResponseWriter
	begun              bool
}

func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.w).Hijack()
}
func (w *writer) Unwrap() http.ResponseWriter       { return w.w }
func (w *writer) WriteString(s string) (int, error) { return w.Write([]byte(s)) }
func (w *writer) Header() http.Header               { return w.w.Header() }
func (w *writer) Written() bool                     { return w.begun || w.ResponseWriter.Written() }

func (w *writer) WriteHeaderNow() {
	if !w.Written() {
		w.begun = true
		w.w.WriteHeader(w.Status())
	}
}

func (w *writer) Write(b []byte) (int, error) {
	w.WriteHeaderNow()
	return w.w.Write(b)
}

func (w *writer) Flush() {
	w.WriteHeaderNow()
	_ = http.NewResponseController(w.w).Flush()
}
