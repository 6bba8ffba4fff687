package pubsub

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow/problem"
)

// beginWithin is how long the answer waits for the first event.
const firstEventTimeout = time.Second

// errEndedAlready answers a write after the end.
var errEndedAlready = errors.New("the answer has ended")

type sseSettings struct{ heartbeat, timeout, retry time.Duration }

// sseStream is one answer that goes on. Events come from the goroutine of the
// request; a timer, which needs none, sends what is due when none come.
type sseStream struct {
	sseSettings
	w      http.ResponseWriter
	rc     *http.ResponseController
	cancel context.CancelFunc

	mu      sync.Mutex // of what follows, and of w
	buf     []byte
	started bool
	ended   bool
	failure error // a write failed or took too long
	timer   *time.Timer
}

func newSSEStream(w http.ResponseWriter, settings sseSettings, cancel context.CancelFunc) *sseStream {
	s := &sseStream{sseSettings: settings, w: w, rc: http.NewResponseController(w), cancel: cancel}
	// The server would otherwise end reading, and with it the request, after
	// its own time-out. Where it cannot be set there is none to lift.
	_ = s.rc.SetReadDeadline(time.Time{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(firstEventTimeout, s.onTimer)
	return s
}

const (
	// bodyWithin is how long the body of a request may still be on its way.
	bodyTimeout = 2 * time.Second
	// bodyMost is how much of it is thrown away, as much as by net/http.
	maxBody = 256 << 10
)

// finishBody reads what is left of the body of a request. net/http reads it
// before it sends a header, for which no write time-out holds, and again at the
// end: a client that keeps back a part of it would hold the stream for ever, and
// all that waits for it. A time-out of reading ends the request for net/http, so
// without its whole body there is no stream. HTTP/2 does not wait for bodies.
func (h *SSEHandler) finishBody(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 || r.ProtoMajor != 1 {
		return nil
	}
	rc := http.NewResponseController(w)
	if rc.SetReadDeadline(time.Now().Add(bodyTimeout)) != nil {
		// The server's own time-out holds, since it cannot be lifted either. The
		// header leaves without it.
		w.Header().Set("Connection", "close")
		return nil
	}
	forbid := func() { _ = rc.SetReadDeadline(time.Unix(1, 0)) }
	ended := context.AfterFunc(h.end, forbid)
	_, err := io.CopyN(io.Discard, r.Body, maxBody+1)
	over := !ended()
	if err == io.EOF || errors.Is(err, http.ErrBodyReadAfterClose) { //nolint:errorlint // as CopyN returns it
		return nil // whoever closed it has read it, or net/http closes the connection
	}
	forbid() // nor is it read for the refusal
	_ = r.Body.Close()
	_ = rc.SetWriteDeadline(time.Now().Add(h.settings.timeout)) // the server's may be over
	w.Header().Set("Connection", "close")
	switch {
	case over:
		return errEnded
	case err == nil:
		return problem.New(http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", "The request body is too large")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problem.New(http.StatusRequestTimeout, "BODY_TIMEOUT", "The request body did not arrive in time")
	}
	return problem.New(http.StatusBadRequest, "BODY_INCOMPLETE", "The request body could not be read")
}

// relay sends all frames, and returns why it does not go on.
func (s *sseStream) relay(frames iter.Seq2[frame, error]) error {
	for f, err := range frames {
		if err != nil {
			return err
		}
		if err := s.send(f); err != nil {
			return err
		}
	}
	return nil
}

func (s *sseStream) send(f frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
	s.buf = f.append(s.buf)
	return s.write()
}

// due runs when nothing was sent for a while. It is nobody's goroutine: where
// the writer of a middleware panics, the answer ends.
func (s *sseStream) onTimer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := false
	defer func() {
		if _ = recover(); !written {
			s.ended, s.failure = true, errEndedAlready
			s.cancel()
		}
	}()
	s.sendOverdue()
	written = true
}

func (s *sseStream) sendOverdue() {
	switch {
	case s.ended:
		return
	case !s.started:
		s.start()
		s.buf = frame{event: EventInterrupted.String(), data: "{}"}.append(s.buf)
	default:
		s.buf = append(s.buf, ":\n\n"...)
	}
	if s.write() != nil {
		s.cancel()
	}
}

// begin sets the headers, and puts the hint for browsers before the first
// event. The stream is locked.
func (s *sseStream) start() {
	if s.started {
		return
	}
	s.started = true
	setEventHeaders(s.w.Header())
	s.w.WriteHeader(http.StatusOK)
	if s.retry > 0 {
		hint := s.retry + rand.N(s.retry/2+1) //nolint:gosec // no secret
		s.buf = append(s.buf, "retry: "...)
		s.buf = append(strconv.AppendInt(s.buf, max(hint.Milliseconds(), 1), 10), "\n\n"...)
	}
}

func setEventHeaders(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
}

// bufferMost is what is kept for the next event.
const maxBuffer = 16 << 10

// write sends the buffer. The stream is locked.
func (s *sseStream) write() error {
	if s.ended {
		return errEndedAlready
	}
	_ = s.rc.SetWriteDeadline(time.Now().Add(s.timeout))
	_, err := s.w.Write(s.buf)
	if err == nil {
		err = s.rc.Flush()
	}
	if s.buf = s.buf[:0]; cap(s.buf) > maxBuffer {
		s.buf = nil
	}
	if err != nil {
		s.ended, s.failure = true, err
		return err
	}
	// HTTP/2 resets a stream when its deadline passes, also when nobody writes.
	_ = s.rc.SetWriteDeadline(time.Time{})
	s.timer.Reset(s.heartbeat)
	return nil
}

// end lets nothing more be written, and says whether the answer was begun and
// why it was cut off.
func (s *sseStream) finish() (begun bool, cut error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Stop()
	if !s.ended {
		// What is still to be written, a refusal or the end of the answer, has
		// time, but must not wait for ever.
		_ = s.rc.SetWriteDeadline(time.Now().Add(s.timeout))
	}
	s.ended = true
	return s.started, s.failure
}

// canFlush says whether events can leave before the answer ends.
func canFlush(w http.ResponseWriter) bool {
	for {
		switch v := w.(type) {
		case http.Flusher, interface{ FlushError() error }:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return false
		}
	}
}
