package embedded

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// How many bytes may be under way. Requests wait for space, as on a socket.
// Replies never wait: like Redis itself the server goes on reading while a
// client does not, and hangs up when too much is unread. Without that, a
// client that sends a long pipeline before it reads would deadlock with the
// server, and one slow subscriber would stop everybody, since PUBLISH holds
// the lock of the whole server.
const (
	requestWindow = 256 << 10
	replyLimit    = 64 << 20
	keptBuffer    = 64 << 10
)

var errUnread = errors.New("embedded: the client does not read its replies")

// newPipe returns the two ends of a connection in memory.
func newPipe() (client, server *end) {
	requests, replies := newHalf(requestWindow, 0), newHalf(0, replyLimit)
	return &end{in: replies, out: requests}, &end{in: requests, out: replies}
}

// end is one end of a pipe.
type end struct {
	in, out *half
	arrived func() // called when bytes were read; or nil
	closed  func() // called when the end is closed; or nil
}

func (e *end) Read(p []byte) (int, error) {
	n, err := e.in.read(p)
	if n > 0 && e.arrived != nil {
		e.arrived()
	}
	return n, err
}

func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }

// Close ends both directions: the other side reads what was sent, and then
// the end; what it has sent itself is dropped.
func (e *end) Close() error {
	e.out.closeWrite()
	e.in.closeRead()
	if e.closed != nil {
		e.closed()
	}
	return nil
}

func (e *end) LocalAddr() net.Addr  { return address{} }
func (e *end) RemoteAddr() net.Addr { return address{} }

func (e *end) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.setDeadline(&e.in.readBy, t)
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.out.setDeadline(&e.out.writeBy, t)
	return nil
}

type address struct{}

func (address) Network() string { return "memory" }
func (address) String() string  { return "embedded" }

// half is one direction. Its errors are those of a socket: io.EOF after the
// writer closed, net.ErrClosed on the own closed end, io.ErrClosedPipe when the
// reader closed, and os.ErrDeadlineExceeded, which is a net.Error.
type half struct {
	window int // a write waits while this much is unread; 0: never
	limit  int // a write fails while this much is unread; 0: never

	mu      sync.Mutex
	changed sync.Cond
	data    []byte // data[off:] is unread
	off     int

	writerClosed, readerClosed bool
	readBy, writeBy            time.Time
}

func newHalf(window, limit int) *half {
	h := &half{window: window, limit: limit}
	h.changed.L = &h.mu
	return h
}

func (h *half) unread() int { return len(h.data) - h.off }

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.readerClosed:
			return 0, net.ErrClosed
		case passed(h.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case h.unread() > 0:
			return h.take(p), nil
		case h.writerClosed:
			return 0, io.EOF
		}
		h.wait(h.readBy)
	}
}

func (h *half) take(p []byte) int {
	n := copy(p, h.data[h.off:])
	h.off += n
	switch {
	case h.off < len(h.data):
	case cap(h.data) > keptBuffer:
		h.data, h.off = nil, 0
	default:
		h.data, h.off = h.data[:0], 0
	}
	if h.window > 0 {
		h.changed.Broadcast()
	}
	return n
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for {
		switch {
		case h.writerClosed:
			return n, net.ErrClosed
		case h.readerClosed:
			return n, io.ErrClosedPipe
		case passed(h.writeBy):
			return n, os.ErrDeadlineExceeded
		case h.limit > 0 && h.unread() > h.limit:
			h.writerClosed = true
			h.changed.Broadcast()
			return n, errUnread
		}
		part := p[n:]
		if h.window > 0 {
			part = part[:min(len(part), max(0, h.window-h.unread()))]
		}
		h.put(part)
		if n += len(part); n == len(p) {
			return n, nil
		}
		h.wait(h.writeBy)
	}
}

func (h *half) put(part []byte) {
	if len(part) == 0 {
		return
	}
	if h.off > 0 && len(h.data)+len(part) > cap(h.data) && h.off >= len(h.data)/2 {
		h.data = h.data[:copy(h.data, h.data[h.off:])]
		h.off = 0
	}
	h.data = append(h.data, part...)
	h.changed.Broadcast()
}

// wait returns when something has changed or the deadline has passed.
func (h *half) wait(by time.Time) {
	if !by.IsZero() {
		timer := time.AfterFunc(time.Until(by), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changed.Broadcast()
		})
		defer timer.Stop()
	}
	h.changed.Wait()
}

func (h *half) setDeadline(field *time.Time, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*field = t
	h.changed.Broadcast() // whoever waits looks at the new deadline
}

func (h *half) closeWrite() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writerClosed = true
	h.changed.Broadcast()
}

func (h *half) closeRead() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readerClosed = true
	h.data, h.off = nil, 0
	h.changed.Broadcast()
}

func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }
