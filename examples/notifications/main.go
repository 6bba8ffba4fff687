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
	"log/slog"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/examples/internal/serve"
	"github.com/madcrow-go/madcrow/pubsub"
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
	bus, err := pubsub.New(r, pubsub.Options{})
	if err != nil {
		return err
	}
	defer bus.Close(context.WithoutCancel(ctx))
	handler, feed, err := newHandler(bus, log)
	if err != nil {
		return err
	}
	return serve.HTTP(ctx, log, handler, feed.Close) // otherwise Shutdown would wait for the pages
}
