package sse

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

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
	s.buf = f.appendTo(s.buf)
	return s.write()
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
