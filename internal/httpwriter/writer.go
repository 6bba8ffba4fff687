// Package httpwriter is the response writer of middlewares that act just before
// a header is sent.
package httpwriter

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// Hook acts before a header is sent.
type Hook interface {
	// BeforeHeader is called with the final status while the header can still be
	// changed: at WriteHeader, at the first Write, and before a flush. It is not
	// called for informational answers (1xx without 101) and not for a connection
	// that is hijacked. When a flush turns out to be unsupported, or a source that is
	// copied is empty, nothing was sent, and it is called again at the next occasion.
	BeforeHeader(status int)
}

// Writer passes a response on and calls a [Hook] before its header. Embed it by
// value and call [Writer.Init]. One goroutine writes, as with every
// http.ResponseWriter; Status may be called by any.
type Writer struct {
	http.ResponseWriter
	hook   Hook
	status atomic.Int32
}

// Init sets the writer that is wrapped, and the hook; nil is none.
func (w *Writer) Init(to http.ResponseWriter, hook Hook) { w.ResponseWriter, w.hook = to, hook }

// Status is that of the header that was sent; 0 while it can be changed. It is
// 101 after a hijack.
func (w *Writer) Status() int { return int(w.status.Load()) }

func (w *Writer) before(status int) {
	if w.Status() == 0 && w.hook != nil {
		w.hook.BeforeHeader(status)
	}
}

func (w *Writer) sent(status int) { w.status.CompareAndSwap(0, int32(status)) } //nolint:gosec // three digits

// WriteHeader passes the status on. Informational answers precede the final one.
func (w *Writer) WriteHeader(status int) {
	if final(status) {
		w.before(status)
		w.sent(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func final(status int) bool { return status >= 200 || status == http.StatusSwitchingProtocols }

// Write sends the header first, if it was not sent.
func (w *Writer) Write(p []byte) (int, error) {
	w.implicit()
	return w.ResponseWriter.Write(p)
}

// WriteString saves the copy of a string.
func (w *Writer) WriteString(s string) (int, error) {
	w.implicit()
	return io.WriteString(w.ResponseWriter, s)
}

// ReadFrom lets the server send files without a copy. A source without a byte sends
// no header: the handler may still answer with the error of the source.
func (w *Writer) ReadFrom(src io.Reader) (int64, error) {
	first := w.Status() == 0
	w.implicit()
	n, err := io.Copy(w.ResponseWriter, src)
	if first && n == 0 {
		w.status.CompareAndSwap(http.StatusOK, 0)
	}
	return n, err
}

// implicit is the header of a handler that writes without one.
func (w *Writer) implicit() {
	w.before(http.StatusOK)
	w.sent(http.StatusOK)
}

// FlushError is what [http.ResponseController] calls.
func (w *Writer) FlushError() error {
	w.before(http.StatusOK)
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if !errors.Is(err, http.ErrNotSupported) {
		w.sent(http.StatusOK)
	}
	return err
}

// Flush is for handlers that do not use [http.ResponseController].
func (w *Writer) Flush() { _ = w.FlushError() }

// Hijack hands the connection over. Nothing of the header is sent after that.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.sent(http.StatusSwitchingProtocols)
	}
	return conn, rw, err
}

// Unwrap lets [http.ResponseController] find what the server offers.
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
