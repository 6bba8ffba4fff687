// Command chi is the shop with chi, which needs no adapter: handlers and
// middlewares of net/http are its own.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-chi/chi/v5"

	"github.com/madcrow-go/madcrow/cache"
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

	router := chi.NewRouter()
	router.Use(s.Deps.Problems().Recover)
	router.Method("GET", "/articles/{id}", inject.With(s.Articles, article))
	router.Method("GET", "/notes/{key}", inject.With(s.Notes, note))
	router.Method("GET", "/features", inject.With(inject.Maybe(s.Notes), features))
	router.With(s.Session).Method("POST", "/visits", s.Deps.Handler(func(w http.ResponseWriter, r *http.Request) error {
		v, err := s.Visit(r.Context())
		return reply(w, v, err)
	}))
	router.With(s.Limited).Method("POST", "/orders", s.Deps.Handler(order))
	router.Method("GET", "/health/live", s.Health.Live())
	router.Method("GET", "/health/ready", s.Health.Ready())
	router.Method("GET", "/health", s.Health.Detail())
	return s.Serve(router)
}

func article(w http.ResponseWriter, r *http.Request, articles *cache.Cache[shop.Article]) error {
	a, err := shop.Read(r.Context(), articles, r.PathValue("id"))
	return reply(w, a, err)
}

func note(w http.ResponseWriter, r *http.Request, notes *service.Service) error {
	n, err := shop.ReadNote(r.Context(), notes, r.PathValue("key"))
	return reply(w, n, err)
}

func features(w http.ResponseWriter, _ *http.Request, notes inject.Optional[*service.Service]) error {
	return reply(w, shop.Has(notes), nil)
}

func order(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, shop.Order{Ordered: true}, nil)
}

// reply sends v; an error becomes a problem.
func reply(w http.ResponseWriter, v any, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
