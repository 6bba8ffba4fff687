package madcrowfiber

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"

	"github.com/madcrow-go/madcrow/inject"
	. "github.com/madcrow-go/madcrow/internal/conformance"
)

func TestConformance_Fiber(t *testing.T) {
	Run(t, func(_ *testing.T, k *Kit) Serve {
		router := fiber.New(fiber.Config{ErrorHandler: ErrorHandler(k.Set)})
		router.Use(Middleware(k.Recover))
		routes(router, k)
		return func(ln net.Listener) func() {
			done := make(chan struct{})
			go func() { defer close(done); _ = router.Listener(ln, fiber.ListenConfig{DisableStartupMessage: true}) }()
			return func() { _ = router.Shutdown(); <-done }
		}
	})
}

func reply(c fiber.Ctx, a Reply, err error) error {
	if err == nil {
		err = c.JSON(a)
	}
	return err
}

func routes(router *fiber.App, k *Kit) {
	router.Get("/plain", With(k.Plain, func(c fiber.Ctx, g Greeter) error { return reply(c, Greet(g), nil) }))
	router.Get("/store/:key", With(k.Store, func(c fiber.Ctx, s *Store) error {
		a, err := s.Read(c.Context(), c.Params("key"))
		return reply(c, a, err)
	}))
	router.Get("/optional", With(inject.Maybe(k.Store), func(c fiber.Ctx, s inject.Optional[*Store]) error {
		return reply(c, ReadOptional(s), nil)
	}))
	router.Get("/caller", With2(k.Caller, k.Greeting, func(c fiber.Ctx, who Caller, g Greeting) error {
		return reply(c, Called(who, g), nil)
	}))

	in := router.Group("", Middleware(k.Session))
	plain := func(f func(context.Context) (Reply, error)) fiber.Handler {
		return Handler(k.Set, func(c fiber.Ctx) error {
			a, err := f(c.Context())
			return reply(c, a, err)
		})
	}
	in.Get("/session", plain(k.Visits))
	in.Post("/session", plain(k.Visit))
	in.Post("/session/fail", Handler(k.Set, func(c fiber.Ctx) error {
		if _, err := k.Visit(c.Context()); err != nil {
			return err
		}
		return ErrForeign
	}))
	in.Post("/session/empty", Handler(k.Set, func(c fiber.Ctx) error {
		if _, err := k.Visit(c.Context()); err != nil {
			return err
		}
		return c.SendStatus(http.StatusNoContent)
	}))
	in.Post("/login/:user", Handler(k.Set, func(c fiber.Ctx) error {
		a, err := k.Login(c.Context(), c.Params("user"))
		return reply(c, a, err)
	}))
	in.Post("/login/:user/panic", Handler(k.Set, func(c fiber.Ctx) error {
		if _, err := k.Login(c.Context(), c.Params("user")); err != nil {
			return err
		}
		panic(Secret)
	}))
	in.Post("/rotate", plain(k.Rotate))
	in.Get("/stream", Handler(k.Set, func(c fiber.Ctx) error {
		if _, err := k.Visit(c.Context()); err != nil {
			return err
		}
		return c.SendStreamWriter(func(w *bufio.Writer) {
			_, _ = w.WriteString("one\n")
			_ = w.Flush()
			k.Hold()
			_, _ = w.WriteString("two\n")
		})
	}))

	router.Get("/limited", Middleware(k.Limited), With(k.Plain, func(c fiber.Ctx, g Greeter) error { return reply(c, Greet(g), nil) }))
	router.Get("/fail/:kind", func(c fiber.Ctx) error { return k.Fail(c.Context(), c.Params("kind")) })
	router.Get("/panic", func(fiber.Ctx) error { panic(Secret) })
	router.Post("/validate", Handler(k.Set, func(c fiber.Ctx) error {
		var body In
		if err := c.Bind().WithAutoHandling().Body(&body); err != nil {
			return err
		}
		a, err := Validate(body)
		return reply(c, a, err)
	}))
	Health(router, k.Health)
}

func TestWith_AZeroDepPanicsWhenTheRouteIsMade(t *testing.T) {
	made := inject.Plain(inject.New(nil, inject.Options{}), 1)
	for name, route := range map[string]func(){
		"first":  func() { With(inject.Dep[int]{}, func(fiber.Ctx, int) error { return nil }) },
		"second": func() { With2(made, inject.Dep[int]{}, func(fiber.Ctx, int, int) error { return nil }) },
		"third":  func() { With3(made, made, inject.Dep[int]{}, func(fiber.Ctx, int, int, int) error { return nil }) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			route()
		}()
	}
}

func TestErrorHandler_FibersOwnErrorsAreProblems(t *testing.T) {
	app := fiber.New(fiber.Config{ErrorHandler: ErrorHandler(inject.New(nil, inject.Options{}))})
	app.Get("/taken", func(fiber.Ctx) error {
		return errors.Join(errors.New(Secret), fiber.NewError(http.StatusConflict, "It is taken"))
	})
	app.Get("/half", func(c fiber.Ctx) error {
		_ = c.SendString("half")
		return errors.New(Secret)
	})
	for path, want := range map[string]string{"/none": `"code":"NOT_FOUND"`, "/taken": `"message":"It is taken"`, "/half": `{"type":`} {
		res, err := app.Test(httptest.NewRequest(http.MethodGet, path, nil))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !strings.Contains(string(body), want) || strings.Contains(string(body), Secret) || strings.Contains(string(body), "half") {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
}

func TestMiddleware_HeadersOfBothReachTheCaller(t *testing.T) {
	app := fiber.New()
	app.Use(Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Vary", "Origin")
			w.Header().Add("X-Both", "middleware")
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
			next.ServeHTTP(w, r)
			w.Header().Set("X-After", "1")
			http.SetCookie(w, &http.Cookie{Name: "c", Value: "3"})
		})
	}))
	app.Get("/:id", func(c fiber.Ctx) error {
		c.Append("Vary", "Cookie")
		c.Set("X-Both", "handler")
		c.Cookie(&fiber.Cookie{Name: "b", Value: "2"})
		return c.SendString(c.Params("id"))
	})
	res, err := app.Test(httptest.NewRequest(http.MethodGet, "/7", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	h := res.Header
	if len(h.Values("Set-Cookie")) != 3 || h.Get("X-Both") != "handler" || h.Get("X-After") != "1" || strings.Join(h.Values("Vary"), ", ") != "Origin, Cookie" {
		t.Errorf("%v", h)
	}
}

func TestMiddleware_HeadersAreSharedAsInNetHTTP(t *testing.T) {
	app := fiber.New()
	carry := func(before, after func(http.Header)) {
		app.Use(Middleware(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h := w.Header()
				before(h)
				next.ServeHTTP(w, r)
				after(h)
			})
		}))
	}
	carry(func(h http.Header) { h.Add("Vary", "A") }, func(h http.Header) {
		h.Add("Vary", "E")
		h.Del("X-Hidden")
		h.Set("X-Type", h.Get("Content-Type"))
	})
	carry(func(h http.Header) { h.Add("Vary", "B"); h.Set("X-Gone", "1"); h.Set("X-Type", h.Get("Content-Type")) }, func(h http.Header) {
		h.Add("Vary", "D")
		h.Add("Link", "</b>")
	})
	app.Get("/", func(c fiber.Ctx) error {
		if c.GetRespHeader("X-Type") != "" {
			t.Error("there was a type before the handler")
		}
		c.Append("Vary", "C")
		c.Set("X-Hidden", "1")
		c.Response().Header.Del("X-Gone")
		c.Response().Header.Add("Link", "</a>")
		return c.JSON("x")
	})
	res, err := app.Test(httptest.NewRequest(http.MethodGet, "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	h := res.Header
	if strings.Join(h.Values("Vary"), ", ") != "A, C, B, D, E" || strings.Join(h.Values("Link"), " ") != "</a> </b>" ||
		h.Get("X-Hidden") != "" || h.Get("X-Gone") != "" || !strings.HasPrefix(h.Get("X-Type"), "application/json") || h.Get("X-Type") != h.Get("Content-Type") {
		t.Errorf("%v", h)
	}
}

// serve serves app on a port, as it is in production.
func serve(t *testing.T, app *fiber.App) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = app.Listener(ln, fiber.ListenConfig{DisableStartupMessage: true}) }()
	t.Cleanup(func() { _ = app.Shutdown(); <-done })
	return "http://" + ln.Addr().String()
}

// deferred sets headers late, as a session does with its cookie.
func deferred(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
			w.Header().Set("Cache-Control", "no-store")
		}()
		next.ServeHTTP(w, r)
	})
}

func TestMiddleware_HeadersGoOutWithTheAnswerToAPanic(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	app := fiber.New(fiber.Config{ErrorHandler: ErrorHandler(set)})
	app.Use(Middleware(set.Problems().Recover), Middleware(deferred))
	app.Get("/panic", func(c fiber.Ctx) error {
		c.Set("Content-Encoding", "gzip")
		_ = c.SendString("half")
		panic(Secret)
	})
	res, err := http.Get(serve(t, app) + "/panic")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if res.StatusCode != 500 || len(res.Cookies()) != 1 || res.Header.Get("Content-Encoding") != "" || !strings.HasPrefix(string(body), `{"type":`) || err != nil {
		t.Errorf("%d %v %s %v", res.StatusCode, res.Header, body, err)
	}
}

func TestMiddleware_ErrAbortHandlerClosesTheConnection(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	app := fiber.New(fiber.Config{ErrorHandler: ErrorHandler(set)})
	app.Use(Middleware(set.Problems().Recover), Middleware(deferred))
	app.Get("/ok", func(c fiber.Ctx) error { return c.SendString("ok") })
	app.Get("/abort", func(fiber.Ctx) error { panic(http.ErrAbortHandler) })
	url := serve(t, app)
	for _, path := range []string{"/ok", "/abort", "/ok"} {
		res, err := http.Get(url + path)
		if path != "/ok" {
			if err == nil {
				t.Errorf("%s: %d", path, res.StatusCode)
				_ = res.Body.Close()
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); string(body) != "ok" || err != nil {
			t.Errorf("%d %s %v", res.StatusCode, body, err)
		}
		_ = res.Body.Close()
	}
}

func TestRequest_IsAsNetHTTPHasIt(t *testing.T) {
	app := fiber.New()
	var got *http.Request
	var body []byte
	app.Post("/users/:id", func(c fiber.Ctx) error {
		got = request(c)
		body, _ = io.ReadAll(got.Body)
		return nil
	})
	req := httptest.NewRequest(http.MethodPost, "/users/7?q=a%20b", strings.NewReader("text"))
	req.Header.Add("X-Two", "1")
	req.Header.Add("X-Two", "2")
	req.AddCookie(&http.Cookie{Name: "a", Value: "1"})
	res, err := app.Test(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	cookie, err := got.Cookie("a")
	if got.Method != "POST" || got.URL.Query().Get("q") != "a b" || got.Pattern != "POST /users/:id" || got.PathValue("id") != "7" ||
		got.Host != "example.com" || len(got.Header["X-Two"]) != 2 || string(body) != "text" || got.ContentLength != 4 || err != nil || cookie.Value != "1" || got.RemoteAddr == "" {
		t.Errorf("%+v %q %v", got, body, err)
	}
}

// With StreamRequestBody the length was 0 and the body empty: a limit by size let
// all pass, and a cache took a GET with a body for one without.
func TestMiddleware_StreamedBodiesKeepLengthAndBody(t *testing.T) {
	app := fiber.New(fiber.Config{StreamRequestBody: true, BodyLimit: 1000})
	app.Use(Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Length", strconv.FormatInt(r.ContentLength, 10))
			if r.Header.Get("X-Read") != "" {
				b, _ := io.ReadAll(r.Body)
				w.Header().Set("X-Body", strconv.Itoa(len(b)))
				r.Body = io.NopCloser(bytes.NewReader(b))
			}
			next.ServeHTTP(w, r)
		})
	}), Middleware(func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 5000) }))
	app.Post("/", func(c fiber.Ctx) error { return c.SendString(strconv.Itoa(len(c.Body()))) })
	url := serve(t, app)
	for _, c := range []struct {
		size   int
		length string
		read   string
		status int
	}{{10, "10", "", 200}, {3000, "3000", "", 200}, {3000, "3000", "1", 200}, {3000, "-1", "1", 200}, {9000, "9000", "", 413}} {
		var body io.Reader = strings.NewReader(strings.Repeat("x", c.size))
		if c.length == "-1" {
			body = io.MultiReader(body) // of unknown length
		}
		req, err := http.NewRequest(http.MethodPost, url, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Read", c.read)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != c.status || c.status == 200 && string(got) != strconv.Itoa(c.size) || res.Header.Get("X-Length") != c.length && c.status == 200 ||
			c.read != "" && res.Header.Get("X-Body") != strconv.Itoa(c.size) {
			t.Errorf("%+v: %d %q %v", c, res.StatusCode, got, res.Header)
		}
	}
}

// A middleware's changes of the request were not seen by the handlers: a page was
// stored without the parameters that the cache leaves out, made with them.
func TestMiddleware_HandlersSeeTheRequestAsTheMiddlewareHasChangedIt(t *testing.T) {
	app := fiber.New()
	app.Use(func(c fiber.Ctx) error {
		err := c.Next()
		c.Set("X-Outside", c.Get("X-A")+c.Get("X-B")+c.Query("q"))
		return err
	}, Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r = r.Clone(r.Context())
			r.Header.Del("X-A")
			r.Header.Set("X-B", "new")
			r.Header["Cookie"] = []string{"b=2"}
			r.URL.RawQuery = "q=new"
			next.ServeHTTP(w, r)
		})
	}))
	app.Get("/", func(c fiber.Ctx) error {
		return c.SendString(c.Get("X-A") + "|" + c.Get("X-B") + "|" + c.Cookies("a") + "|" + c.Cookies("b") + "|" + c.Query("q") + "|" + c.Get("X-Same"))
	})
	req := httptest.NewRequest(http.MethodGet, "/?q=old", nil)
	for name, value := range map[string]string{"X-A": "olda", "X-B": "oldb", "X-Same": "same", "Cookie": "a=1; b=1"} {
		req.Header.Set(name, value)
	}
	res, err := app.Test(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if b, _ := io.ReadAll(res.Body); string(b) != "|new||2|new|same" || res.Header.Get("X-Outside") != "oldaoldbold" {
		t.Errorf("%q, outside %q", b, res.Header.Get("X-Outside"))
	}
}

// What a request costs by itself, with a middleware of net/http that does
// nothing, and with a second one.
func BenchmarkMiddleware(b *testing.B) {
	for carried, name := range []string{"none", "one", "two"} {
		b.Run(name, func(b *testing.B) {
			app := fiber.New()
			for range carried {
				app.Use(Middleware(func(h http.Handler) http.Handler { return h }))
			}
			app.Get("/users/:id", func(c fiber.Ctx) error { return c.SendString(c.Params("id")) })
			handle := app.Handler()
			var c fasthttp.RequestCtx
			c.Request.Header.SetMethod("GET")
			c.Request.SetRequestURI("/users/42?full=1")
			for _, h := range []string{"Accept", "Accept-Encoding", "Cookie", "User-Agent", "X-Request-Id"} {
				c.Request.Header.Set(h, "some value of a header")
			}
			b.ReportAllocs()
			for b.Loop() {
				c.Response.Reset()
				handle(&c)
			}
			if got := string(c.Response.Body()); got != "42" {
				b.Errorf("%q", got)
			}
		})
	}
}
