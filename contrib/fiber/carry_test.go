package madcrowfiber

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofiber/fiber/v3"
	recoverer "github.com/gofiber/fiber/v3/middleware/recover"

	"github.com/madcrow-go/madcrow/inject"
	. "github.com/madcrow-go/madcrow/internal/conformance"
)

// wrap is a middleware of a function.
func wrap(f func(next http.Handler, w http.ResponseWriter, r *http.Request)) fiber.Handler {
	return Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(next, w, r) })
	})
}

// With StreamRequestBody fasthttp does not skip what was not read: the rest of
// a body that a limit had refused was answered as the next request.
func TestMiddleware_WhatIsLeftOfABodyIsNotTheNextRequest(t *testing.T) {
	app := fiber.New(fiber.Config{StreamRequestBody: true})
	var inside atomic.Int32
	app.Get("/inside", func(c fiber.Ctx) error { inside.Add(1); return nil })
	app.Get("/next", func(c fiber.Ctx) error { return c.SendString("next") })
	length := func(c fiber.Ctx) error { return c.SendString(fmt.Sprint(len(c.Body()))) }
	pass := wrap(func(next http.Handler, w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) })
	app.Post("/refused", pass, wrap(func(_ http.Handler, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }), length)
	app.Post("/replaced", pass, wrap(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		r.Body = http.NoBody
		next.ServeHTTP(w, r)
	}), length)
	app.Post("/read", pass, wrap(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		next.ServeHTTP(w, r)
	}), pass, length)
	app.Post("/after", pass, wrap(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		defer func() {
			if v := recover(); v != nil {
				t.Errorf("a read after the handler: %v", v)
			}
		}()
		if n, err := io.Copy(io.Discard, r.Body); n != 0 || err != nil {
			t.Errorf("a read after the handler: %d %v", n, err)
		}
	}), length)
	addr := strings.TrimPrefix(serve(t, app), "http://")
	const hidden = "GET /inside HTTP/1.1\r\nHost: a\r\n\r\n"
	for path, want := range map[string]string{"/refused": "429 ", "/replaced": "200 0", "/read": "200 0", "/after": "200 "} {
		for _, chunked := range []bool{false, true} {
			body := strings.Repeat("x", 8192) + strings.Repeat(hidden, 300)
			head := fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body))
			if path == "/after" && want == "200 " {
				want += fmt.Sprint(len(body))
			}
			if chunked {
				head = "Transfer-Encoding: chunked\r\n\r\n"
				body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
			}
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			go func() {
				_, _ = conn.Write([]byte("POST " + path + " HTTP/1.1\r\nHost: a\r\n" + head + body + "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
			}()
			in := bufio.NewReader(conn)
			var got []string
			for {
				res, err := http.ReadResponse(in, nil)
				if err != nil {
					break
				}
				b, _ := io.ReadAll(res.Body)
				got = append(got, fmt.Sprintf("%d %s", res.StatusCode, b))
			}
			_ = conn.Close()
			all := strings.Join(got, ", ")
			closed := chunked && path == "/refused" // its end is not known
			if n := inside.Swap(0); n != 0 || all != want+", 200 next" && !(closed && (all == want || all == "")) {
				t.Errorf("%s, chunked %v: %q, %d requests inside of the body were served", path, chunked, all, n)
			}
		}
	}
}

// A refusal came out as the status of what the middleware had kept, that is 200,
// and what keeps answers kept an empty page.
func TestMiddleware_WhatCannotBeCarriedIs500AndNotKept(t *testing.T) {
	app := fiber.New()
	kept := make(chan int, 1)
	endless := func(c fiber.Ctx) error {
		c.Set("Content-Type", "text/event-stream")
		return c.SendStreamWriter(func(w *bufio.Writer) {
			for w.Flush() == nil {
				_, _ = w.WriteString("data: x\n\n")
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	app.Get("/timeout", Middleware(func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }), endless)
	app.Get("/compressed", wrap(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		defer func() { _, _ = w.Write([]byte("trailer")) }()
		w.Header().Set("Content-Encoding", "gzip")
		next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	}), endless)
	app.Get("/kept", wrap(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder() // its Flush keeps, as that of a cache
		next.ServeHTTP(rec, r)
		kept <- rec.Code
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	}), func(c fiber.Ctx) error {
		return c.SendStreamWriter(func(w *bufio.Writer) {
			for range 17 << 4 {
				_, _ = w.Write(make([]byte, 64<<10))
			}
		})
	})
	url := serve(t, app)
	for _, path := range []string{"/timeout", "/compressed", "/kept"} {
		res, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != 500 || err != nil || res.Header.Get("Content-Encoding") != "" || !strings.HasPrefix(string(b), `{"type":`) || !strings.Contains(string(b), "MIDDLEWARE_NOT_CARRIED") {
			t.Errorf("%s: %d %v %.200q %v", path, res.StatusCode, res.Header, b, err)
		}
	}
	select {
	case status := <-kept:
		t.Errorf("%d was kept", status)
	default:
	}
}

// What net/http writes as blanks went out as it was: a value could end the header
// and begin an answer of its own.
func TestMiddleware_LineBreaksInHeadersSplitNothing(t *testing.T) {
	const evil = "a\r\nX-Evil: 1\r\n\r\n<html>"
	app := fiber.New()
	app.Use(wrap(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Search", evil)
		w.Header().Add("Set-Cookie", "a="+evil)
		w.Header().Set("Content-Type", "text/plain; a="+evil)
		w.Header()["X-A: 1\r\nX-Evil"] = []string{"1"}
		w.Header()["X-Evil "] = []string{"1"}
		next.ServeHTTP(w, r)
	}))
	app.Get("/", func(c fiber.Ctx) error { return c.Send([]byte("page")) })
	res, err := (&http.Client{Timeout: 10 * time.Second}).Get(serve(t, app))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if string(b) != "page" || err != nil || res.Header.Get("X-Evil") != "" || !strings.HasPrefix(res.Header.Get("X-Search"), "a  X-Evil: 1") || len(res.Cookies()) > 1 {
		t.Errorf("%v %q %v", res.Header, b, err)
	}
}

// A stream that is no event stream was read as long as it went on, without an
// answer, whether the middleware still waited or not.
func TestMiddleware_AStreamIsNotReadForAMiddlewareThatHasAnswered(t *testing.T) {
	app := fiber.New()
	ended := make(chan struct{})
	app.Get("/", Middleware(func(h http.Handler) http.Handler { return http.TimeoutHandler(h, 50*time.Millisecond, "late") }), func(c fiber.Ctx) error {
		return c.SendStreamWriter(func(w *bufio.Writer) {
			defer close(ended)
			for end := time.Now().Add(5 * time.Second); w.Flush() == nil && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				_, _ = w.WriteString("{}\n")
			}
		})
	})
	start := time.Now()
	res, err := http.Get(serve(t, app))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	<-ended
	if took := time.Since(start); res.StatusCode != 503 || took > 4*time.Second {
		t.Errorf("%d %q after %v", res.StatusCode, b, took)
	}
}

// A body that a middleware wraps, as tracing does with each, was read into memory
// whole.
func TestMiddleware_ABodyThatIsWrappedIsReadWithABound(t *testing.T) {
	app := fiber.New(fiber.Config{StreamRequestBody: true})
	app.Post("/", wrap(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		r.Body = struct{ io.ReadCloser }{r.Body}
		next.ServeHTTP(w, r)
	}), func(c fiber.Ctx) error { return c.SendString(fmt.Sprint(len(c.Body()))) })
	app.Get("/stream", Stream(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n)
	})))
	url := serve(t, app)
	send := func(method, path string, size int64) (status int, body string, sent int64) {
		var n atomic.Int64
		r, w := io.Pipe()
		go func() {
			for b := make([]byte, 1<<20); n.Load() < size; n.Add(int64(len(b))) {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
			_ = w.Close()
		}()
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, r)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err.Error(), n.Load() // closed while it was sent
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		return res.StatusCode, string(b), n.Load()
	}
	for _, c := range []struct {
		method, path string
		size         int64
		ok           bool
	}{{"POST", "/", 6 << 20, true}, {"POST", "/", 64 << 20, false}, {"GET", "/stream", 1 << 20, true}, {"GET", "/stream", 64 << 20, false}} {
		status, body, sent := send(c.method, c.path, c.size)
		if c.ok && (status != 200 || body != fmt.Sprint(c.size)) || !c.ok && (status != 413 && status != 0 || sent >= c.size) {
			t.Errorf("%+v: %d %q, %d bytes were sent", c, status, body, sent)
		}
	}
}

// The memory of the request's headers was written again: what a middleware of
// Fiber outside had read of them became other values.
func TestMiddleware_WhatFiberHasReadOfARequestStaysAsItIs(t *testing.T) {
	app := fiber.New()
	app.Use(func(c fiber.Ctx) error {
		got := []string{c.Get("X-Request-Id"), c.Cookies("a"), c.Query("q"), c.Get("X-Tenant")}
		before := strings.Clone(strings.Join(got, "|"))
		err := c.Next()
		if after := strings.Join(got, "|"); after != before || after != "id-1234|aaaa|query|tenant-7" {
			t.Errorf("%q became %q", before, after)
		}
		if again := strings.Join([]string{c.Get("X-Request-Id"), c.Cookies("a"), c.Query("q"), c.Get("X-Tenant")}, "|"); again != before {
			t.Errorf("%q is read as %q", before, again)
		}
		return err
	}, wrap(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		for _, name := range []string{"If-None-Match", "X-Forwarded-Server", "X-Long"} {
			r.Header.Del(name)
		}
		r.Header.Set("Cookie", "bbbb=2222; c=3333")
		r.URL.RawQuery = "z=other&y=another"
		next.ServeHTTP(w, r)
	}))
	app.Get("/", func(c fiber.Ctx) error {
		return c.SendString(c.Cookies("bbbb") + c.Query("z") + c.Get("X-Request-Id") + c.Get("X-Long"))
	})
	for range 20 {
		req := httptest.NewRequest(http.MethodGet, "/?q=query&p=param", nil)
		for name, value := range map[string]string{
			"X-Request-Id": "id-1234", "X-Tenant": "tenant-7", "If-None-Match": `"tag"`, "X-Forwarded-Server": "proxy", "X-Long": strings.Repeat("l", 100), "Cookie": "a=aaaa; b=bbbb",
		} {
			req.Header.Set(name, value)
		}
		res, err := app.Test(req)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(res.Body); string(b) != "2222otherid-1234" {
			t.Errorf("%q", b)
		}
		_ = res.Body.Close()
	}
}

// Fiber's context stayed the middleware's, which ends with it: what came after
// Next outside failed.
func TestMiddleware_TheContextOutsideIsTheOldOneAgain(t *testing.T) {
	type key struct{}
	app := fiber.New()
	app.Use(func(c fiber.Ctx) error {
		err := c.Next()
		if c.Context().Err() != nil || c.Context().Value(key{}) != nil {
			t.Errorf("%v", c.Context())
		}
		return err
	}, wrap(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(context.WithValue(r.Context(), key{}, 1))
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	}))
	app.Get("/", func(c fiber.Ctx) error { return c.SendString(fmt.Sprint(c.Context().Value(key{}))) })
	res, err := app.Test(httptest.NewRequest(http.MethodGet, "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if b, _ := io.ReadAll(res.Body); string(b) != "1" {
		t.Errorf("%q", b)
	}
}

func TestMiddleware_CarriesWhatTheHandlersAnswer(t *testing.T) {
	for name, cfg := range map[string]fiber.Config{
		"errors of Fiber": {},
		"problems":        {ErrorHandler: ErrorHandler(inject.New(nil, inject.Options{})), StreamRequestBody: true},
	} {
		t.Run(name, func(t *testing.T) {
			CarriedRun(t, func(_ *testing.T, a *Carried) Serve {
				app := fiber.New(cfg)
				app.Use(recoverer.New())
				if a.Around != nil {
					app.Use(Middleware(a.Around))
				}
				carried(app, a)
				return func(ln net.Listener) func() {
					done := make(chan struct{})
					go func() { defer close(done); _ = app.Listener(ln, fiber.ListenConfig{DisableStartupMessage: true}) }()
					return func() { _ = app.ShutdownWithTimeout(time.Second); <-done }
				}
			})
		})
	}
}

func carried(app *fiber.App, a *Carried) {
	a.Late = true
	status := func(c fiber.Ctx) error {
		n, _ := strconv.Atoi(c.Params("code"))
		c.Status(n)
		return nil
	}
	redirect := func(c fiber.Ctx) error { return c.Redirect().Status(302).To("/page") }
	fail := func(fiber.Ctx) error { return fiber.NewError(418, "teapot") }
	app.Get("/page", func(c fiber.Ctx) error {
		c.Set("X-Page", "1")
		c.Response().Header.Add("Link", "</a>")
		c.Response().Header.Add("Link", "</b>")
		return c.SendString("page")
	})
	app.Get("/status/:code", status)
	app.Post("/status/:code", status)
	app.Get("/redirect", redirect)
	app.Post("/redirect", redirect)
	app.Get("/file", func(c fiber.Ctx) error { return c.SendFile(a.File, fiber.SendFile{ByteRange: true}) })
	app.Get("/json", func(c fiber.Ctx) error { return c.Status(203).JSON(map[string]int{"a": 1}) })
	app.Get("/empty", func(fiber.Ctx) error { return nil })
	app.Get("/error", fail)
	app.Post("/error", fail)
	app.Get("/broken", func(fiber.Ctx) error { return errors.New("broken") })
	app.Get("/panic", func(fiber.Ctx) error { panic("carried") })
	app.Get("/big", func(c fiber.Ctx) error {
		for range 64 {
			_, _ = c.WriteString(strings.Repeat("x", 1024))
		}
		return nil
	})
	app.Get("/stream", func(c fiber.Ctx) error {
		return c.SendStreamWriter(func(w *bufio.Writer) {
			_, _ = w.WriteString("one\n")
			_ = w.Flush()
			_, _ = w.WriteString("two\n")
		})
	})
	app.Get("/upgrade", func(c fiber.Ctx) error {
		c.Set("Connection", "Upgrade")
		c.Set("Upgrade", "echo")
		c.Status(101)
		c.RequestCtx().Hijack(func(conn net.Conn) { _, _ = conn.Write([]byte("hello")) })
		return nil
	})
	app.Post("/echo", func(c fiber.Ctx) error { return c.Send(c.Body()) })
	app.Get("/reload", func(c fiber.Ctx) error {
		n, text := a.Reload(c.Set)
		switch {
		case text == "":
			c.Status(n)
			return nil
		case n >= 400:
			return fiber.NewError(n, text)
		}
		return c.SendString(text)
	})
}
