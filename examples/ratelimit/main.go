// Command ratelimit limits an action to ten requests a minute for each client,
// over all processes that share a Redis.
//
//	REDIS_HOST=localhost go run ./ratelimit
//	curl -i -X POST http://127.0.0.1:8080/api/action
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/ratelimit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	cfg, err := madcrow.ConfigFromEnv() // REDIS_HOST, REDIS_URL, …
	if err != nil {
		return err
	}
	r, err := madcrow.Open(ctx, cfg) // returns at once, with or without a Redis
	if err != nil {
		return err
	}
	defer r.Close(context.WithoutCancel(ctx))
	handler, err := newHandler(r)
	if err != nil {
		return err
	}

	addr := os.Getenv("ADDR")
	if addr == "" {
		addr = "127.0.0.1:8080"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	log.Print("listening on http://", ln.Addr())
	srv := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(end) // requests in flight are finished
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
