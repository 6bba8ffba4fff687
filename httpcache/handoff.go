package httpcache

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// handoff says who gets what a handler writes: at first the recorder, for all who
// wait; from the moment that it must not be shared, its own client; or no one,
// where that client has gone.
type handoff struct {
	v      *visit
	rec    *recorder
	cancel context.CancelFunc // ends the handler's context
	fwd    string             // for Cache-Status
	// What the client's header had before.
	varied, statuses []string

	over chan struct{} // closed when the load need not wait any more
	done chan struct{} // closed when the handler has returned

	mu       sync.Mutex // guards what follows and rec: both change together
	phase    phase
	attached bool      // the client waits
	streamed bool      // the client was given what the handler writes
	released bool      // over is closed
	flushing bool      // the handler has flushed: it becomes a stream if it goes on for long
	streamAt time.Time // when it does, however late the timer is
	expired  bool      // the time for the load has ended
	cleanup  []func() bool
	result   *storedResponse // when the handler has returned
	panicked any             // of the handler
	broken   any             // of the client's writer, raised again in the goroutine of the request
}

// phase is who gets what the handler writes.
type phase uint8

const (
	phaseIdle    phase = iota // the handler does not run
	phaseKeep                 // the recorder
	phaseStream               // the client
	phaseDiscard              // no one
	phaseEnd                  // the handler has returned
)

func (h *handoff) init(v *visit, rec *recorder, cancel context.CancelFunc) {
	h.v, h.rec, h.cancel, h.fwd, h.attached = v, rec, cancel, v.fwd, true
	h.varied, h.statuses = slices.Clone(v.w.Header()["Vary"]), slices.Clone(v.w.Header()["Cache-Status"])
	h.over, h.done = make(chan struct{}), make(chan struct{})
}

// start gives what is written to the recorder until ctx ends. It is false where
// the request has ended already.
func (h *handoff) start(ctx context.Context) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.phase != phaseIdle {
		return false
	}
	h.phase = phaseKeep
	h.cleanup = append(h.cleanup, context.AfterFunc(ctx, h.expire))
	return true
}

// retire says whether the handler was started. Where it was not, it never is.
func (h *handoff) retire() (started bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if started = h.phase != phaseIdle; !started {
		h.phase = phaseEnd
	}
	return started
}

// wait ends when there is an outcome.
func (h *handoff) wait() {
	select {
	case <-h.done:
	case <-h.over:
	}
}

// expire is called when the time for the load is over. A client who waits goes on
// waiting, as without the cache.
func (h *handoff) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.phase == phaseKeep {
		h.expired = true
		if h.rec.staleOK {
			h.phase = phaseDiscard
			h.release()
		} else {
			h.pass()
		}
	}
	if h.phase == phaseDiscard {
		h.cancel()
	}
}

// pass ends the load: the response is for the client of this request alone. mu is
// held, as by all that follow but settle.
func (h *handoff) pass() {
	if h.attached {
		h.stream()
	} else {
		h.phase = phaseDiscard
	}
	h.release()
}

func (h *handoff) release() {
	if !h.released {
		h.released = true
		close(h.over)
	}
}

// stream gives the client what was kept and what comes. From now on the handler's
// context ends with the client's request.
func (h *handoff) stream() {
	h.phase, h.streamed = phaseStream, true
	h.cleanup = append(h.cleanup, context.AfterFunc(h.v.r.Context(), h.cancel))
	if h.rec.status != 0 {
		h.deliver()
	}
	if h.flushing && h.broken == nil {
		_ = http.NewResponseController(h.v.w).Flush()
	}
	h.rec.body = nil
}

// deliver writes what was kept. It runs in whatever goroutine; a panic belongs to
// that of the request.
func (h *handoff) deliver() {
	defer func() {
		if h.broken = recover(); h.broken != nil {
			h.cancel()
		}
	}()
	if h.rec.hasConfirmed() {
		// The condition was not the client's.
		h.v.answer(h.rec.confirmed, h.rec.confirmedAge, true, h.fwd+"; fwd-status=304")
		h.phase = phaseDiscard // there is no more
		return
	}
	h.writeHead(h.rec.sent) // the handler may be changing its own
	h.v.w.WriteHeader(h.rec.status)
	if len(h.rec.body) > 0 {
		_, _ = h.v.w.Write(h.rec.body)
	}
}

// informational passes a 1xx on: only a client can have it.
func (h *handoff) informational(status int) {
	if h.phase == phaseKeep {
		h.pass()
	}
	if h.phase == phaseStream {
		h.writeHead(h.rec.header)
		h.v.w.WriteHeader(status)
	}
}

// writeHead puts a header into the client's.
func (h *handoff) writeHead(from http.Header) {
	to := h.v.w.Header()
	merge(to, from, h.varied, h.statuses)
	if from["Cache-Status"] == nil {
		delete(to, "Cache-Status")
		for _, line := range h.statuses {
			to.Add("Cache-Status", line)
		}
	}
	h.v.h.status(to, h.fwd)
}

// writeTrailers puts the handler's trailers into the client's.
func (h *handoff) writeTrailers() {
	to := h.v.w.Header()
	if h.rec.status == 0 {
		h.writeHead(h.rec.header)
	}
	for _, line := range h.rec.sent["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); h.rec.header[name] != nil {
				to[name] = h.rec.header[name]
			}
		}
	}
	for name, values := range h.rec.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			to[name] = values
		}
	}
}

// settle ends the part of the waiting request. With giveUp it does not want the
// response; otherwise it gets it: streamed to its end, or as it was kept. A panic
// of the handler is raised again.
func (h *handoff) settle(giveUp bool) (kept *storedResponse, streamed bool) {
	h.mu.Lock()
	if h.phase == phaseKeep && !giveUp {
		h.stream()
		h.release()
	}
	if h.streamed {
		h.mu.Unlock()
		<-h.done
		for _, p := range []any{h.broken, h.panicked} {
			if p != nil {
				panic(p)
			}
		}
		return nil, true
	}
	h.attached = false
	kept, p := h.result, h.panicked
	h.mu.Unlock()
	if p != nil && (!giveUp || p == http.ErrAbortHandler) { //nolint:errorlint // net/http compares it like this too
		panic(p)
	}
	return kept, false
}

// detach is for a client who does not wait.
func (h *handoff) detach() { h.attached = false }

// end notes that the handler has returned.
func (h *handoff) end(p any) {
	h.panicked, h.phase = p, phaseEnd
	for _, undo := range h.cleanup {
		undo()
	}
	h.cancel()
}
