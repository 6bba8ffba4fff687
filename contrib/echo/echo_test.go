package madcrowecho

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/madcrow-go/madcrow/inject"
	. "github.com/madcrow-go/madcrow/internal/conformance"
)

func TestConformance_Echo(t *testing.T) {
	Run(t, func(_ *testing.T, k *Kit) Serve {
		router := echo.New()
		router.HTTPErrorHandler = ErrorHandler(k.Set)
		router.Use(Middleware(k.Recover))
		routes(router, k)
		return HTTP(router)
	})
}

func reply(c *echo.Context, a Reply, err error) error {
	if err == nil {
		err = c.JSON(http.StatusOK, a)
	}
	return err
}

func routes(router *echo.Echo, k *Kit) {
	router.GET("/plain", With(k.Plain, func(c *echo.Context, g Greeter) error { return reply(c, Greet(g), nil) }))
	router.GET("/store/:key", With(k.Store, func(c *echo.Context, s *Store) error {
		a, err := s.Read(c.Request().Context(), c.Param("key"))
		return reply(c, a, err)
	}))
	router.GET("/optional", With(inject.Maybe(k.Store), func(c *echo.Context, s inject.Optional[*Store]) error {
		return reply(c, ReadOptional(s), nil)
	}))
	router.GET("/caller", With2(k.Caller, k.Greeting, func(c *echo.Context, who Caller, g Greeting) error {
		return reply(c, Called(who, g), nil)
	}))

	in := router.Group("", Middleware(k.Session))
	plain := func(f func(context.Context) (Reply, error)) echo.HandlerFunc {
		return Handler(k.Set, func(c *echo.Context) error {
			a, err := f(c.Request().Context())
			return reply(c, a, err)
		})
	}
	in.GET("/session", plain(k.Visits))
	in.POST("/session", plain(k.Visit))
	in.POST("/session/fail", Handler(k.Set, func(c *echo.Context) error {
		if _, err := k.Visit(c.Request().Context()); err != nil {
			return err
		}
		return ErrForeign
	}))
	in.POST("/session/empty", Handler(k.Set, func(c *echo.Context) error {
		if _, err := k.Visit(c.Request().Context()); err != nil {
			return err
		}
		return c.NoContent(http.StatusNoContent)
	}))
	in.POST("/login/:user", Handler(k.Set, func(c *echo.Context) error {
		a, err := k.Login(c.Request().Context(), c.Param("user"))
		return reply(c, a, err)
	}))
	in.POST("/login/:user/panic", Handler(k.Set, func(c *echo.Context) error {
		if _, err := k.Login(c.Request().Context(), c.Param("user")); err != nil {
			return err
		}
		panic(Secret)
	}))
	in.POST("/rotate", plain(k.Rotate))
	in.GET("/stream", Handler(k.Set, func(c *echo.Context) error {
		if _, err := k.Visit(c.Request().Context()); err != nil {
			return err
		}
		if err := c.String(http.StatusOK, "one\n"); err != nil {
			return err
		}
		if err := http.NewResponseController(c.Response()).Flush(); err != nil {
			return err
		}
		k.Hold()
		_, err := c.Response().Write([]byte("two\n"))
		return err
	}))

	router.GET("/limited", With(k.Plain, func(c *echo.Context, g Greeter) error { return reply(c, Greet(g), nil) }), Middleware(k.Limited))
	router.GET("/fail/:kind", func(c *echo.Context) error { return k.Fail(c.Request().Context(), c.Param("kind")) })
	router.GET("/panic", func(*echo.Context) error { panic(Secret) })
	router.POST("/validate", Handler(k.Set, func(c *echo.Context) error {
		var body In
		if err := c.Bind(&body); err != nil {
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
		"first":  func() { With(inject.Dep[int]{}, func(*echo.Context, int) error { return nil }) },
		"second": func() { With2(made, inject.Dep[int]{}, func(*echo.Context, int, int) error { return nil }) },
		"third":  func() { With3(made, made, inject.Dep[int]{}, func(*echo.Context, int, int, int) error { return nil }) },
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

func TestErrorHandler_EchosOwnErrorsAreProblems(t *testing.T) {
	e := echo.New()
	e.HTTPErrorHandler = ErrorHandler(inject.New(nil, inject.Options{}))
	e.GET("/taken", func(*echo.Context) error {
		return echo.NewHTTPError(http.StatusConflict, "It is taken").Wrap(errors.New(Secret))
	})
	e.GET("/answered", func(c *echo.Context) error {
		_ = c.String(http.StatusGone, "it is gone")
		return errors.New(Secret)
	})
	for path, want := range map[string]string{"/none": `"code":"NOT_FOUND"`, "/taken": `"message":"It is taken"`, "/answered": "it is gone"} {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if !strings.Contains(w.Body.String(), want) || strings.Contains(w.Body.String(), Secret) || path == "/answered" && strings.Contains(w.Body.String(), "error_id") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestErrorHandler_AnErrorAfterTheFirstBytesDoesNotEndTheAnswerAsAWhole(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	for name, around := range map[string][]echo.MiddlewareFunc{"alone": nil, "Recover": {Middleware(set.Problems().Recover)}} {
		e := echo.New()
		e.HTTPErrorHandler = ErrorHandler(set)
		e.Use(around...)
		half := func(c *echo.Context) error {
			_ = c.String(http.StatusOK, `[{"n":1},`)
			_ = http.NewResponseController(c.Response()).Flush()
			return errors.New(Secret)
		}
		e.GET("/own", half)
		e.GET("/handler", Handler(set, half))
		srv := httptest.NewServer(e)
		for _, path := range []string{"/own", "/handler"} {
			res, err := http.Get(srv.URL + path)
			if err != nil {
				continue // it came to nothing
			}
			if body, err := io.ReadAll(res.Body); err == nil || strings.Contains(string(body), "error_id") {
				t.Errorf("%s, %s: %d %q, ended with %v", name, path, res.StatusCode, body, err)
			}
			_ = res.Body.Close()
		}
		srv.Close()
	}
}

func TestMiddleware_CarriesWhatTheHandlersAnswer(t *testing.T) {
	for name, answer := range map[string]echo.HTTPErrorHandler{"errors of Echo": echo.DefaultHTTPErrorHandler(false), "problems": ErrorHandler(inject.New(nil, inject.Options{}))} {
		t.Run(name, func(t *testing.T) {
			CarriedRun(t, func(_ *testing.T, a *Carried) Serve {
				router := echo.New()
				router.Logger = slog.New(slog.DiscardHandler)
				router.HTTPErrorHandler = answer
				router.Use(middleware.Recover())
				if a.Around != nil {
					router.Use(Middleware(a.Around))
				}
				carried(t, router, a)
				return HTTP(router)
			})
		})
	}
}

func carried(t *testing.T, router *echo.Echo, a *Carried) {
	page := func(c *echo.Context) error {
		c.Response().Header().Set("X-Page", "1")
		c.Response().Header().Add("Link", "</a>")
		c.Response().Header().Add("Link", "</b>")
		return c.String(200, "page")
	}
	status := func(c *echo.Context) error {
		n, _ := strconv.Atoi(c.Param("code"))
		return c.NoContent(n)
	}
	redirect := func(c *echo.Context) error { return c.Redirect(302, "/page") }
	file := func(c *echo.Context) error {
		http.ServeFile(c.Response(), c.Request(), a.File)
		return nil
	}
	fail := func(*echo.Context) error { return echo.NewHTTPError(418, "teapot") }
	empty := func(*echo.Context) error { return nil }
	router.GET("/page", page)
	router.HEAD("/page", page)
	router.GET("/status/:code", status)
	router.POST("/status/:code", status)
	router.GET("/redirect", redirect)
	router.POST("/redirect", redirect)
	router.GET("/file", file)
	router.HEAD("/file", file)
	router.GET("/json", func(c *echo.Context) error { return c.JSON(203, map[string]int{"a": 1}) })
	router.GET("/empty", empty)
	router.HEAD("/empty", empty)
	router.GET("/error", fail)
	router.HEAD("/error", fail)
	router.POST("/error", fail)
	router.GET("/broken", func(*echo.Context) error { return errors.New(Secret) })
	router.GET("/panic", func(*echo.Context) error { panic("carried") })
	router.GET("/big", func(c *echo.Context) error {
		for range 64 {
			_, _ = io.WriteString(c.Response(), strings.Repeat("x", 1024))
		}
		return nil
	})
	router.GET("/stream", func(c *echo.Context) error {
		_, _ = io.WriteString(c.Response(), "one\n")
		_ = http.NewResponseController(c.Response()).Flush()
		_, err := io.WriteString(c.Response(), "two\n")
		return err
	})
	router.GET("/upgrade", func(c *echo.Context) error {
		conn, buf, err := http.NewResponseController(c.Response()).Hijack()
		if err != nil {
			t.Error(err)
			return err
		}
		_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
		_ = buf.Flush()
		return conn.Close()
	})
	router.POST("/echo", func(c *echo.Context) error {
		b, _ := io.ReadAll(c.Request().Body)
		return c.Blob(200, "text/plain", b)
	})
	router.GET("/reload", func(c *echo.Context) error {
		n, text := a.Reload(c.Response().Header().Set)
		switch {
		case text == "":
			return c.NoContent(n)
		case n >= 400:
			return echo.NewHTTPError(n, text)
		}
		return c.String(n, text)
	})
}
