// Command huma is the shop with huma: typed inputs and outputs, and an OpenAPI
// document at /openapi.json that tells of 429 and 503, too.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/madcrow-go/madcrow/cache"
	madcrowhuma "github.com/madcrow-go/madcrow/contrib/huma"
	"github.com/madcrow-go/madcrow/examples/frameworks/shop"
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

	cfg := huma.DefaultConfig("Shop", "1.0.0")
	cfg.CreateHooks = nil // no $schema in the answers
	cfg.DocsPath = ""     // huma's page loads scripts from elsewhere
	cfg.Transformers = append(cfg.Transformers, madcrowhuma.Problems(s.Deps))
	mux := http.NewServeMux()
	api := humago.New(mux, cfg)

	madcrowhuma.Register(s.Deps, api, huma.Operation{Method: "GET", Path: "/articles/{id}", OperationID: "read-article"}, article)
	madcrowhuma.Register(s.Deps, api, huma.Operation{Method: "GET", Path: "/notes/{key}", OperationID: "read-note"}, note)
	madcrowhuma.Register(s.Deps, api, huma.Operation{Method: "GET", Path: "/features", OperationID: "features"}, features)
	visits := huma.Operation{Method: "POST", Path: "/visits", OperationID: "visit"}
	visits.Middlewares = huma.Middlewares{madcrowhuma.Middleware(s.Session)}
	madcrowhuma.Register(s.Deps, api, visits, func(ctx context.Context, _ *struct{}) (*output[shop.Visits], error) {
		return reply(s.Visit(ctx))
	})
	orders := huma.Operation{Method: "POST", Path: "/orders", OperationID: "order"}
	madcrowhuma.Register(s.Deps, api, madcrowhuma.Limited(orders, s.Limited), order)

	mux.Handle("GET /health/live", s.Health.Live())
	mux.Handle("GET /health/ready", s.Health.Ready())
	mux.Handle("GET /health", s.Health.Detail())
	return s.Serve(s.Deps.Problems().Recover(mux))
}

type output[T any] struct{ Body T }

func reply[T any](v T, err error) (*output[T], error) { return &output[T]{v}, err }

type articleInput struct {
	ID       string `path:"id" maxLength:"100"`
	Articles madcrowhuma.Required[*cache.Cache[shop.Article]]
}

func article(ctx context.Context, in *articleInput) (*output[shop.ReadArticle], error) {
	return reply(shop.Read(ctx, in.Articles.Get(), in.ID))
}

type noteInput struct {
	Key   string `path:"key" maxLength:"100"`
	Notes madcrowhuma.Required[*service.Service]
}

func note(ctx context.Context, in *noteInput) (*output[shop.Note], error) {
	return reply(shop.ReadNote(ctx, in.Notes.Get(), in.Key))
}

type featuresInput struct {
	Notes madcrowhuma.Optional[*service.Service]
}

func features(_ context.Context, in *featuresInput) (*output[shop.Features], error) {
	return reply(shop.Has(in.Notes.Optional), nil)
}

func order(context.Context, *struct{}) (*output[shop.Order], error) {
	return reply(shop.Order{Ordered: true}, nil)
}
