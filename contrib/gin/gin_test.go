package madcrowgin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/madcrow-go/madcrow/inject"
	. "github.com/madcrow-go/madcrow/internal/conformance"
	"github.com/madcrow-go/madcrow/problem"
)

func init() { gin.SetMode(gin.TestMode) }

func TestConformance_Gin(t *testing.T) {
	Run(t, func(_ *testing.T, k *Kit) Serve {
		router := gin.New()
		router.Use(Middleware(k.Recover))
		routes(router, k)
		return HTTP(router)
	})
}

func reply(c *gin.Context, a Reply, err error) error {
	if err == nil {
		c.JSON(http.StatusOK, a)
	}
	return err
}

func routes(router *gin.Engine, k *Kit) {
	router.GET("/plain", With(k.Plain, func(c *gin.Context, g Greeter) error { return reply(c, Greet(g), nil) }))
	router.GET("/store/:key", With(k.Store, func(c *gin.Context, s *Store) error {
		a, err := s.Read(c.Request.Context(), c.Param("key"))
		return reply(c, a, err)
	}))
	router.GET("/optional", With(inject.Maybe(k.Store), func(c *gin.Context, s inject.Optional[*Store]) error {
		return reply(c, ReadOptional(s), nil)
	}))
	router.GET("/caller", With2(k.Caller, k.Greeting, func(c *gin.Context, who Caller, g Greeting) error {
		return reply(c, Called(who, g), nil)
	}))

	in := router.Group("", Middleware(k.Session))
	plain := func(f func(context.Context) (Reply, error)) gin.HandlerFunc {
		return Handler(k.Set, func(c *gin.Context) error {
			a, err := f(c.Request.Context())
			return reply(c, a, err)
		})
	}
	in.GET("/session", plain(k.Visits))
	in.POST("/session", plain(k.Visit))
	in.POST("/session/fail", Handler(k.Set, func(c *gin.Context) error {
		if _, err := k.Visit(c.Request.Context()); err != nil {
			return err
		}
		return ErrForeign
	}), func(c *gin.Context) { c.String(http.StatusOK, "it went on") })
	in.POST("/session/empty", Handler(k.Set, func(c *gin.Context) error {
		c.Status(http.StatusNoContent) // gin sends it later
		_, err := k.Visit(c.Request.Context())
		return err
	}))
	in.POST("/login/:user", Handler(k.Set, func(c *gin.Context) error {
		a, err := k.Login(c.Request.Context(), c.Param("user"))
		return reply(c, a, err)
	}))
	in.POST("/login/:user/panic", Handler(k.Set, func(c *gin.Context) error {
		if _, err := k.Login(c.Request.Context(), c.Param("user")); err != nil {
			return err
		}
		panic(Secret)
	}))
	in.POST("/rotate", plain(k.Rotate))
	in.GET("/stream", Handler(k.Set, func(c *gin.Context) error {
		if _, err := k.Visit(c.Request.Context()); err != nil {
			return err
		}
		c.String(http.StatusOK, "one\n")
		c.Writer.Flush()
		k.Hold()
		c.String(http.StatusOK, "two\n")
		return nil
	}))

	router.GET("/limited", Middleware(k.Limited), With(k.Plain, func(c *gin.Context, g Greeter) error { return reply(c, Greet(g), nil) }))
	router.GET("/fail/:kind", Handler(k.Set, func(c *gin.Context) error { return k.Fail(c.Request.Context(), c.Param("kind")) }))
	router.GET("/panic", func(*gin.Context) { panic(Secret) }, func(c *gin.Context) { c.String(http.StatusOK, "it went on") })
	router.POST("/validate", Handler(k.Set, func(c *gin.Context) error {
		var body In
		if err := c.ShouldBindJSON(&body); err != nil {
			return problem.New(http.StatusBadRequest, "BODY", "The body is no JSON")
		}
		a, err := Validate(body)
		return reply(c, a, err)
	}))
	Health(router, k.Health)
}

func TestWith_AZeroDepPanicsWhenTheRouteIsMade(t *testing.T) {
	made := inject.Plain(inject.New(nil, inject.Options{}), 1)
	for name, route := range map[string]func(){
		"first":  func() { With(inject.Dep[int]{}, func(*gin.Context, int) error { return nil }) },
		"second": func() { With2(made, inject.Dep[int]{}, func(*gin.Context, int, int) error { return nil }) },
		"third":  func() { With3(made, made, inject.Dep[int]{}, func(*gin.Context, int, int, int) error { return nil }) },
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

// Also under gin's Recovery, which takes http.ErrAbortHandler for its own.
func TestHandler_AnErrorAfterTheFirstBytesDoesNotEndTheAnswerAsAWhole(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	for name, around := range map[string][]gin.HandlerFunc{
		"alone":    nil,
		"Recover":  {Middleware(set.Problems().Recover)},
		"Recovery": {gin.CustomRecoveryWithWriter(nil, func(*gin.Context, any) {})},
		"both":     {gin.CustomRecoveryWithWriter(nil, func(*gin.Context, any) {}), Middleware(set.Problems().Recover)},
	} {
		router := gin.New()
		router.Use(around...)
		router.GET("/half", Handler(set, func(c *gin.Context) error {
			c.String(http.StatusOK, `[{"n":1},`)
			c.Writer.Flush()
			return errors.New(Secret)
		}))
		router.GET("/gone", Handler(set, func(c *gin.Context) error {
			c.String(http.StatusNotFound, "gone")
			return errors.New(Secret)
		}))
		srv := httptest.NewServer(router)
		if res, err := http.Get(srv.URL + "/half"); err == nil { // or it came to nothing
			if body, err := io.ReadAll(res.Body); err == nil || strings.Contains(string(body), "error_id") {
				t.Errorf("%s: %d %q, ended with %v", name, res.StatusCode, body, err)
			}
			_ = res.Body.Close()
		}
		res, err := http.Get(srv.URL + "/gone")
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 404 || string(body) != "gone" {
			t.Errorf("%s: %d %q %v", name, res.StatusCode, body, err)
		}
		_ = res.Body.Close()
		srv.Close()
	}
}

func TestMiddleware_SeesTheStatusAndCanFlush(t *testing.T) {
	var seen []int
	router := gin.New()
	router.Use(Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(&recorder{w, &seen}, r)
		})
	}))
	router.GET("/json", func(c *gin.Context) { c.JSON(http.StatusTeapot, nil) })
	router.GET("/flush", func(c *gin.Context) {
		c.Status(http.StatusAccepted)
		c.Writer.Flush()
		if !c.Writer.Written() {
			t.Error("flushed and not written")
		}
	})
	for path, want := range map[string]int{"/json": http.StatusTeapot, "/flush": http.StatusAccepted} {
		seen = nil
		w := httptest.NewRecorder()
		router.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if len(seen) != 1 || seen[0] != want || w.Code != want || w.Flushed != (path == "/flush") {
			t.Errorf("%s: seen %v, answered %d, flushed %v", path, seen, w.Code, w.Flushed)
		}
	}
}

type recorder struct {
	http.ResponseWriter
	seen *[]int
}

func (w *recorder) WriteHeader(status int) {
	*w.seen = append(*w.seen, status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestMiddleware_CarriesWhatTheHandlersAnswer(t *testing.T) {
	CarriedRun(t, func(_ *testing.T, a *Carried) Serve {
		router := gin.New()
		router.Use(gin.CustomRecoveryWithWriter(io.Discard, nil))
		if a.Around != nil {
			router.Use(Middleware(a.Around))
		}
		status := func(c *gin.Context) {
			n, _ := strconv.Atoi(c.Param("code"))
			c.Status(n)
		}
		page := func(c *gin.Context) {
			c.Header("X-Page", "1")
			c.Writer.Header().Add("Link", "</a>")
			c.Writer.Header().Add("Link", "</b>")
			c.String(200, "page")
		}
		router.GET("/page", page)
		router.HEAD("/page", page)
		router.GET("/status/:code", status)
		router.POST("/status/:code", status)
		router.GET("/redirect", func(c *gin.Context) { c.Redirect(302, "/page") })
		router.POST("/redirect", func(c *gin.Context) { c.Redirect(302, "/page") })
		router.GET("/file", func(c *gin.Context) { c.File(a.File) })
		router.HEAD("/file", func(c *gin.Context) { c.File(a.File) })
		router.GET("/json", func(c *gin.Context) { c.JSON(203, gin.H{"a": 1}) })
		router.GET("/empty", func(*gin.Context) {})
		router.HEAD("/empty", func(*gin.Context) {})
		fail := func(c *gin.Context) { _ = c.AbortWithError(418, errors.New("teapot")) }
		router.GET("/error", fail)
		router.HEAD("/error", fail)
		router.POST("/error", fail)
		router.GET("/broken", func(c *gin.Context) { c.AbortWithStatusJSON(500, gin.H{"e": 1}) })
		router.GET("/panic", func(*gin.Context) { panic("carried") })
		router.GET("/big", func(c *gin.Context) {
			for range 64 {
				_, _ = c.Writer.WriteString(strings.Repeat("x", 1024))
			}
		})
		router.GET("/stream", func(c *gin.Context) {
			lines := []string{"one\n", "two\n"}
			c.Stream(func(w io.Writer) bool {
				_, _ = io.WriteString(w, lines[0])
				lines = lines[1:]
				return len(lines) > 0
			})
		})
		router.GET("/upgrade", func(c *gin.Context) { upgrade(t, c.Writer) })
		router.POST("/echo", func(c *gin.Context) {
			b, _ := io.ReadAll(c.Request.Body)
			c.Data(200, "text/plain", b)
		})
		router.GET("/reload", func(c *gin.Context) {
			n, text := a.Reload(c.Header)
			if c.Status(n); text != "" {
				c.String(n, text)
			}
		})
		return HTTP(router)
	})
}

// upgrade takes the connection over.
func upgrade(t *testing.T, w http.ResponseWriter) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
	_ = buf.Flush()
	_ = conn.Close()
}
