package sse

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
	"github.com/madcrow-go/madcrow/pubsub"
)

// firstEventWait is how long the response waits for the first event.
const firstEventWait = time.Second

// errEndedAlready is returned by a write after the end.
var errEndedAlready = errors.New("the response has ended")

type settings struct{ heartbeat, timeout, retry time.Duration }

// response is one response that goes on. The goroutine of the request writes the
// events; a timer writes a heartbeat when none come.
type response struct {
	settings
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

func newResponse(w http.ResponseWriter, settings settings, cancel context.CancelFunc) *response {
	s := &response{settings: settings, w: w, rc: http.NewResponseController(w), cancel: cancel}
	// The server would otherwise end reading, and with it the request, after
	// its own time-out. Where it cannot be set there is none to lift.
	_ = s.rc.SetReadDeadline(time.Time{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(firstEventWait, s.onTimer)
	return s
}

const (
	// bodyTimeout is how long the body of a request may still be on its way.
	bodyTimeout = 2 * time.Second
	// maxBody is how much of it is discarded, as much as by net/http.
	maxBody = 256 << 10
)

// finishBody reads the rest of the body of a request. net/http reads it before it
// sends a header, for which no write timeout holds, and again at the end: a client
// that keeps back a part of it would hold the response for ever, and all that waits
// for it. A timeout of reading ends the request for net/http, so without its whole
// body there is no response. HTTP/2 does not wait for bodies.
func (h *Handler) finishBody(w http.ResponseWriter, r *http.Request) error {
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
	ended := context.AfterFunc(h.ctx, forbid)
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

// relay sends all frames, and returns the error that ends them.
func (s *response) relay(frames iter.Seq2[frame, error]) error {
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

func (s *response) send(f frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
	s.buf = f.append(s.buf)
	return s.write()
}

// onTimer runs when nothing was sent for a while, on a goroutine of its own: a
// panic in the writer of a middleware ends the response, not the process.
func (s *response) onTimer() {
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

func (s *response) sendOverdue() {
	switch {
	case s.ended:
		return
	case !s.started:
		s.start()
		s.buf = frame{event: pubsub.EventInterrupted.String(), data: "{}"}.append(s.buf)
	default:
		s.buf = append(s.buf, ":\n\n"...)
	}
	if s.write() != nil {
		s.cancel()
	}
}

// start sets the headers, and writes the hint for browsers before the first event.
// The response is locked.
func (s *response) start() {
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

// maxBuffer is the largest buffer that is kept for the next event.
const maxBuffer = 16 << 10

// write sends the buffer. The response is locked.
func (s *response) write() error {
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
	// HTTP/2 resets a stream when its deadline passes, also when nothing is written.
	_ = s.rc.SetWriteDeadline(time.Time{})
	s.timer.Reset(s.heartbeat)
	return nil
}

// finish lets nothing more be written, and returns whether the response was started
// and why it was cut off.
func (s *response) finish() (started bool, failure error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Stop()
	if !s.ended {
		// A refusal or the end of the response may still be written; it must not
		// wait for ever.
		_ = s.rc.SetWriteDeadline(time.Now().Add(s.timeout))
	}
	s.ended = true
	return s.started, s.failure
}

// canFlush says whether events can leave before the response ends.
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
