// Command notifications shows messages to whoever looks at a page, each once,
// also to those who were away for a while: through a restart of this program, of
// Redis, or a break of the network.
//
//	REDIS_HOST=localhost go run ./notifications
//	open http://127.0.0.1:8080/?channel=orders
//	curl -X POST 'http://127.0.0.1:8080/notify/orders?message=hello'
//
// Any number of processes may share the Redis. A channel keeps its last 1,000
// messages for a day, and a page that is opened shows them first. A browser that
// comes back asks for what came after the last message it saw (Last-Event-ID);
// when that is not kept any more, the page says so.
//
// Whoever reaches the server may read and write here: see Authorize of
// sse.Options, and examples/login.
package main

import (
	"context"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/pubsub"
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
	cfg.Logger = slog.Default()
	r, err := madcrow.Open(ctx, cfg) // returns at once, with or without a Redis
	if err != nil {
		return err
	}
	defer r.Close(context.WithoutCancel(ctx))
	bus, err := pubsub.New(r, pubsub.Options{})
	if err != nil {
		return err
	}
	defer bus.Close(context.WithoutCancel(ctx))
	handler, feed, err := newHandler(bus, slog.Default())
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
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	srv.RegisterOnShutdown(feed.Close) // otherwise Shutdown would wait for the pages
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(end)
}
