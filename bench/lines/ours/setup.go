// Package ours is the six usage examples with Madcrow. Package usual beside it is
// the same with go-redis and the usual libraries.
package ours

import (
	"context"
	"net/http"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/service"
)

// Open connects with the Redis of the environment, and makes the application.
func Open(ctx context.Context, heard *site.Heard) (h http.Handler, end func(), err error) {
	cfg, err := madcrow.ConfigFromEnv()
	if err != nil {
		return nil, nil, err
	}
	r, err := madcrow.Open(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	end = func() { _ = r.Close(context.WithoutCancel(ctx)) }
	deps := inject.New(r, inject.Options{Logger: cfg.Logger})
	svc := service.New(r, service.Options{})
	redis := inject.Value(deps, svc)
	mux := http.NewServeMux()
	basic(mux, redis)
	notify(mux, redis)
	go subscribe(ctx, svc, heard)
	optional(mux, deps, r)
	sessions(mux, deps, r)
	limited(mux, r)
	return deps.Problems().Recover(mux), end, nil
}
