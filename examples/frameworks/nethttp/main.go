// Command nethttp is the shop with the standard library alone.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

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

	mux := http.NewServeMux()
	mux.Handle("GET /articles/{id}", inject.With(s.Articles, article))
	mux.Handle("GET /notes/{key}", inject.With(s.Notes, note))
	mux.Handle("GET /features", inject.With(inject.Maybe(s.Notes), features))
	mux.Handle("POST /visits", s.Session(s.Deps.Handler(func(w http.ResponseWriter, r *http.Request) error {
		v, err := s.Visit(r.Context())
		return reply(w, v, err)
	})))
	mux.Handle("POST /orders", s.Limited(s.Deps.Handler(order)))
	mux.Handle("GET /health/live", s.Health.Live())
	mux.Handle("GET /health/ready", s.Health.Ready())
	mux.Handle("GET /health", s.Health.Detail())
	return s.Serve(s.Deps.Problems().Recover(mux))
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
