// Command errors shows how errors become answers: those of Redis, the program's
// own, and panics.
//
//	REDIS_HOST=localhost go run ./errors
//	curl http://127.0.0.1:8080/cache/greeting
//	curl -X POST http://127.0.0.1:8080/orders -d article=lamp -d pieces=9
//
// Each answer has an error_id, under which the log has the cause. With
// DEBUG=true the cause is in the answer too: never where strangers can ask.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
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

	deps := inject.New(r, inject.Options{Logger: log, Rules: rules, Debug: os.Getenv("DEBUG") == "true"})
	redis := inject.Value(deps, service.New(r, service.Options{}))
	mux := http.NewServeMux()
	mux.Handle("GET /cache/{key}", inject.With(redis, read))
	mux.Handle("POST /orders", deps.Handler(order))
	return serve.HTTP(ctx, log, deps.Problems().Recover(mux))
}

// read has no word about errors: each of them knows its status, its code, and
// whether to try again.
func read(w http.ResponseWriter, r *http.Request, redis *service.Service) error {
	value, found, err := redis.GetCache(r.Context(), r.PathValue("key"))
	if err != nil {
		return fmt.Errorf("failed to retrieve cached data: %w", err)
	}
	if !found {
		return errNoData
	}
	return reply(w, map[string]string{"key": r.PathValue("key"), "value": value})
}

// errNoData is an error of the program itself, which knows nothing of HTTP.
var errNoData = errors.New("there is no such data")

type stockError struct {
	article string
	left    int
}

func (e *stockError) Error() string { return fmt.Sprintf("%d of %s are left", e.left, e.article) }

// rules say what they are to a caller.
var rules = []problem.Rule{
	problem.Is(errNoData, problem.Problem{Status: http.StatusNotFound, Message: "There is no such data"}),
	problem.As(func(e *stockError) problem.Problem {
		return problem.Problem{
			Status: http.StatusConflict, Code: "OUT_OF_STOCK", Message: fmt.Sprintf("Only %d are left", e.left),
			RetryAfter: time.Hour,
		}
	}),
}

var stock = map[string]int{"lamp": 3, "chair": 20}

func order(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	article := r.FormValue("article")
	pieces, err := strconv.Atoi(r.FormValue("pieces"))
	var wrong []problem.FieldError
	if article == "" {
		wrong = append(wrong, problem.FieldError{Field: "article", Message: "expected a name"})
	}
	if err != nil || pieces < 0 {
		wrong = append(wrong, problem.FieldError{Field: "pieces", Message: "expected a number >= 0"})
	}
	if len(wrong) > 0 {
		return problem.Validation(wrong...)
	}
	if left := stock[article]; pieces > left {
		return &stockError{article, left}
	}
	// 0 pieces were forgotten: a panic is a 500, and the program goes on.
	return reply(w, map[string]int{"pieces": pieces, "grams_each": 1000 / pieces})
}

func reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
