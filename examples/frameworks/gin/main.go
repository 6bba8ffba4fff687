// Command gin is the shop with gin.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/gin-gonic/gin"

	"github.com/madcrow-go/madcrow/cache"
	madcrowgin "github.com/madcrow-go/madcrow/contrib/gin"
	"github.com/madcrow-go/madcrow/examples/frameworks/shop"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/service"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	s, err := shop.Open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(madcrowgin.Middleware(s.Deps.Problems().Recover))
	router.GET("/articles/:id", madcrowgin.With(s.Articles, article))
	router.GET("/notes/:key", madcrowgin.With(s.Notes, note))
	router.GET("/features", madcrowgin.With(inject.Maybe(s.Notes), features))
	router.POST("/visits", madcrowgin.Middleware(s.Session), madcrowgin.Handler(s.Deps, func(c *gin.Context) error {
		v, err := s.Visit(c.Request.Context())
		return reply(c, v, err)
	}))
	router.POST("/orders", madcrowgin.Middleware(s.Limited), madcrowgin.Handler(s.Deps, order))
	madcrowgin.Health(router, s.Health)
	return s.Serve(router)
}

func article(c *gin.Context, articles *cache.Cache[shop.Article]) error {
	a, err := shop.Read(c.Request.Context(), articles, c.Param("id"))
	return reply(c, a, err)
}

func note(c *gin.Context, notes *service.Service) error {
	n, err := shop.ReadNote(c.Request.Context(), notes, c.Param("key"))
	return reply(c, n, err)
}

func features(c *gin.Context, notes inject.Optional[*service.Service]) error {
	return reply(c, shop.Has(notes), nil)
}

func order(c *gin.Context) error { return reply(c, shop.Order{Ordered: true}, nil) }

// reply sends v; an error becomes a problem.
func reply(c *gin.Context, v any, err error) error {
	if err == nil {
		c.JSON(http.StatusOK, v)
	}
	return err
}
