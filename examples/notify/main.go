// Command notify sends messages to a channel, and listens to the channel
// "notifications" in the background.
//
//	REDIS_HOST=localhost go run ./notify
//	curl -X POST 'http://127.0.0.1:8080/notify/notifications?message=hello'
//	curl http://127.0.0.1:8080/notifications
//
// Redis keeps no messages: who is away misses them. See examples/notifications
// for those that come with a history.
package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/examples/internal/serve"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/service"
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

	svc := service.New(r, service.Options{})
	in := &inbox{log: log}
	var listening sync.WaitGroup
	listening.Go(func() { in.listen(ctx, svc) }) // until ctx ends
	defer listening.Wait()

	deps := inject.New(r, inject.Options{Logger: log})
	redis := inject.Value(deps, svc)
	mux := http.NewServeMux()
	mux.Handle("POST /notify/{channel}", inject.With(redis, notify))
	mux.Handle("GET /notifications", deps.Handler(in.show))
	return serve.HTTP(ctx, log, deps.Problems().Recover(mux))
}

func notify(w http.ResponseWriter, r *http.Request, redis *service.Service) error {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	channel, message := r.PathValue("channel"), r.FormValue("message")
	if message == "" {
		return problem.Validation(problem.FieldError{Field: "query.message", Message: "expected a text"})
	}
	n, err := redis.Publish(r.Context(), channel, message)
	if err != nil {
		return err
	}
	return reply(w, map[string]any{"channel": channel, "message": message, "subscribers": n})
}

// inbox has the last messages that came.
type inbox struct {
	log *slog.Logger

	mu   sync.Mutex
	last []string
	gaps int // how often messages may have been missed
}

// listen outlives breaks of the connection, and is notified of them.
func (in *inbox) listen(ctx context.Context, redis *service.Service) {
	for event, err := range redis.Subscribe(ctx, "notifications") {
		if err != nil { // what waiting does not mend: no permission, closed
			in.log.Error("the subscription has ended", "reason", err)
			return
		}
		switch event.Kind {
		case pubsub.EventMessage:
			in.add(event.Message)
		case pubsub.EventInterrupted, pubsub.EventDropped:
			in.missed()
		}
	}
}

func (in *inbox) add(message string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.last = append(in.last, message); len(in.last) > 100 {
		in.last = in.last[1:]
	}
}

func (in *inbox) missed() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.gaps++
}

func (in *inbox) show(w http.ResponseWriter, _ *http.Request) error {
	in.mu.Lock()
	last, gaps := append([]string{}, in.last...), in.gaps
	in.mu.Unlock()
	return reply(w, map[string]any{"messages": last, "gaps": gaps})
}

func reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
