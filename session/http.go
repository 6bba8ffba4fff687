package session

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow/problem"
)

// sessionKey is the context key of the sessions of one manager.
type sessionKey[T any] struct{ m *Manager[T] }

// Middleware gives every request its session, which handlers find by
// [Manager.From]. It asks Redis nothing by itself. Sessions are stored when
// they are changed, so before the answer begins; a change after that which
// needs a cookie is [ErrHeadersSent]. Answers that set the cookie are not
// stored by anybody (Cache-Control: no-store).
//
// A route inside another Middleware of the same manager has its session, and
// the failure of the inner one.
func (m *Manager[T]) Middleware(failure Failure) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s, ok := r.Context().Value(sessionKey[T]{m}).(*Session[T]); ok {
				s.mu.Lock()
				s.failure = failure
				s.mu.Unlock()
				next.ServeHTTP(w, r)
				return
			}
			rw := &response{ResponseWriter: w}
			s := &Session[T]{m: m, failure: failure, device: m.deviceOf(r), carrier: &cookieCarrier{opt: &m.opt, w: rw, sent: r.CookiesNamed(m.opt.Cookie) != nil}}
			s.adopt(cookieOf(r, m.opt.Cookie))
			next.ServeHTTP(rw, r.WithContext(context.WithValue(r.Context(), sessionKey[T]{m}, s)))
		})
	}
}

// cookieOf is the value of a cookie that is there once. Of two, one was put
// there by somebody else, and nobody knows which.
func cookieOf(r *http.Request, name string) string {
	if list := r.CookiesNamed(name); len(list) == 1 {
		return list[0].Value
	}
	return ""
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
// not known; otherwise next runs. It stands inside Middleware.
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
	opt  *Options
	w    *response
	sent bool // the client has one
}

func (c *cookieCarrier) set(token string, persist time.Duration) error {
	if c.w.begun {
		return ErrHeadersSent
	}
	if token == "" { // asked whether it could be set
		return nil
	}
	c.sent = true
	cookie := c.cookie()
	cookie.Value = token
	if persist > 0 {
		cookie.MaxAge = int(persist.Seconds())
	}
	c.write(cookie)
	return nil
}

// clear has the client forget the cookie, if it has one.
func (c *cookieCarrier) clear() error {
	if !c.sent {
		return nil
	}
	if c.w.begun {
		return ErrHeadersSent
	}
	cookie := c.cookie()
	cookie.MaxAge = -1
	c.write(cookie)
	return nil
}

func (c *cookieCarrier) cookie() *http.Cookie {
	return &http.Cookie{
		Name: c.opt.Cookie, Path: "/", Secure: !c.opt.InsecureCookie, HttpOnly: true,
		SameSite: c.opt.SameSite, Partitioned: c.opt.Partitioned,
	}
}

// write replaces an earlier one of the same answer.
func (c *cookieCarrier) write(cookie *http.Cookie) {
	h := c.w.Header()
	kept := h["Set-Cookie"][:0:0]
	for _, line := range h["Set-Cookie"] {
		if parsed, err := http.ParseSetCookie(line); err != nil || parsed.Name != cookie.Name {
			kept = append(kept, line)
		}
	}
	h["Set-Cookie"] = append(kept, cookie.String())
	h.Set("Cache-Control", "no-store")
}

// response knows whether the answer has begun. Everything else goes through.
type response struct {
	http.ResponseWriter
	begun bool
}

func (w *response) WriteHeader(status int) {
	// 1xx answers precede the one that counts.
	w.begun = w.begun || status >= 200 || status == http.StatusSwitchingProtocols
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// ReadFrom lets files be sent without copying.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	w.begun = true
	return io.Copy(w.ResponseWriter, src)
}

// Flush is for handlers that do not use [http.ResponseController].
func (w *response) Flush() {
	w.begun = true
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack is for handlers that do not use [http.ResponseController].
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.begun = true
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap lets [http.ResponseController] find what the server offers.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
