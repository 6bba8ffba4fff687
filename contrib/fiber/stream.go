package madcrowfiber

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gofiber/fiber/v3"
)

// Stream serves a handler of net/http on the connection itself: one that flushes,
// sets deadlines, or takes the connection over, as [pubsub.SSEHandler] and
// websockets do. It is answered by a server of net/http, so a client that does
// not read is cut off, one that has gone is noticed at once, and no time-out of
// Fiber's holds for it:
//
//	app.Get("/events", madcrowfiber.Stream(events))
//
// Fiber's own adaptor.HTTPHandler knows no deadlines: a client that reads nothing
// stays for ever there. The handler has the request's context, so it finds the
// session of a carried middleware before it, and the headers that were set
// before it go out with its answer; what a middleware sets afterwards does not. The
// connection is closed after the answer.
func Stream(h http.Handler) fiber.Handler {
	return func(c fiber.Ctx) error {
		r, header := request(c), read(c, false)
		if r.ContentLength != 0 && c.Request().IsBodyStream() {
			b, err := io.ReadAll(r.Body) // Fiber reads no more of it later
			if err != nil {
				return fiber.ErrBadRequest
			}
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(b))), int64(len(b))
		} else if r.ContentLength > 0 {
			r.Body = io.NopCloser(strings.NewReader(string(c.Request().Body())))
		}
		head := r.Method + " / HTTP/1.1\r\nHost: stream\r\nConnection: close\r\n\r\n"
		if !c.Request().Header.IsHTTP11() {
			r.Proto, r.ProtoMinor = "HTTP/1.0", 0
			head = r.Method + " / HTTP/1.0\r\n\r\n"
		}
		c.RequestCtx().HijackSetNoResponse(true)
		c.RequestCtx().Hijack(func(conn net.Conn) {
			_ = conn.SetDeadline(time.Time{}) // Fiber's
			one := &onlyConn{Conn: conn, head: strings.NewReader(head), closed: make(chan struct{}), addr: conn.LocalAddr()}
			srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, own *http.Request) {
				maps.Copy(w.Header(), header)
				h.ServeHTTP(w, r.WithContext(streamContext{own.Context(), r.Context()}))
			})}
			_ = srv.Serve(one)
		})
		return nil
	}
}

// streamContext ends with the connection, and has the values of the request.
type streamContext struct {
	context.Context
	values context.Context //nolint:containedctx // it is one
}

func (c streamContext) Value(key any) any {
	if v := c.values.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}

// onlyConn is a listener with one connection, on which a request has come.
type onlyConn struct {
	net.Conn
	head   *strings.Reader
	addr   net.Addr
	given  bool
	once   sync.Once
	closed chan struct{}
}

func (o *onlyConn) Read(b []byte) (int, error) {
	if o.head.Len() > 0 {
		return o.head.Read(b)
	}
	return o.Conn.Read(b)
}

// Accept gives the connection, and then waits for its end.
func (o *onlyConn) Accept() (net.Conn, error) {
	if !o.given {
		o.given = true
		return o, nil
	}
	<-o.closed
	return nil, net.ErrClosed
}

func (o *onlyConn) Addr() net.Addr { return o.addr }

func (o *onlyConn) Close() error {
	o.once.Do(func() { close(o.closed) })
	return o.Conn.Close()
}
