package madcrowgin

import (
	"context"
	"net/http"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/madcrow-go/madcrow/health"
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
		return reply(c, Told(s), nil)
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
	Health(router, k.Redis, k.Draining, health.Options{})
}

func TestWith_WhatWasNotMadePanicsWhenTheRouteIsMade(t *testing.T) {
	made := inject.Plain(inject.New(nil, nil), 1)
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
