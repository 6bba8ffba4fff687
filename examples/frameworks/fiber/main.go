// Command fiber is the shop with Fiber.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v3"

	"github.com/madcrow-go/madcrow/cache"
	madcrowfiber "github.com/madcrow-go/madcrow/contrib/fiber"
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

	app := fiber.New(fiber.Config{
		ErrorHandler: madcrowfiber.ErrorHandler(s.Deps), ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
	})
	app.Use(madcrowfiber.Middleware(s.Deps.Problems().Recover))
	app.Get("/articles/:id", madcrowfiber.With(s.Articles, article))
	app.Get("/notes/:key", madcrowfiber.With(s.Notes, note))
	app.Get("/features", madcrowfiber.With(inject.Maybe(s.Notes), features))
	app.Post("/visits", madcrowfiber.Middleware(s.Session), func(c fiber.Ctx) error {
		v, err := s.Visit(c.Context())
		return reply(c, v, err)
	})
	app.Post("/orders", madcrowfiber.Middleware(s.Limited), order)
	madcrowfiber.Health(app, s.Health)

	ln, err := s.Listen()
	if err != nil {
		return err
	}
	// It finishes the requests in flight when ctx ends.
	return app.Listener(ln, fiber.ListenConfig{GracefulContext: ctx, ShutdownTimeout: 10 * time.Second, DisableStartupMessage: true})
}

func article(c fiber.Ctx, articles *cache.Cache[shop.Article]) error {
	// Fiber uses the memory of c.Params again.
	a, err := shop.Read(c.Context(), articles, strings.Clone(c.Params("id")))
	return reply(c, a, err)
}

func note(c fiber.Ctx, notes *service.Service) error {
	n, err := shop.ReadNote(c.Context(), notes, strings.Clone(c.Params("key")))
	return reply(c, n, err)
}

func features(c fiber.Ctx, notes inject.Optional[*service.Service]) error {
	return reply(c, shop.Has(notes), nil)
}

func order(c fiber.Ctx) error { return reply(c, shop.Order{Ordered: true}, nil) }

// reply sends v; an error becomes a problem.
func reply(c fiber.Ctx, v any, err error) error {
	if err != nil {
		return err
	}
	return c.JSON(v)
}
