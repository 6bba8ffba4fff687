// Command ratelimit limits an action to ten requests a minute for each client,
// over all processes that share a Redis.
//
//	REDIS_HOST=localhost go run ./ratelimit
//	curl -i -X POST http://127.0.0.1:8080/api/action
package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/examples/internal/serve"
	"github.com/madcrow-go/madcrow/ratelimit"
)

func main() { serve.Main(run) }

func run(ctx context.Context, log *slog.Logger) error {
	cfg, err := madcrow.ConfigFromEnv() // REDIS_HOST, REDIS_URL, …
	if err != nil {
		return err
	}
	cfg.Logger = log
	r, err := madcrow.Open(ctx, cfg) // returns at once, with or without a Redis
	if err != nil {
		return err
	}
	defer r.Close(context.WithoutCancel(ctx))
	handler, err := newHandler(r)
	if err != nil {
		return err
	}
	return serve.HTTP(ctx, log, handler)
}

// newHandler is the application.
func newHandler(r *madcrow.Redis) (http.Handler, error) {
	// While Redis is away this process goes on counting alone. FailOpen would
	// let everybody in then, FailClosed answer 503.
	limit, err := ratelimit.New(r, "api_action", ratelimit.Options{Rate: ratelimit.PerMinute(10), FailPolicy: madcrow.FailLocal(1)})
	if err != nil {
		return nil, err
	}
	// Right for a server that clients reach directly. Behind a proxy all would
	// be one client: see clientip.TrustedProxies.
	limited := ratelimit.Middleware(limit, ratelimit.ByClient(clientip.RemoteAddr()), ratelimit.MiddlewareOptions{})

	mux := http.NewServeMux()
	mux.Handle("POST /api/action", limited(http.HandlerFunc(action)))
	return mux, nil
}

func action(w http.ResponseWriter, r *http.Request) {
	d, _ := ratelimit.DecisionFrom(r.Context())
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"result": "done", "remaining": d.Remaining})
}
