// Command echo is the shop with Echo.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/labstack/echo/v5"

	"github.com/madcrow-go/madcrow/cache"
	madcrowecho "github.com/madcrow-go/madcrow/contrib/echo"
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

	e := echo.New()
	e.HTTPErrorHandler = madcrowecho.ErrorHandler(s.Deps)
	e.Use(madcrowecho.Middleware(s.Deps.Problems().Recover))
	e.GET("/articles/:id", madcrowecho.With(s.Articles, article))
	e.GET("/notes/:key", madcrowecho.With(s.Notes, note))
	e.GET("/features", madcrowecho.With(inject.Maybe(s.Notes), features))
	e.POST("/visits", func(c *echo.Context) error {
		v, err := s.Visit(c.Request().Context())
		return reply(c, v, err)
	}, madcrowecho.Middleware(s.Session))
	e.POST("/orders", order, madcrowecho.Middleware(s.Limited))
	madcrowecho.Health(e, s.Health)
	return s.Serve(e)
}

func article(c *echo.Context, articles *cache.Cache[shop.Article]) error {
	a, err := shop.Read(c.Request().Context(), articles, c.Param("id"))
	return reply(c, a, err)
}

func note(c *echo.Context, notes *service.Service) error {
	n, err := shop.ReadNote(c.Request().Context(), notes, c.Param("key"))
	return reply(c, n, err)
}

func features(c *echo.Context, notes inject.Optional[*service.Service]) error {
	return reply(c, shop.Has(notes), nil)
}

func order(c *echo.Context) error { return reply(c, shop.Order{Ordered: true}, nil) }

// reply sends v; an error becomes a problem.
func reply(c *echo.Context, v any, err error) error {
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, v)
}
