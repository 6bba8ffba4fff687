package session

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/httpwriter"
)

// requestCookie is the cookieWriter of a request.
type requestCookie struct {
	proto *http.Cookie // without a value
	w     *response
}

func (c *requestCookie) ready() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.started() {
		return ErrHeadersSent
	}
	return nil
}

func (c *requestCookie) set(token string, persist time.Duration) error {
	cookie := c.cookie()
	cookie.Value = token
	if persist > 0 {
		cookie.MaxAge = int(persist.Seconds())
	}
	return c.w.setCookie(cookie)
}

// expire deletes the client's cookie, if it has one.
func (c *requestCookie) expire() error {
	cookie := c.cookie()
	cookie.MaxAge = -1
	return c.w.setCookie(cookie)
}

func (c *requestCookie) markRead() { c.w.read.Store(true) }

func (c *requestCookie) cookie() *http.Cookie {
	cookie := *c.proto
	return &cookie
}

// response adds the session's headers just before the header is sent. Another
// goroutine than the handler's may change the session, so mu guards the fields.
type response struct {
	httpwriter.Writer

	log    *slog.Logger
	read   atomic.Bool // the session was read
	showed bool        // the client sent a cookie

	mu       sync.Mutex
	complete bool         // the headers are set for the last time
	known    bool         // the client has, or gets, a cookie
	cookie   *http.Cookie // of this response
	private  bool         // the headers include cookie
}

// Logger returns the manager's logger, for problems of handlers that have none: see
// [problem.Writer].
func (w *response) Logger() *slog.Logger { return w.log }

// started reports whether headers can no longer be changed. mu is held.
func (w *response) started() bool { return w.complete || w.Status() != 0 }

func (w *response) setCookie(cookie *http.Cookie) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case cookie.MaxAge < 0 && !w.known:
		return nil // there is no cookie to delete
	case w.started():
		return ErrHeadersSent
	}
	w.known, w.cookie = true, cookie
	return nil
}

// BeforeHeader implements [httpwriter.Hook].
func (w *response) BeforeHeader(int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started() {
		return
	}
	w.writeCookie()
	if w.read.Load() {
		setPrivate(w.ResponseWriter.Header(), w.showed)
	}
	w.complete = true
}

// finish sets the headers of a handler that has written nothing, or panicked.
func (w *response) finish() { w.BeforeHeader(http.StatusOK) }

// Header includes the cookie. A handler may replace the headers; then the cookie is
// written again.
func (w *response) Header() http.Header {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.started() {
		w.writeCookie()
	}
	return w.ResponseWriter.Header()
}

// writeCookie sets the cookie in the headers, in place of an earlier one. mu is held.
func (w *response) writeCookie() {
	h := w.ResponseWriter.Header()
	if w.cookie != nil {
		kept := h["Set-Cookie"][:0:0]
		for _, line := range h["Set-Cookie"] {
			if parsed, err := http.ParseSetCookie(line); err != nil || parsed.Name != w.cookie.Name {
				kept = append(kept, line)
			}
		}
		h["Set-Cookie"] = append(kept, w.cookie.String())
		w.private = true
	}
	if w.private {
		h.Set("Cache-Control", "no-store")
	}
}

// FlushError sends the header if the server supports it.
func (w *response) FlushError() error {
	err := w.Writer.FlushError()
	if errors.Is(err, http.ErrNotSupported) && w.Status() == 0 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.complete = false
	}
	return err
}

// Flush is for handlers that do not use [http.ResponseController].
func (w *response) Flush() { _ = w.FlushError() }

// setPrivate keeps shared caches from serving a response that depends on the session
// to other clients. The handler overrides that by public or s-maxage. A response to a
// client without the cookie may be shared among such clients.
func setPrivate(h http.Header, known bool) {
	control := h["Cache-Control"]
	if names(control, "public") || names(control, "s-maxage") || names(control, "no-store") {
		return
	}
	if !names(h["Vary"], "Cookie") {
		h.Add("Vary", "Cookie")
	}
	if known && !names(control, "private") {
		h.Add("Cache-Control", "private")
	}
}

// names reports whether a comma-separated header has an item of that name. Quoted text
// is part of a value.
func names(lines []string, name string) bool {
	for _, line := range lines {
		for line != "" {
			var item string
			item, line = cutItem(line)
			item, _, _ = strings.Cut(item, "=")
			if strings.EqualFold(strings.Trim(item, " \t"), name) {
				return true
			}
		}
	}
	return false
}

// cutItem cuts a header at its first comma outside of quotes.
func cutItem(line string) (item, rest string) {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			return line[:i], line[i+1:]
		}
	}
	return line, ""
}
