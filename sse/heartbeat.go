package sse

import (
	"time"

	"github.com/madcrow-go/madcrow/pubsub"
)

// firstEventWait is how long the response waits for the first event.
const firstEventWait = time.Second

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

// sendOverdue sends a comment that keeps the connection alive, or begins a response
// whose first event is late. The response is locked.
func (s *response) sendOverdue() {
	switch {
	case s.ended:
		return
	case !s.started:
		s.start()
		s.buf = frame{event: pubsub.EventInterrupted.String(), data: "{}"}.appendTo(s.buf)
	default:
		s.buf = append(s.buf, ":\n\n"...)
	}
	if s.write() != nil {
		s.cancel()
	}
}
