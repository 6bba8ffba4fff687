// Command operations shows commands of one's own: many in one round trip, and a
// change that depends on what is there.
//
//	REDIS_HOST=localhost go run ./operations
//	curl -X POST http://127.0.0.1:8080/batch
//	curl -X POST http://127.0.0.1:8080/counter
package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/examples/internal/serve"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
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
	redis := inject.Value(deps, r)
	mux := http.NewServeMux()
	mux.Handle("POST /batch", inject.With(redis, batch))
	mux.Handle("POST /counter", inject.With(redis, count))
	return serve.HTTP(ctx, log, deps.Problems().Recover(mux))
}

// batch sends three commands in one round trip. A pipeline is no transaction:
// when one of them fails the others may be applied.
func batch(w http.ResponseWriter, r *http.Request, redis *madcrow.Redis) error {
	results, err := redis.DoMulti(r.Context(),
		redis.B().Set().Key("key1").Value("value1").Build(),
		redis.B().Set().Key("key2").Value("value2").Build(),
		redis.B().Expire().Key("key1").Seconds(300).Build(),
	)
	if err != nil {
		return err
	}
	return reply(w, map[string]any{"commands": len(results)})
}

func count(w http.ResponseWriter, r *http.Request, redis *madcrow.Redis) error {
	n, err := increment(r.Context(), redis, "counter")
	if err != nil {
		return err
	}
	return reply(w, map[string]any{"counter": n})
}

// increment reads and writes in a transaction. When somebody else writes in
// between it is called again; after 32 tries the error is madcrow.ErrConflict.
func increment(ctx context.Context, redis *madcrow.Redis, key string) (n int64, err error) {
	_, err = redis.Tx(ctx, []string{key}, func(tx *madcrow.Tx) error {
		now, err := tx.Do(tx.B().Get().Key(key).Build()).Message()
		if err != nil {
			return err
		}
		n = 0
		if !now.IsNil() {
			if n, err = now.AsInt64(); err != nil {
				return problem.New(http.StatusConflict, "COUNTER_INVALID", "What is there is not a number")
			}
		}
		n++
		tx.Queue(tx.B().Set().Key(key).Value(strconv.FormatInt(n, 10)).Build())
		return nil
	})
	return n, err
}

func reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
