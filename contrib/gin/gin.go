package madcrowgin

import (
	"bufio"
	"net"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/madcrow-go/madcrow/carry"
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

// Health adds the routes /health/live, /health/ready and /health of a
// [health.Monitor]. Redis is not asked.
func Health(g gin.IRoutes, m *health.Monitor) {
	g.GET("/health/live", gin.WrapH(m.Live()))
	g.GET("/health/ready", gin.WrapH(m.Ready()))
	g.GET("/health", gin.WrapH(m.Detail()))
}

// Middleware carries a middleware of net/http into gin: sessions, limits,
// [problem.Writer.Recover], a cache of pages, compression, [http.TimeoutHandler].
// What comes after it answers through it: a status without a body, errors that
// were answered and gin's own 404, too. A request ends no sooner than its
// handlers, for gin uses its context again. A middleware that runs its handler
// twice is answered with 500 MIDDLEWARE_NOT_CARRIED: gin cannot.
func Middleware(mw func(http.Handler) http.Handler) gin.HandlerFunc {
	serve := carry.Middleware(mw, true, next)
	return func(c *gin.Context) {
		if !serve(call{c, c.Writer.Status()}, c.Writer, named(c)) { // refused, or it panicked
			c.Abort()
		}
	}
}

// call is one request in a middleware, and gin's status before it: 404 where gin
// has no route. It is not read later: the middleware may be answering meanwhile.
type call struct {
	*gin.Context
	status int
}

func next(x call, rw http.ResponseWriter, r *http.Request) {
	c := x.Context
	outer, request := c.Writer, c.Request
	defer func() { c.Writer, c.Request = outer, request }()
	w := &writer{ResponseWriter: outer, w: rw, status: x.status, size: -1}
	c.Writer, c.Request = w, r
	c.Next()
	switch {
	case w.Written() || w.status == http.StatusOK:
	case c.FullPath() == "" && w.status == x.status && w.status >= 400: // as gin answers after the last one
		w.Header()["Content-Type"] = []string{gin.MIMEPlain}
		_, _ = w.WriteString(unrouted[w.status])
	default:
		w.WriteHeaderNow()
	}
}

// unrouted is what gin says where it has no route.
var unrouted = map[int]string{http.StatusNotFound: "404 page not found", http.StatusMethodNotAllowed: "405 method not allowed"}

// writer is gin's over the middleware's.
type writer struct {
	gin.ResponseWriter // for what is the connection's
	w                  http.ResponseWriter
	status, size       int // size is -1 before the answer begins
}

func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.w).Hijack()
	if err == nil {
		w.size = max(w.size, 0)
	}
	return conn, rw, err
}
func (w *writer) Unwrap() http.ResponseWriter       { return w.w }
func (w *writer) WriteString(s string) (int, error) { return w.Write([]byte(s)) }
func (w *writer) Header() http.Header               { return w.w.Header() }
func (w *writer) Written() bool                     { return w.size >= 0 }
func (w *writer) Status() int                       { return w.status }
func (w *writer) Size() int                         { return w.size }

func (w *writer) WriteHeader(status int) {
	if status > 0 && !w.Written() {
		w.status = status
	}
}

func (w *writer) WriteHeaderNow() {
	if !w.Written() {
		w.size = 0
		w.w.WriteHeader(w.status)
	}
}

func (w *writer) Write(b []byte) (int, error) {
	w.WriteHeaderNow()
	n, err := w.w.Write(b)
	w.size += n
	return n, err
}

func (w *writer) Flush() {
	w.WriteHeaderNow()
	_ = http.NewResponseController(w.w).Flush()
}
