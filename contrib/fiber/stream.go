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
// sets deadlines, or takes the connection over, as [sse.Handler] and
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
// connection is closed after the answer. A body has at most Fiber's BodyLimit.
func Stream(h http.Handler) fiber.Handler {
	return func(c fiber.Ctx) error {
		r, header := request(c), read(c, false)
		if r.ContentLength != 0 && c.Request().IsBodyStream() {
			b, err := bounded(r.Body, c.App().Config().BodyLimit) // Fiber reads no more of it later
			if err != nil {
				c.RequestCtx().SetConnectionClose() // the rest is still to come
				return err
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
			one := newOnlyConn(conn, head)
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

// onlyConn is a listener with one connection, on which a request has come. The
// connection is Fiber's again once Accept has returned a second time, so no
// call is inside of it by then, and none comes in after Close.
type onlyConn struct {
	in            io.Reader // what Fiber has read already comes first
	conn          net.Conn  // the connection itself: Fiber's own ends later, and reads on
	head          *strings.Reader
	local, remote net.Addr
	given         bool

	mu     sync.Mutex
	inside int // calls of the connection that have not returned
	closed bool
	over   chan struct{} // closed when it is closed and no call is inside
}

func newOnlyConn(c net.Conn, head string) *onlyConn {
	real := c
	if u, ok := c.(interface{ UnsafeConn() net.Conn }); ok {
		real = u.UnsafeConn()
	}
	return &onlyConn{in: c, conn: real, head: strings.NewReader(head), local: c.LocalAddr(), remote: c.RemoteAddr(), over: make(chan struct{})}
}

// use runs one call of the connection.
func (o *onlyConn) use(call func() error) error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return net.ErrClosed
	}
	o.inside++
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.inside--; o.closed && o.inside == 0 {
			close(o.over)
		}
	}()
	return call()
}

func (o *onlyConn) Read(b []byte) (n int, err error) {
	if o.head.Len() > 0 {
		return o.head.Read(b)
	}
	err = o.use(func() (err error) { n, err = o.in.Read(b); return err })
	return n, err
}

func (o *onlyConn) Write(b []byte) (n int, err error) {
	err = o.use(func() (err error) { n, err = o.conn.Write(b); return err })
	return n, err
}

func (o *onlyConn) SetDeadline(t time.Time) error {
	return o.use(func() error { return o.conn.SetDeadline(t) })
}

func (o *onlyConn) SetReadDeadline(t time.Time) error {
	return o.use(func() error { return o.conn.SetReadDeadline(t) })
}

func (o *onlyConn) SetWriteDeadline(t time.Time) error {
	return o.use(func() error { return o.conn.SetWriteDeadline(t) })
}

func (o *onlyConn) LocalAddr() net.Addr  { return o.local }
func (o *onlyConn) RemoteAddr() net.Addr { return o.remote }
func (o *onlyConn) Addr() net.Addr       { return o.local }

// Accept gives the connection, and then waits for its end.
func (o *onlyConn) Accept() (net.Conn, error) {
	if !o.given {
		o.given = true
		return o, nil
	}
	<-o.over
	return nil, net.ErrClosed
}

func (o *onlyConn) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return net.ErrClosed
	}
	err := o.conn.Close() // ends those who are inside
	if o.closed = true; o.inside == 0 {
		close(o.over)
	}
	return err
}
