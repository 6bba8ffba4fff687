package madcrowfiber

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

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
// a middleware leaves running: a page that is loaded again behind a stale one, and
// what [http.TimeoutHandler] has already answered with 503. A body of
// [fiber.Ctx.SendStreamWriter] and a connection that is taken over (websockets)
// go past the middleware, which sees Flush or Hijack; one that changes
// bodies reads the stream to its end, up to 16 MiB and 30 seconds, and is answered
// with 500 MIDDLEWARE_NOT_CARRIED for what does not end.
//
// A body of the request that a middleware wraps or changes is read into memory, up
// to Fiber's BodyLimit or 16 MiB, if that is more; what is larger is 413. With
// StreamRequestBody a body that was not read to its end is read and thrown
// away, up to 256 KiB, as in net/http; if there is more, or it is chunked, the
// connection is closed after the answer.
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
	if c.Request().IsBodyStream() && c.RequestCtx().UserValue(unread{}) == nil { // the outermost
		c.RequestCtx().SetUserValue(unread{}, false)
		defer settle(c)
	}
	w := &writer{c: c, r: request(c), header: read(c, false)}
	defer func() {
		v := recover()
		if w.refused && v == http.ErrAbortHandler { //nolint:errorlint // it is give's
			v = nil
		}
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
	defer c.SetContext(c.Context()) // the middleware's ends with it
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
	if w.ran = true; direct { // no handler is between
		w.kept, w.status = true, res.StatusCode()
	}
	w.mu.Unlock()
	load(c, rw.Header(), res.IsBodyStream() || len(res.Body()) > 0)
	if !direct {
		w.give(rw, r)
	}
}

// give writes the response of Fiber to the middleware.
func (w *writer) give(rw http.ResponseWriter, r *http.Request) {
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
		body, err = whole(r.Context(), stream)
	}
	if err != nil {
		w.mu.Lock()
		w.refused = r.Context().Err() == nil // or the middleware has answered without it
		w.mu.Unlock()
		panic(http.ErrAbortHandler) // it must not end, or be kept, as an answer
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

// What is read for a middleware that changes it is bounded.
const (
	maxBuffered = 16 << 20
	maxReading  = 30 * time.Second
	maxUnread   = 256 << 10 // net/http's
)

// whole reads a stream that ends in time, and while ctx does not end.
func whole(ctx context.Context, stream io.Reader) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, maxReading)
	defer cancel()
	switch s := stream.(type) {
	case net.Conn, *io.PipeReader: // SendStreamWriter's is the first; they may be closed while they are read
		defer context.AfterFunc(ctx, func() { _ = s.(io.Closer).Close() })() //nolint:forcetypeassert // both are
	}
	body, err := io.ReadAll(io.LimitReader(whileReader{ctx, stream}, maxBuffered+1))
	if err == nil && len(body) > maxBuffered {
		err = io.ErrShortBuffer
	}
	if err == nil {
		err = ctx.Err() // its end may be that of ctx
	}
	return body, err
}

// whileReader reads while its context does not end.
type whileReader struct {
	ctx context.Context //nolint:containedctx // of one call
	io.Reader
}

func (r whileReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

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
		r.Body, r.ContentLength = &streamed{in, in.BodyStream()}, int64(max(in.Header.ContentLength(), -1))
	} else if body := in.Body(); len(body) > 0 {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	for _, name := range c.Route().Params {
		r.SetPathValue(name, strings.Clone(c.Params(name)))
	}
	return r.WithContext(c.Context())
}

// streamed is a body of StreamRequestBody that can be read after its end, and after
// a handler has taken it: Fiber's own waits for the next request then, or is
// another request's.
type streamed struct {
	in     *fasthttp.Request
	stream io.Reader
}

func (s *streamed) Read(b []byte) (int, error) {
	if !s.in.IsBodyStream() || s.in.BodyStream() != s.stream {
		return 0, io.EOF
	}
	n, err := s.stream.Read(b)
	if err == io.EOF { //nolint:errorlint // a Reader's
		s.in.SetBodyRaw([]byte{})
	}
	return n, err
}

func (s *streamed) Close() error { return nil }

// unread is the key of what a request knows of its streamed body: whether some of
// it is left on the connection.
type unread struct{}

// settle reads what is left of a streamed body, or has the connection closed:
// fasthttp would answer it as the next request.
func settle(c fiber.Ctx) {
	left, _ := c.RequestCtx().UserValue(unread{}).(bool)
	if in := c.Request(); in.IsBodyStream() && !c.RequestCtx().Hijacked() {
		// Of a chunked one the end is not seen twice.
		left = left || in.Header.ContentLength() < 0 || !ends(in.BodyStream())
	}
	if left {
		c.RequestCtx().SetConnectionClose()
	}
}

// ends says whether a body ended soon.
func ends(body io.Reader) bool {
	_, err := io.CopyN(io.Discard, body, maxUnread+1)
	return err == io.EOF //nolint:errorlint // CopyN's
}

// bounded reads a body up to a bound.
func bounded(body io.Reader, most int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(body, int64(most)+1))
	tooLarge := (*http.MaxBytesError)(nil)
	switch {
	case errors.As(err, &tooLarge) || err == nil && len(b) > most:
		return nil, fiber.ErrRequestEntityTooLarge
	case err != nil:
		return nil, fiber.ErrBadRequest
	}
	return b, nil
}

// hand hands on what the middleware has changed of the request, until restore.
func (w *writer) hand(r *http.Request) (restore func(), err error) {
	in, restore := w.c.Request(), func() {}
	if r.Body != w.r.Body {
		body, err := bounded(r.Body, max(maxBuffered, w.c.App().Config().BodyLimit))
		if err != nil {
			w.c.RequestCtx().SetConnectionClose() // the rest is still to come
			return restore, err
		}
		if in.IsBodyStream() && !ends(w.r.Body) {
			w.c.RequestCtx().SetUserValue(unread{}, true)
		}
		if in.IsBodyStream() || !bytes.Equal(body, in.Body()) {
			in.SetBodyRaw(body)
		}
	}
	if same(&in.Header, r.Header) && r.URL.RawQuery == string(in.URI().QueryString()) {
		return restore, nil
	}
	// Fiber's strings are the memory of these two, which must not be written: the
	// handlers get others in their place.
	header, uri := &fasthttp.RequestHeader{}, &fasthttp.URI{}
	in.Header.CopyTo(header)
	in.URI().CopyTo(uri)
	for name := range in.Header.All() {
		if key := string(name); r.Header[key] == nil && key != "Host" && key != "Content-Length" {
			header.Del(key)
		}
	}
	for name, values := range r.Header {
		if name != "Content-Length" {
			header.Del(name)
			add(header, name, values)
		}
	}
	uri.SetQueryString(r.URL.RawQuery)
	restore = func() {
		exchange(&in.Header, header)
		exchange(in.URI(), uri)
	}
	restore()
	return restore, nil
}

func exchange[T any](a, b *T) { *a, *b = *b, *a }

// add adds a header as net/http would write it: without line breaks.
func add(to interface{ Add(name, value string) }, name string, values []string) {
	if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) }) {
		return
	}
	for _, v := range values {
		to.Add(name, lines.Replace(v))
	}
}

var lines = strings.NewReplacer("\r", " ", "\n", " ")

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
		add(to, name, values)
	}
}
