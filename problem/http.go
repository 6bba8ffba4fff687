package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"
)

// Write answers r with the problem of err, and logs err with the error_id. The
// logger may be nil. Nothing may have been written to w before. A [Writer] has
// rules of its own.
func Write(w http.ResponseWriter, r *http.Request, logger *slog.Logger, err error) {
	Writer{Logger: logger}.Write(w, r, err)
}

// Write answers r with the problem of err, and logs err with the error_id.
// Nothing may have been written to w before.
func (f Writer) Write(w http.ResponseWriter, r *http.Request, err error) {
	p := f.From(err)
	p.SetHeaders(w.Header())
	Log(r.Context(), f.Logger, p, err, slog.String("method", r.Method), slog.String("route", r.Pattern))
	w.WriteHeader(p.Status)
	if r.Method == http.MethodHead {
		return
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(p) // the caller has gone; there is nobody left to tell
}

// SetHeaders sets the headers that go with p. Content-Length and
// Content-Encoding of an answer that was begun are removed.
func (p Problem) SetHeaders(h http.Header) {
	h.Del("Content-Length")
	h.Del("Content-Encoding")
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

// Log writes the cause of p under its error_id: what the server failed at as an
// error, what the caller did wrong or gave up as information. The logger may be
// nil.
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
	var pe *panicError
	if errors.As(cause, &pe) {
		attrs = append(attrs, slog.String("stack", string(pe.stack)))
	}
	logger.LogAttrs(ctx, level, "request failed", attrs...)
}

// Recover answers a panic of the handler with a 500 problem and logs it with
// its stack. [http.ErrAbortHandler] passes through, and so does a panic after
// the answer was begun, as ErrAbortHandler: the connection is then closed, so
// that the caller does not take half an answer for a whole one.
func Recover(logger *slog.Logger) func(http.Handler) http.Handler {
	return Writer{Logger: logger}.Recover
}

// Recover is the middleware of that name, with the rules of the Writer.
func (f Writer) Recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rw := &recoverWriter{ResponseWriter: w}
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this too
				panic(v)
			}
			err := PanicError(v)
			if rw.started {
				Log(r.Context(), f.Logger, f.From(err), err, slog.String("method", r.Method), slog.String("route", r.Pattern))
				panic(http.ErrAbortHandler)
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

// recoverWriter knows whether the answer was begun.
type recoverWriter struct {
	http.ResponseWriter
	started bool
}

func (w *recoverWriter) WriteHeader(status int) {
	// 1xx answers precede the one that counts.
	w.started = w.started || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

func (w *recoverWriter) Write(b []byte) (int, error) {
	w.started = true
	return w.ResponseWriter.Write(b)
}

// Unwrap lets [http.ResponseController] find what the server offers.
func (w *recoverWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
