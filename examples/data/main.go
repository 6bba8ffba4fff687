// Command data reads records from a database, through a cache where it can: it
// starts and answers without Redis too, only slower.
//
//	REDIS_HOST=localhost go run ./data
//	curl http://127.0.0.1:8080/data/1                                  # "source":"database"
//	curl http://127.0.0.1:8080/data/1                                  # "source":"cache"
//	curl -X PUT -d '{"data":"new"}' http://127.0.0.1:8080/data/1
//
// DATABASE names the file of the database; without it the records are in memory
// and gone at the end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/examples/internal/serve"
	"github.com/madcrow-go/madcrow/problem"
)

func main() { serve.Main(run) }

func run(ctx context.Context, log *slog.Logger) error {
	records, err := openRecords(ctx, os.Getenv("DATABASE"))
	if err != nil {
		return err
	}
	defer records.Close()

	cfg, err := madcrow.ConfigFromEnv() // REDIS_HOST, REDIS_URL, …
	if err != nil {
		return err
	}
	cfg.Logger = log
	r, err := madcrow.Open(ctx, cfg) // returns at once, with or without a Redis
	if err != nil {
		return err
	}
	end := context.WithoutCancel(ctx)
	defer r.Close(end)
	cached, err := cache.New(r, "data", cache.Options[string]{TTL: 300 * time.Second})
	if err != nil {
		return err
	}
	defer cached.Close(end) // before the Redis

	app := &app{records, cached, log}
	return serve.HTTP(ctx, log, app.handler())
}

type app struct {
	records *records
	cached  *cache.Cache[string]
	log     *slog.Logger
}

func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /data/{id}", a.get)
	mux.HandleFunc("PUT /data/{id}", a.put)
	return problem.Recover(a.log)(mux)
}

type answer struct {
	Data   string `json:"data"`
	Source string `json:"source"` // "cache" or "database"
}

// get asks the cache, and the database where the cache has nothing or cannot be
// asked. Of many requests for one record at a time, one asks the database.
func (a *app) get(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	res, err := a.cached.GetOrLoadWith(r.Context(), id, func(ctx context.Context, _ *cache.Load[string]) (string, error) {
		return a.records.find(ctx, id) // cache.ErrNotFound where there is none
	})
	if err != nil {
		problem.Write(w, r, a.log, err) // 404 for what is not there
		return
	}
	out := answer{res.Value, "cache"}
	if res.Source == cache.SourceLoad {
		out.Source = "database"
	}
	reply(w, out)
}

// put changes the database, then removes what is cached.
func (a *app) put(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Data *string `json:"data"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in)
	if err != nil || in.Data == nil {
		problem.Write(w, r, a.log, problem.Validation(problem.FieldError{Field: "body.data", Message: "expected a string"}))
		return
	}
	// A client that goes away now must not keep the cache from hearing of it.
	ctx := context.WithoutCancel(r.Context())
	if err := a.records.store(ctx, r.PathValue("id"), *in.Data); err != nil {
		problem.Write(w, r, a.log, err)
		return
	}
	err = a.cached.Delete(ctx, r.PathValue("id"))
	if err != nil && !errors.Is(err, cache.ErrQueued) { // queued: it is sent when Redis is back
		a.log.WarnContext(ctx, "an old value may be served until it expires", "reason", err)
	}
	reply(w, answer{*in.Data, "database"})
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error is the client's, which is gone
}
