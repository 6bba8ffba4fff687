package session

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

// sessionKey is the context key of the sessions of one manager.
type sessionKey[T any] struct{ m *Manager[T] }

// sessionContext is context.WithValue of such a key, without its allocations.
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

// Middleware gives every request its session, which handlers get from
// [Manager.From]. It sends no command to Redis by itself. A change stores the session
// at once. A change that needs a cookie after the response has started returns
// [ErrHeadersSent]. Responses that set the cookie have Cache-Control: no-store,
// whatever the handler sets. If the handler has read the session, the response has
// Vary: Cookie, and for a client with the cookie Cache-Control: private, unless the
// handler sets public, s-maxage or no-store.
//
// policy says how a session is read that cannot be loaded:
//   - [madcrow.FailClosed]: reading returns the error.
//   - [madcrow.FailOpen]: reading finds no session, as for a visitor, and
//     [Session.Degraded] returns the error.
//   - [madcrow.FailStale]: reading finds the fallback copy, the state that this
//     process read last, for up to Options.FallbackTTL; without a copy it returns
//     the error. Copies are kept once such a Middleware exists.
//
// Writing returns an error in each of them. Middleware panics for the zero policy,
// and for one that sessions do not have.
//
// Inside another Middleware of the same manager a route has the outer session, with
// the policy of the inner Middleware.
func (m *Manager[T]) Middleware(policy madcrow.FailPolicy) func(http.Handler) http.Handler {
	failure := m.failureOf(policy)
	if failure == failStale {
		m.fallback.on.Store(true)
	}
	proto := m.opt.cookie()
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
				c   requestCookie
				ctx sessionContext[T]
			}{rw: response{log: m.log, known: sent, showed: sent}}
			s, rw := &together.s, &together.rw
			rw.Init(w, rw)
			defer rw.finish()
			m.open(s, token)
			if sent && token == "" {
				s.show(r.Context(), r.CookiesNamed(m.opt.Cookie))
			}
			s.failure.Store(uint32(failure))
			together.c = requestCookie{proto: &proto, w: rw}
			s.device, s.cookie = m.deviceOf(r), &together.c
			together.ctx = sessionContext[T]{r.Context(), s}
			next.ServeHTTP(rw, r.WithContext(&together.ctx))
		})
	}
}

// failure is a [madcrow.FailPolicy] of sessions.
type failure uint32

const (
	failClosed failure = iota // also of a session outside of a Middleware
	failOpen
	failStale
)

func (m *Manager[T]) failureOf(policy madcrow.FailPolicy) failure {
	switch policy {
	case madcrow.FailClosed:
		return failClosed
	case madcrow.FailOpen:
		return failOpen
	case madcrow.FailStale:
		return failStale
	}
	panic(fmt.Sprintf("session: the middleware of %q has the policy %v: choose FailClosed, FailOpen or FailStale", m.name, policy))
}

// cookieOf returns the value of a cookie that was sent once, "" for several (see
// show). It is Request.CookiesNamed without its allocations.
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

// From returns the session of a request. Outside of Middleware every method of the
// returned Session returns [ErrNoMiddleware].
func (m *Manager[T]) From(ctx context.Context) *Session[T] {
	if s, ok := ctx.Value(sessionKey[T]{m}).(*Session[T]); ok {
		return s
	}
	return &Session[T]{m: m}
}

// Require answers 401 if no user is logged in, and 503 or 504 if that is unknown;
// otherwise next runs. Place it inside Middleware, and inside the CORS middleware: a
// preflight has no cookie, so Require answers it with 401. If preflights passed,
// next would run without a user.
func (m *Manager[T]) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.From(r.Context())
		user, err := s.User(r.Context())
		if err == nil && user == "" {
			if err = s.Degraded(); err == nil {
				err = m.wrap("require", because(ErrNoUser, s.Why()))
			}
		}
		if err != nil {
			problem.Write(w, r, m.log, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ClearSiteData tells the browser to delete its cache, cookies and storage of this
// site. It is for the response to a logout.
func ClearSiteData(h http.Header) {
	h.Set("Clear-Site-Data", `"cache", "cookies", "storage"`)
}
