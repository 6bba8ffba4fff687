package madcrowfiber

import (
	"bufio"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/gofiber/fiber/v3"

	"github.com/madcrow-go/madcrow/carry"
)

// writer is what a middleware answers to. Fiber's response gets it when all have
// ended: the handlers may still be at work on that.
type writer struct {
	c      fiber.Ctx
	r      *http.Request
	header http.Header

	mu     sync.Mutex  // handlers and middleware may be at work at the same time
	sent   http.Header // as it was when the answer began
	status int         // 0: not begun
	buf    []byte
	body   []byte // of the handlers, in Fiber's response

	ran, kept        bool // the handlers; their response goes out as it is
	passing, refused bool // a stream
}

func (w *writer) Header() http.Header { return w.header }

func (w *writer) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(status)
}

func (w *writer) begin(status int) {
	if w.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		w.status, w.sent = status, maps.Clone(w.header)
	}
}

func (w *writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(http.StatusOK)
	switch {
	case len(b) == 0:
	case len(w.buf) == 0 && !w.kept && len(b) == len(w.body) && &b[0] == &w.body[0]:
		w.kept = true // it is there already
	case w.kept && !w.passing:
		w.buf, w.kept = append(slices.Clone(w.body), b...), false
	default:
		w.buf = append(w.buf, b...)
	}
	return len(b), nil
}

// FlushError lets a stream of Fiber pass.
func (w *writer) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.passing {
		return http.ErrNotSupported
	}
	w.begin(http.StatusOK)
	w.kept = true
	return nil
}

// Hijack lets a connection pass that Fiber takes over.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !w.c.RequestCtx().Hijacked() {
		return nil, nil, http.ErrNotSupported
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = true
	return nil, nil, nil
}

// end puts the answer into Fiber's response.
func (w *writer) end(panicked bool) {
	if w.refused {
		w.refused, w.kept, w.status, w.buf = false, false, 0, nil
		w.header, w.sent = http.Header{}, nil
		carry.Refuse(w, w.r, "The middleware changes what is written, and the handler's stream does not end: leave it out there, or use Fiber's own")
	}
	h := w.header
	if w.status != 0 && w.sent != nil {
		h = w.sent
	}
	res := w.c.Response()
	if !w.kept && !panicked && (w.ran || w.status != 0) {
		if w.status == 0 {
			w.status = http.StatusOK
		}
		_ = res.CloseBodyStream()
		res.SetBody(w.buf)
		if h["Content-Type"] == nil && len(w.buf) > 0 && h["Content-Encoding"] == nil {
			h.Set("Content-Type", http.DetectContentType(w.buf))
		}
	}
	if w.status != 0 {
		res.SetStatusCode(w.status)
	}
	put(w.c, h)
}
