package session

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/problem"
)

// sessionKey is the context key of the sessions of one manager.
type sessionKey[T any] struct{ m *Manager[T] }

// sessionContext is context.WithValue of such a key, in the memory of the rest.
type sessionContext[T any] struct {
	context.Context
	s *Session[T]
}

func (c *sessionContext[T]) Value(key any) any {
	if k, ok := key.(sessionKey[T]); ok && k.m == c.s.m {
		return c.s
	}
	return c.Context.Value(key)
}

// Middleware gives every request its session, which handlers find by
// [Manager.From]. It asks Redis nothing by itself. Sessions are stored when
// they are changed, so before the answer begins; a change after that which
// needs a cookie is [ErrHeadersSent]. Answers that set the cookie are not
// stored by anybody (Cache-Control: no-store, whatever the handler says). Answers
// whose handler has looked at the session have Vary: Cookie, and for a client
// with the cookie Cache-Control: private, unless the handler says public,
// s-maxage or no-store.
//
// A route inside another Middleware of the same manager has its session, and
// the failure of the inner one.
func (m *Manager[T]) Middleware(failure Failure) func(http.Handler) http.Handler {
	if failure == ReadCopy {
		m.copies.on.Store(true)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s, ok := r.Context().Value(sessionKey[T]{m}).(*Session[T]); ok {
				outer := s.failure.Swap(uint32(failure))
				defer s.failure.Store(outer)
				next.ServeHTTP(w, r)
				return
			}
			token, sent := cookieOf(r, m.opt.Cookie)
			together := &struct { // in one allocation
				s   Session[T]
				rw  response
				c   cookieCarrier
				ctx sessionContext[T]
			}{rw: response{ResponseWriter: w, sent: sent, showed: sent}}
			s, rw := &together.s, &together.rw
			defer rw.begin() // a handler may write nothing, or panic
			m.begin(s, token)
			if sent && token == "" {
				s.show(r.CookiesNamed(m.opt.Cookie))
			}
			s.failure.Store(uint32(failure))
			together.c = cookieCarrier{opt: &m.opt, w: rw}
			s.device, s.carrier = m.deviceOf(r), &together.c
			together.ctx = sessionContext[T]{r.Context(), s}
			next.ServeHTTP(rw, r.WithContext(&together.ctx))
		})
	}
}

// cookieOf is the value of a cookie that is there once: of several, show decides.
// It is Request.CookiesNamed without its allocations.
func cookieOf(r *http.Request, name string) (value string, sent bool) {
	n := 0
	for _, line := range r.Header["Cookie"] {
		for line != "" {
			var part string
			part, line, _ = strings.Cut(line, ";")
			key, v, _ := strings.Cut(strings.Trim(part, " \t"), "=")
			if strings.Trim(key, " \t") != name {
				continue
			}
			if n++; len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1 : len(v)-1]
			}
			value = v
		}
	}
	if n != 1 {
		return "", n > 0
	}
	return value, true
}

func (m *Manager[T]) deviceOf(r *http.Request) (d Device) {
	if m.opt.Client.IsValid() {
		if addr, err := m.opt.Client.Addr(r); err == nil {
			d.Address = addr.String()
		}
	}
	d.UserAgent = r.UserAgent()
	if len(d.UserAgent) > maxUserAgent {
		d.UserAgent = d.UserAgent[:maxUserAgent]
	}
	return d
}

// From returns the session of a request. Outside of Middleware every method of
// what it returns is [ErrNoMiddleware].
func (m *Manager[T]) From(ctx context.Context) *Session[T] {
	if s, ok := ctx.Value(sessionKey[T]{m}).(*Session[T]); ok {
		return s
	}
	return &Session[T]{m: m, lost: true}
}

// Require answers 401 where nobody is logged in, and 503 or 504 where that is
// not known; otherwise next runs. It stands inside Middleware, and inside of the
// middleware of CORS: a preflight has no cookie, so it would be a 401, too. To let
// it pass would have next run for somebody who is not logged in.
func (m *Manager[T]) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.From(r.Context())
		user, err := s.User(r.Context())
		if err == nil && user == "" {
			if err = s.Degraded(); err == nil {
				err = &Error{Op: "require", Err: ErrNoUser}
			}
		}
		if err != nil {
			problem.Write(w, r, m.log, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ClearSiteData has the browser forget what it keeps of this site: its cache,
// its cookies and its storage. For the answer to a logout.
func ClearSiteData(h http.Header) {
	h.Set("Clear-Site-Data", `"cache", "cookies", "storage"`)
}

// cookieCarrier sends the identifier as a cookie.
type cookieCarrier struct {
	opt *Options
	w   *response
}

func (c *cookieCarrier) ready() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.begun {
		return ErrHeadersSent
	}
	return nil
}

func (c *cookieCarrier) set(token string, persist time.Duration) error {
	cookie := c.cookie()
	cookie.Value = token
	if persist > 0 {
		cookie.MaxAge = int(persist.Seconds())
	}
	return c.w.setCookie(cookie)
}

// clear has the client forget the cookie, if it has one.
func (c *cookieCarrier) clear() error {
	cookie := c.cookie()
	cookie.MaxAge = -1
	return c.w.setCookie(cookie)
}

// read has the answer kept from those whom it is not for.
func (c *cookieCarrier) read() { c.w.read.Store(true) }

func (c *cookieCarrier) cookie() *http.Cookie {
	return &http.Cookie{
		Name: c.opt.Cookie, Path: "/", Secure: !c.opt.InsecureCookie, HttpOnly: true,
		SameSite: c.opt.SameSite, Partitioned: c.opt.Partitioned,
	}
}

// response sends the cookie with the answer, as its handler begins that: the
// session may be changed by another goroutine. Everything else goes through.
type response struct {
	http.ResponseWriter

	read   atomic.Bool // the session was looked at
	showed bool        // the client sent a cookie

	mu      sync.Mutex
	begun   bool
	sent    bool         // the client has a cookie
	cookie  *http.Cookie // of this answer
	private bool         // it was written
}

func (w *response) setCookie(cookie *http.Cookie) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case cookie.MaxAge < 0 && !w.sent:
		return nil // it has nothing to forget
	case w.begun:
		return ErrHeadersSent
	}
	w.sent, w.cookie = true, cookie
	return nil
}

// write puts the cookie into the headers, in the place of an earlier one, and
// again where a handler has replaced them since.
func (w *response) write() {
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

// begin is the last moment for a cookie.
func (w *response) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begun {
		w.write()
		if w.read.Load() {
			keepApart(w.ResponseWriter.Header(), w.showed)
		}
		w.begun = true
	}
}

// keepApart keeps caches from giving an answer that was made with a session to
// others, unless its handler insists: public and s-maxage say that it is for
// all. Of those without a cookie all may have it.
func keepApart(h http.Header, known bool) {
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

// names says whether a header of items between commas has one of that name. What
// stands in quotes is the value of another.
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

// Header shows the cookie, too.
func (w *response) Header() http.Header {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begun {
		w.write()
	}
	return w.ResponseWriter.Header()
}

func (w *response) WriteHeader(status int) {
	// 1xx answers precede the one that counts.
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.begin()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}

// WriteString spares a copy.
func (w *response) WriteString(s string) (int, error) {
	w.begin()
	return io.WriteString(w.ResponseWriter, s)
}

// ReadFrom lets files be sent without copying.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	w.begin()
	return io.Copy(w.ResponseWriter, src)
}

// Flush is for handlers that do not use [http.ResponseController].
func (w *response) Flush() { _ = w.FlushError() }

// FlushError is what [http.ResponseController] calls.
func (w *response) FlushError() error {
	w.mu.Lock()
	if !w.begun {
		w.write() // it may begin the answer, and may be not supported
		if w.read.Load() {
			keepApart(w.ResponseWriter.Header(), w.showed)
		}
	}
	w.mu.Unlock()
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if !errors.Is(err, http.ErrNotSupported) {
		w.begin()
	}
	return err
}

// Hijack hands the connection over. The headers are the handler's from then on.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.begin()
	}
	return conn, rw, err
}

// Unwrap lets [http.ResponseController] find what the server offers.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
