package httpcache

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// An [exchange] is the handler's http.ResponseWriter, with all that an
// http.ResponseController looks for.

var errReturned = errors.New("httpcache: the handler has returned")

// Header is the handler's own: what the client's has already is no part of the
// response.
func (x *exchange) Header() http.Header { return x.recorder.header }

// WriteHeader decides what becomes of the response.
func (x *exchange) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.writeHeader(status)
}

func (x *exchange) writeHeader(status int) {
	switch {
	case x.recorder.status != 0 || x.phase == phaseEnd:
		return
	case status < 200 && status != http.StatusSwitchingProtocols:
		x.informational(status)
		return
	}
	x.recorder.begin(status)
	switch x.phase {
	case phaseKeep:
		if x.recorder.decide() == fatePass {
			x.pass()
		}
	case phaseStream:
		x.deliver()
	}
}

// Written and Status say whether the response was begun, and how: package
// problem aborts one that fails in the middle, so that no one takes it for whole.
func (x *exchange) Written() bool { return x.Status() != 0 }

// Status is 0 before the response was begun.
func (x *exchange) Status() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.recorder.status
}

// Write keeps the body, or passes it on.
func (x *exchange) Write(p []byte) (int, error) {
	x.mu.Lock()
	if x.recorder.status == 0 {
		x.writeHeader(http.StatusOK)
	}
	if x.phase == phaseKeep && !x.recorder.fits(len(p)) {
		x.pass()
	}
	if x.phase == phaseStream {
		x.mu.Unlock() // it may take its time
		return x.v.w.Write(p)
	}
	defer x.mu.Unlock()
	if x.phase == phaseEnd {
		return 0, errReturned
	}
	if err := x.ctx.Err(); err != nil {
		return 0, err
	}
	if !bodyAllowed(x.recorder.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if x.phase == phaseKeep {
		x.recorder.write(p)
	}
	return len(p), nil
}

// client is the client's writer, if there is a client who gets what the handler
// writes.
func (x *exchange) client() (w http.ResponseWriter, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.phase == phaseKeep && !x.recorder.failed() { // in the place of a failure the stale one is served
		x.pass()
	}
	return x.v.w, x.phase == phaseStream
}

// flushGrace is how long what was flushed is kept back, where others may have
// the response: proxies flush after each piece of a body whose length they do
// not know, and are done a moment later. Longer than that it is a stream.
const flushGrace = 100 * time.Millisecond

// FlushError makes the response a stream, unless it soon ends.
func (x *exchange) FlushError() error {
	x.mu.Lock()
	if x.recorder.status == 0 {
		x.writeHeader(http.StatusOK)
	}
	if x.phase == phaseKeep {
		if x.attached && !x.flushing && !x.recorder.failed() { // as in client
			x.flushing, x.streamAt = true, time.Now().Add(flushGrace)
			x.cleanup = append(x.cleanup, time.AfterFunc(flushGrace, x.flushLate).Stop)
		}
		x.mu.Unlock()
		return nil
	}
	x.mu.Unlock()
	if w, ok := x.client(); ok {
		return http.NewResponseController(w).Flush()
	}
	return nil
}

// flushLate makes a stream of a response that was flushed and goes on.
func (x *exchange) flushLate() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.phase == phaseKeep && x.attached {
		x.pass()
	}
}

// Flush is FlushError for those who look for [http.Flusher].
func (x *exchange) Flush() { _ = x.FlushError() }

// Hijack gives the connection to the handler.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w, ok := x.client(); ok {
		return http.NewResponseController(w).Hijack()
	}
	return nil, nil, http.ErrNotSupported
}

// SetReadDeadline is that of the client's connection.
func (x *exchange) SetReadDeadline(t time.Time) error {
	return x.control(func(c *http.ResponseController) error { return c.SetReadDeadline(t) })
}

// SetWriteDeadline is that of the client's connection.
func (x *exchange) SetWriteDeadline(t time.Time) error {
	return x.control(func(c *http.ResponseController) error { return c.SetWriteDeadline(t) })
}

// EnableFullDuplex is that of the client's connection.
func (x *exchange) EnableFullDuplex() error {
	return x.control((*http.ResponseController).EnableFullDuplex)
}

func (x *exchange) control(do func(*http.ResponseController) error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.attached || x.phase != phaseKeep && x.phase != phaseStream {
		return http.ErrNotSupported
	}
	return do(http.NewResponseController(x.v.w))
}

// Unwrap is for what this writer does not offer. The response is then the
// client's alone.
func (x *exchange) Unwrap() http.ResponseWriter {
	if w, ok := x.client(); ok {
		return w
	}
	return discarding{}
}

// discarding is the writer when there is no client.
type discarding struct{}

func (discarding) Header() http.Header         { return http.Header{} }
func (discarding) WriteHeader(int)             {}
func (discarding) Write(p []byte) (int, error) { return len(p), nil }
