// Package carry runs net/http middleware inside other frameworks. A net/http
// middleware may run its handler in another goroutine, buffer, change or discard the
// response, or respond before the handler has returned, while a framework reuses the
// objects of a request for the next one.
//
// It is for authors of adapters; those under contrib use it. Programs use their
// adapter's Middleware.
package carry

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/madcrow-go/madcrow/problem"
)

// Middleware returns a function that serves a request of a framework by mw. next is
// the framework's handler behind mw: it writes its whole response, also that to an
// error, to w. The request ends no sooner than next returns. If mw responds before,
// as http.TimeoutHandler does, the client has that response in the meantime. passed
// reports whether next returned without a panic. With once a second run of next is
// refused.
func Middleware[C any](mw func(http.Handler) http.Handler, once bool, next func(c C, w http.ResponseWriter, r *http.Request)) func(c C, w http.ResponseWriter, r *http.Request) (passed bool) {
	key := new(int) // each middleware finds its own run
	h := mw(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x, ok := r.Context().Value(key).(*run[C])
		if !ok {
			Refuse(w, r, "The middleware runs its handler without the context of the request")
			return
		}
		if why := x.enter(once); why != "" {
			Refuse(w, r, why)
			return
		}
		defer x.leave()
		x.inner = inner{w, &x.inside, w == http.ResponseWriter(x)}
		next(x.c, &x.inner, r)
		x.passed = true
	}))
	return func(c C, w http.ResponseWriter, r *http.Request) bool {
		x := &run[C]{c: c}
		x.ResponseWriter = w
		func() {
			defer x.end() // also after a panic
			h.ServeHTTP(x, r.WithContext(context.WithValue(r.Context(), key, x)))
		}()
		return x.passed
	}
}

// Refuse answers a request whose middleware is not supported. The log is that of a
// middleware outside: see [problem.Writer].
func Refuse(w http.ResponseWriter, r *http.Request, message string) {
	problem.Write(w, r, nil, problem.New(http.StatusInternalServerError, "MIDDLEWARE_NOT_CARRIED", message))
}

// run is one request in a middleware, and the middleware's response writer.
type run[C any] struct {
	answer
	c      C
	inner  inner
	passed bool

	entered, over bool
	done          chan struct{} // closed by the handler if end waits
}

func (x *run[C]) enter(once bool) (why string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.over:
		return "The middleware starts its handler after the request has ended; the framework has reused its context"
	case x.running, x.entered && once:
		return "The middleware runs its handler more than once, which this framework does not support"
	}
	x.entered, x.running = true, true
	return ""
}

func (x *run[C]) leave() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.running = false
	if x.done != nil {
		close(x.done)
	}
}

// end completes the response of the middleware and waits for the handler.
func (x *run[C]) end() {
	x.mu.Lock()
	x.over = true
	if x.running {
		x.done = make(chan struct{})
		if x.status != 0 && x.Header().Get("Content-Length") == "" {
			x.Header().Set("Content-Length", strconv.Itoa(len(x.body))) // the body is complete
		}
	}
	x.release()
	waits, begun := x.done, x.begun
	x.mu.Unlock()
	if waits != nil {
		if begun { // otherwise it panicked, and an outer handler may respond
			_ = http.NewResponseController(x.ResponseWriter).Flush()
		}
		<-waits
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone.Store(true)
}

// answer wraps the framework's writer for a middleware. A response that the
// middleware itself writes while its handler runs is buffered until the middleware
// returns. It then gets a Content-Length, so that the client need not wait for the
// handler.
type answer struct {
	http.ResponseWriter
	inside atomic.Bool // the handler is writing
	gone   atomic.Bool // the request is over: the framework may have reused its writer

	mu      sync.Mutex
	running bool // the handler
	begun   bool
	status  int // of the buffered response; 0 if there is none
	body    []byte
}

// maxHeld bounds the buffered body.
const maxHeld = 64 << 10

func (w *answer) hold(status int, b []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.gone.Load():
		return true
	case w.begun:
		return false
	case w.status == 0 && (!w.running || w.inside.Load() || w.Header().Get("Content-Length") != ""), w.status != 0 && (w.inside.Load() || len(w.body)+len(b) > maxHeld):
		w.release()
		w.begun = true
		return false
	case w.status == 0:
		w.status = status
	}
	w.body = append(w.body, b...)
	return true
}

func (w *answer) release() {
	if w.status == 0 {
		return
	}
	w.writeHeader(w.status)
	if len(w.body) > 0 {
		_, _ = w.ResponseWriter.Write(w.body) // an error means that the client has gone
	}
	w.status, w.body, w.begun = 0, nil, true
}

func (w *answer) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.release()
	w.begun = true
}

// writeHeader sends the header even if the framework would wait for a body. Interim
// responses (1xx) bypass the framework, which would take them for the final one.
func (w *answer) writeHeader(status int) {
	if u, ok := w.ResponseWriter.(interface{ Unwrap() http.ResponseWriter }); ok && status < http.StatusOK && status != http.StatusSwitchingProtocols {
		u.Unwrap().WriteHeader(status)
		return
	}
	w.ResponseWriter.WriteHeader(status)
	if late, ok := w.ResponseWriter.(interface{ WriteHeaderNow() }); ok {
		late.WriteHeaderNow()
	}
}

// Header implements [http.ResponseWriter].
func (w *answer) Header() http.Header {
	if w.gone.Load() {
		return http.Header{}
	}
	return w.ResponseWriter.Header()
}

func (w *answer) WriteHeader(status int) {
	if early := status < http.StatusOK && status != http.StatusSwitchingProtocols; early && !w.gone.Load() || !early && !w.hold(status, nil) {
		w.writeHeader(status)
	}
}

func (w *answer) Write(b []byte) (int, error) {
	if w.hold(http.StatusOK, b) {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

// FlushError is called by [http.ResponseController].
func (w *answer) FlushError() error {
	if w.gone.Load() {
		return http.ErrNotSupported
	}
	w.begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements [http.Flusher].
func (w *answer) Flush() { _ = w.FlushError() }

// Hijack implements [http.Hijacker].
func (w *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.gone.Load() {
		return nil, nil, http.ErrNotSupported
	}
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap lets [http.ResponseController] find what the server offers.
func (w *answer) Unwrap() http.ResponseWriter {
	if w.gone.Load() {
		return nil
	}
	return w.ResponseWriter
}

// inner wraps the middleware's writer for next and records when next writes.
type inner struct {
	http.ResponseWriter
	inside *atomic.Bool
	direct bool
}

// Direct reports whether the middleware has passed on the framework's own writer, so
// that it can neither buffer nor change the response.
func (w *inner) Direct() bool { return w.direct }

func (w *inner) WriteHeader(status int) {
	w.inside.Store(true)
	defer w.inside.Store(false)
	w.ResponseWriter.WriteHeader(status)
}

func (w *inner) Write(b []byte) (int, error) {
	w.inside.Store(true)
	defer w.inside.Store(false)
	return w.ResponseWriter.Write(b)
}

// FlushError is called by [http.ResponseController].
func (w *inner) FlushError() error {
	w.inside.Store(true)
	defer w.inside.Store(false)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements [http.Flusher].
func (w *inner) Flush() { _ = w.FlushError() }

// Hijack implements [http.Hijacker].
func (w *inner) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap lets [http.ResponseController] find what the server offers.
func (w *inner) Unwrap() http.ResponseWriter { return w.ResponseWriter }
