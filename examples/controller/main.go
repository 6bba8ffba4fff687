// Command controller reads and writes cached values: one resource, its routes
// beside its methods, with a Redis that it cannot do without.
//
//	REDIS_HOST=localhost go run ./controller
//	curl -X POST -d key=greeting -d value=hello http://127.0.0.1:8080/cache
//	curl http://127.0.0.1:8080/cache/greeting
package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/examples/internal/serve"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
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

	deps := inject.New(r, inject.Options{Logger: log})
	return serve.HTTP(ctx, log, newHandler(deps, inject.Value(deps, service.New(r, service.Options{}))))
}

// newHandler is the application.
func newHandler(deps *inject.Set, redis inject.Dep[*service.Service]) http.Handler {
	mux := http.NewServeMux()
	inject.Mount(mux, "/cache", values{redis})
	return deps.Problems().Recover(mux)
}

// values is the resource.
type values struct{ redis inject.Dep[*service.Service] }

func (v values) Routes(g *inject.Routes) {
	g.Handle("GET /{key}", inject.With(v.redis, v.get))
	g.Handle("POST", inject.With(v.redis, v.set))
}

type value struct {
	Key    string  `json:"key"`
	Value  *string `json:"value"` // null where there is none
	Exists bool    `json:"exists"`
}

func (values) get(w http.ResponseWriter, r *http.Request, redis *service.Service) error {
	out := value{Key: r.PathValue("key")}
	text, found, err := redis.GetCache(r.Context(), out.Key)
	if err != nil {
		return err
	}
	if found {
		out.Value, out.Exists = &text, true
	}
	return reply(w, out)
}

func (values) set(w http.ResponseWriter, r *http.Request, redis *service.Service) error {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	key, value, seconds := r.FormValue("key"), r.FormValue("value"), int64(3600)
	if !r.Form.Has("value") { // or the body is too large
		return problem.Validation(problem.FieldError{Field: "value", Message: "expected a text, in a form of 1 MiB at most"})
	}
	if text := r.FormValue("expire_seconds"); text != "" {
		var err error
		if seconds, err = strconv.ParseInt(text, 10, 64); err != nil || seconds < 1 || seconds > 100*365*24*3600 {
			return problem.Validation(problem.FieldError{Field: "expire_seconds", Message: "expected a number from 1 to 3153600000, which is 100 years"})
		}
	}
	if err := redis.SetCache(r.Context(), key, value, time.Duration(seconds)*time.Second); err != nil {
		return err
	}
	return reply(w, map[string]any{"success": true, "key": key})
}

func reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
