// Package carry has what adapters of frameworks share that carry a middleware of
// net/http into one: such a middleware may run its handler in another goroutine,
// keep what that writes, change it, throw it away, or answer before it has ended,
// while a framework uses what belongs to a request for the next one.
//
// It is for authors of adapters; those under contrib are made with it. Programs
// use their adapter's Middleware.
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

// Middleware returns what serves a request of a framework by mw. next is what
// comes after mw there: it writes its whole answer, also that to an error, to w.
// Its request ends no sooner than next does: where mw answers before, as
// http.TimeoutHandler, the client has that answer meanwhile. passed says whether
// next has returned by itself. With once next cannot run twice.
func Middleware[C any](mw func(http.Handler) http.Handler, once bool, next func(c C, w http.ResponseWriter, r *http.Request)) func(c C, w http.ResponseWriter, r *http.Request) (passed bool) {
	key := new(int) // each middleware finds its own run
	h := mw(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x, ok := r.Context().Value(key).(*run[C])
		if !ok {
			Refuse(w, r, "The middleware gives its handler another context than that of the request")
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

// Refuse answers where a middleware cannot be carried.
func Refuse(w http.ResponseWriter, r *http.Request, message string) {
	problem.Write(w, r, nil, problem.New(http.StatusInternalServerError, "MIDDLEWARE_NOT_CARRIED", message))
}

// run is one request in a middleware, and what the middleware answers to.
type run[C any] struct {
	answer
	c      C
	inner  inner
	passed bool

	entered, over bool
	done          chan struct{} // closed by the handler, where somebody waits
}

func (x *run[C]) enter(once bool) (why string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.over:
		return "The middleware begins its handler after its request has ended, when the framework uses its context for the next one"
	case x.running, x.entered && once:
		return "The middleware runs its handler twice, which this framework cannot"
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

// end ends what the middleware answers, and waits for the handler.
func (x *run[C]) end() {
	x.mu.Lock()
	x.over = true
	if x.running {
		x.done = make(chan struct{})
		if x.status != 0 && x.Header().Get("Content-Length") == "" {
			x.Header().Set("Content-Length", strconv.Itoa(len(x.body))) // it is all there
		}
	}
	x.release()
	waits, begun := x.done, x.begun
	x.mu.Unlock()
	if waits != nil {
		if begun { // or it panicked, and an answer may come from outside
			_ = http.NewResponseController(x.ResponseWriter).Flush()
		}
		<-waits
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone.Store(true)
}

// answer is the framework's writer for a middleware. What the middleware itself
// answers while its handler runs is held back until it returns: it then gets a
// Content-Length, and the client need not wait for the handler.
type answer struct {
	http.ResponseWriter
	inside atomic.Bool // the handler is writing
	gone   atomic.Bool // the request is over: the framework's writer is another's

	mu      sync.Mutex
	running bool // the handler
	begun   bool
	status  int // of what is held; 0: nothing
	body    []byte
}

// maxHeld bounds what is held.
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
		_, _ = w.ResponseWriter.Write(w.body) // there is nobody left to tell
	}
	w.status, w.body, w.begun = 0, nil, true
}

func (w *answer) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.release()
	w.begun = true
}

// writeHeader begins the answer also where the framework waits for a body. What
// comes before it (1xx) is nothing to the framework: it would take it for the
// answer.
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

// Header is what [http.ResponseWriter] says.
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

// FlushError is what [http.ResponseController] calls.
func (w *answer) FlushError() error {
	if w.gone.Load() {
		return http.ErrNotSupported
	}
	w.begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is for those who look for [http.Flusher].
func (w *answer) Flush() { _ = w.FlushError() }

// Hijack hands the connection over.
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

// inner is the middleware's writer for what comes after it, and says when that
// writes.
type inner struct {
	http.ResponseWriter
	inside *atomic.Bool
	direct bool
}

// Direct says whether the middleware has handed on the framework's own writer, so
// that nothing in between can keep or change the answer.
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

// FlushError is what [http.ResponseController] calls.
func (w *inner) FlushError() error {
	w.inside.Store(true)
	defer w.inside.Store(false)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is for those who look for [http.Flusher].
func (w *inner) Flush() { _ = w.FlushError() }

// Hijack is for those who look for [http.Hijacker].
func (w *inner) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap lets [http.ResponseController] find what the server offers.
func (w *inner) Unwrap() http.ResponseWriter { return w.ResponseWriter }
