// Command embedded works with nothing installed: where the environment names no Redis,
// there is one in the process. The other settings of the environment stay.
//
//	REDIS_KEY_PREFIX=dev: go run ./embedded
//	curl http://127.0.0.1:8080/                      # {"visits":1}
//	REDIS_HOST=localhost go run ./embedded           # the one on this machine
//	DEPLOY_ENV=PRODUCTION go run ./embedded          # refused: no Redis is named
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/contrib/embedded"
	"github.com/madcrow-go/madcrow/examples/internal/serve"
	"github.com/madcrow-go/madcrow/problem"
)

func main() { serve.Main(run) }

func run(ctx context.Context, log *slog.Logger) error {
	cfg, stop, err := embedded.ConfigFromEnv(embedded.Options{Logger: log})
	if err != nil {
		return err
	}
	defer stop() // after the Redis is closed
	r, err := madcrow.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer r.Close(context.WithoutCancel(ctx))

	return serve.HTTP(ctx, log, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		n, err := visits(req.Context(), r, cfg.KeyPrefix)
		if err != nil {
			problem.Write(w, req, log, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, "{\"visits\":%d}\n", n)
	}))
}

func visits(ctx context.Context, r *madcrow.Redis, prefix string) (int64, error) {
	msg, err := r.Do(ctx, r.B().Incr().Key(prefix+"visits").Build()).Message()
	if err != nil {
		return 0, err
	}
	return msg.ToInt64()
}
