package madcrowfiber

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"

	"github.com/madcrow-go/madcrow/carry"
)

// Middleware carries a middleware of net/http into Fiber: sessions, limits,
// [problem.Writer.Recover], a cache of pages, compression. What comes after it
// answers through it: the status, the headers, the body, and errors, which Fiber's
// ErrorHandler answers inside; a middleware of Fiber outside is returned none.
// What the middleware changes of the request (headers, query, body, context) is
// what the handlers see.
//
// Fiber sends nothing before all handlers have ended. So a client waits for what
// a middleware leaves running: a page that is loaded anew behind a stale one, and
// what [http.TimeoutHandler] has already answered with 503. A body of
// [fiber.Ctx.SendStreamWriter] and a connection that is taken over (websockets)
// go past the middleware, which is told by Flush or Hijack; one that changes
// bodies reads the stream to its end, up to 16 MiB, and is answered with 500
// MIDDLEWARE_NOT_CARRIED for what does not end.
func Middleware(mw func(http.Handler) http.Handler) fiber.Handler {
	serve := carry.Middleware(mw, true, next)
	return func(c fiber.Ctx) error {
		return answer(c, func(w *writer) error {
			serve(call{c, w}, w, w.r)
			return nil
		})
	}
}

// call is one request in a middleware.
type call struct {
	c fiber.Ctx
	w *writer
}

// answer has f answer by a writer. It sends the writer's headers also after a
// panic; one with [http.ErrAbortHandler] closes the connection: the program would
// end otherwise.
func answer(c fiber.Ctx, f func(*writer) error) error {
	w := &writer{c: c, r: request(c), header: read(c, false)}
	defer func() {
		v := recover()
		w.end(v != nil)
		if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this too
			c.RequestCtx().HijackSetNoResponse(true)
			c.RequestCtx().Hijack(func(conn net.Conn) { _ = conn.Close() })
		} else if v != nil {
			panic(v)
		}
	}()
	return f(w)
}

// next runs what comes after a middleware, and gives its answer to rw.
func next(x call, rw http.ResponseWriter, r *http.Request) {
	c, w := x.c, x.w
	direct := rw.(interface{ Direct() bool }).Direct() //nolint:forcetypeassert // package carry's
	put(c, rw.Header())
	done := false
	defer func() {
		if !done { // it panicked
			load(c, rw.Header(), false)
		}
	}()
	c.SetContext(r.Context())
	restore, err := w.hand(r)
	if err == nil {
		err = c.Next()
	}
	restore()
	if err != nil && c.App().ErrorHandler(c, err) != nil {
		_ = c.SendStatus(http.StatusInternalServerError)
	}
	done = true
	res := c.Response()
	w.mu.Lock()
	if !res.IsBodyStream() {
		w.body = res.Body()
	}
	if w.ran = true; direct { // nobody is between
		w.kept, w.status = true, res.StatusCode()
	}
	w.mu.Unlock()
	load(c, rw.Header(), res.IsBodyStream() || len(res.Body()) > 0)
	if !direct {
		w.give(rw)
	}
}

// give writes the response of Fiber to the middleware.
func (w *writer) give(rw http.ResponseWriter) {
	res := w.c.Response()
	status := res.StatusCode()
	control := http.NewResponseController(rw)
	if w.c.RequestCtx().Hijacked() {
		if _, _, err := control.Hijack(); err == nil {
			return
		}
		w.c.RequestCtx().Hijack(nil)
		w.c.RequestCtx().HijackSetNoResponse(false)
		carry.Refuse(rw, w.r, "The middleware hides the connection that its handler takes over")
		return
	}
	if !res.IsBodyStream() {
		rw.WriteHeader(status)
		if body := res.Body(); bodyAllowed(status) && len(body) > 0 {
			_, _ = rw.Write(body) // to memory
		}
		return
	}
	stream, size := res.BodyStream(), res.Header.ContentLength()
	if size < 0 || size > maxBuffered/16 {
		w.pass(true)
		rw.WriteHeader(status)
		err := control.Flush()
		if w.pass(false) && err == nil {
			return
		}
	}
	kind, _, _ := mime.ParseMediaType(string(res.Header.ContentType()))
	body, err := []byte(nil), io.ErrShortBuffer
	if kind != "text/event-stream" {
		body, err = io.ReadAll(io.LimitReader(stream, maxBuffered+1))
	}
	if err != nil || len(body) > maxBuffered {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.status, w.buf, w.refused = 0, nil, true
		return
	}
	rw.WriteHeader(status)
	_, _ = rw.Write(body)
}

// pass begins and ends the time in which a flush lets the stream pass; done says
// whether it does.
func (w *writer) pass(now bool) (done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.passing = now
	if done = w.kept && len(w.buf) == 0; !done {
		w.kept = false
	}
	return done
}

// maxBuffered bounds a stream that is read for a middleware that changes it.
const maxBuffered = 16 << 20

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// request is the request as net/http would have it. It copies all strings.
func request(c fiber.Ctx) *http.Request {
	in := c.Request()
	u := &url.URL{Path: string(in.URI().Path()), RawQuery: string(in.URI().QueryString())}
	r := &http.Request{
		Method: strings.Clone(c.Method()), URL: u, Host: string(in.Host()), Header: http.Header{}, RequestURI: string(in.RequestURI()),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
		RemoteAddr: c.RequestCtx().RemoteAddr().String(), TLS: c.RequestCtx().TLSConnectionState(),
	}
	if c.Matched() { // by Use the route is not known yet
		r.Pattern = r.Method + " " + strings.Clone(c.FullPath())
	}
	for name, value := range in.Header.All() {
		r.Header.Add(string(name), string(value))
	}
	r.Header.Del("Host")
	if in.IsBodyStream() {
		r.Body, r.ContentLength = io.NopCloser(in.BodyStream()), int64(max(in.Header.ContentLength(), -1))
	} else if body := in.Body(); len(body) > 0 {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	for _, name := range c.Route().Params {
		r.SetPathValue(name, strings.Clone(c.Params(name)))
	}
	return r.WithContext(c.Context())
}

// hand hands on what the middleware has changed of the request, until restore.
func (w *writer) hand(r *http.Request) (restore func(), err error) {
	in, restore := w.c.Request(), func() {}
	if r.Body != w.r.Body {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.c.RequestCtx().SetConnectionClose() // the rest is still to come
			if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
				return restore, fiber.ErrRequestEntityTooLarge
			}
			return restore, fiber.ErrBadRequest
		}
		if in.IsBodyStream() || !bytes.Equal(body, in.Body()) {
			in.SetBodyRaw(body)
		}
	}
	if same(&in.Header, r.Header) && r.URL.RawQuery == string(in.URI().QueryString()) {
		return restore, nil
	}
	saved, query := &fasthttp.RequestHeader{}, string(in.URI().QueryString())
	in.Header.CopyTo(saved)
	for name := range in.Header.All() {
		if key := string(name); r.Header[key] == nil && key != "Host" && key != "Content-Length" {
			defer in.Header.Del(key) // not while they are read
		}
	}
	for name, values := range r.Header {
		if name != "Content-Length" {
			in.Header.Del(name)
			for _, v := range values {
				in.Header.Add(name, v)
			}
		}
	}
	in.URI().SetQueryString(r.URL.RawQuery)
	return func() {
		saved.CopyTo(&in.Header)
		in.URI().SetQueryString(query)
	}, nil
}

// same says whether the headers are those of Fiber's request.
func same(in *fasthttp.RequestHeader, h http.Header) bool {
	left := 0
	for _, values := range h {
		left += len(values)
	}
	for name, value := range in.All() {
		if string(name) == "Host" {
			continue
		}
		if left--; !slices.Contains(h[string(name)], string(value)) {
			return false
		}
	}
	return left == 0
}

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
		w.refused, w.kept = false, false
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

// read is the header of Fiber's response; typed says whether Fiber's default type
// is one.
func read(c fiber.Ctx, typed bool) http.Header {
	h := http.Header{}
	load(c, h, typed)
	return h
}

func load(c fiber.Ctx, h http.Header, typed bool) {
	clear(h)
	for name, value := range c.Response().Header.All() {
		if typed || string(name) != "Content-Type" || string(value) != fiber.MIMETextPlainCharsetUTF8 {
			h[string(name)] = append(h[string(name)], string(value))
		}
	}
}

// put makes h the header of Fiber's response.
func put(c fiber.Ctx, h http.Header) {
	to := &c.Response().Header
	now := read(c, false)
	if maps.EqualFunc(now, h, slices.Equal) {
		return
	}
	for name := range now {
		to.Del(name)
	}
	for name, values := range h {
		for _, v := range values {
			to.Add(name, v)
		}
	}
}
