package problem

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow/internal/httpwriter"
)

// Write answers r with the problem of err, and logs err with the error_id. Without a
// logger it uses the one of a middleware outside: see [Writer]. Nothing should have
// been written to w before; see [Writer.Write]. A [Writer] adds rules.
func Write(w http.ResponseWriter, r *http.Request, logger *slog.Logger, err error) {
	Writer{Logger: logger}.Write(w, r, err)
}

// Write answers r with the problem of err, and logs err with the error_id.
//
// Nothing should have been written to w before. Inside [Writer.Recover] Write
// knows whether a response has started. Then it logs err and panics with
// [http.ErrAbortHandler], which closes the connection: otherwise the client would
// take a truncated response for a complete one. A response that has started with
// a status of 400 or more is left as it is.
func (f Writer) Write(w http.ResponseWriter, r *http.Request, err error) {
	p := f.From(err)
	if f.Logger == nil {
		f.Logger = loggerOf(w)
	}
	Log(r.Context(), f.Logger, p, err, slog.String("method", r.Method), slog.String("route", r.Pattern))
	if status := startedStatus(w); status >= 400 {
		return
	} else if status > 0 {
		abort(w)
		return
	}
	p.SetHeaders(w.Header())
	w.WriteHeader(p.Status)
	if r.Method == http.MethodHead {
		return
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(p) // an error means that the client has gone
}

// SetHeaders sets the headers of p. It removes Content-Length and
// Content-Encoding, which a handler may have set for another body.
func (p Problem) SetHeaders(h http.Header) {
	h.Del("Content-Length")
	h.Del("Content-Encoding")
	maps.Copy(h, p.Header)
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((p.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if p.Allow != "" {
		h.Set("Allow", p.Allow)
	}
	if p.Challenge != "" {
		h.Set("WWW-Authenticate", p.Challenge)
	}
}

// Log writes the cause of p under its error_id: at level Error where the server
// failed, at level Info where the client made the mistake or canceled. The logger
// may be nil. An error in cause with a method LogAttrs() []slog.Attr adds these.
func Log(ctx context.Context, logger *slog.Logger, p Problem, cause error, attrs ...slog.Attr) {
	level := slog.LevelInfo
	if p.Status >= 500 && !errors.Is(cause, context.Canceled) {
		level = slog.LevelError
	}
	if logger == nil || !logger.Enabled(ctx, level) {
		return
	}
	attrs = append(attrs,
		slog.String("error_id", p.ErrorID),
		slog.Int("status", p.Status),
		slog.String("code", p.Code))
	if p.Operation != "" {
		attrs = append(attrs, slog.String("operation", p.Operation), slog.String("table", p.Table))
	}
	if cause != nil {
		attrs = append(attrs, slog.String("cause", cause.Error()))
	}
	var more interface{ LogAttrs() []slog.Attr }
	if errors.As(cause, &more) {
		attrs = append(attrs, more.LogAttrs()...)
	}
	var pe *panicError
	if errors.As(cause, &pe) {
		attrs = append(attrs, slog.String("stack", string(pe.stack)))
	}
	logger.LogAttrs(ctx, level, "request failed", attrs...)
}

// Recover answers a panic of the handler with a 500 problem and logs it with
// its stack. [http.ErrAbortHandler] passes through. A panic after the response has
// started becomes ErrAbortHandler, which closes the connection: otherwise the
// client would take a truncated response for a complete one.
func Recover(logger *slog.Logger) func(http.Handler) http.Handler {
	return Writer{Logger: logger}.Recover
}

// Recover is the package's [Recover] with the rules of the Writer.
func (f Writer) Recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rw := &recoverWriter{log: f.Logger}
		rw.Init(w, nil)
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this too
				panic(v)
			}
			err := PanicError(v)
			if rw.Status() > 0 {
				Log(r.Context(), cmp.Or(f.Logger, loggerOf(w)), f.From(err), err, slog.String("method", r.Method), slog.String("route", r.Pattern))
				abort(w)
				panic(http.ErrAbortHandler) // it was hijacked
			}
			f.Write(w, r, err)
		}()
		next.ServeHTTP(rw, r)
	})
}

// PanicError makes an error of a recovered value, with the stack of the
// goroutine for the log. It is a 500.
func PanicError(v any) error {
	return &panicError{value: v, stack: debug.Stack()}
}

type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// recoverWriter records the status of the response.
type recoverWriter struct {
	httpwriter.Writer
	log *slog.Logger
}

// Logger returns the logger for the problems of handlers that have none.
func (w *recoverWriter) Logger() *slog.Logger { return w.log }

// loggerOf returns the logger of the innermost middleware that has one, as far as w
// knows; nil for none.
func loggerOf(w http.ResponseWriter) *slog.Logger {
	for {
		if v, ok := w.(interface{ Logger() *slog.Logger }); ok && v.Logger() != nil {
			return v.Logger()
		}
		if w = inside(w); w == nil {
			return nil
		}
	}
}

// inside returns the writer that w wraps, nil for none. The server's writer and a
// recording one, such as a cache's, are not unwrapped: see startedStatus.
func inside(w http.ResponseWriter) http.ResponseWriter {
	if _, last := w.(interface{ SetReadDeadline(t time.Time) error }); last {
		return nil
	}
	if v, ok := w.(interface{ Unwrap() http.ResponseWriter }); ok {
		return v.Unwrap()
	}
	return nil
}

// abort closes the connection of a response that has started, so that the client
// sees that it is truncated. It leaves a hijacked connection to its handler.
func abort(w http.ResponseWriter) {
	if _, err := w.Write(nil); errors.Is(err, http.ErrHijacked) {
		return
	}
	// An outer middleware may recover the panic, as gin's Recovery does; the write
	// deadline closes the connection then.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
	panic(http.ErrAbortHandler)
}

// startedStatus returns the status of a response that has started, as far as w
// knows; 0 if it has not.
func startedStatus(w http.ResponseWriter) int {
	for {
		if v, ok := w.(interface { // gin's
			Written() bool
			Status() int
		}); ok && v.Written() {
			return v.Status()
		}
		switch v := w.(type) {
		case *recoverWriter:
			return v.Status()
		case interface{ SetReadDeadline(t time.Time) error }:
			// The server's writer, or a recording writer such as a cache's. The
			// latter must not be unwrapped: the client's response is a different
			// one, and unwrapping ends the recording.
			return 0
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return 0
		}
	}
}
