// Command health says how the process, its Redis and its database are. Nothing
// is asked when the question comes: all is watched in the background.
//
//	REDIS_HOST=localhost DATABASE=records.db go run ./health
//	curl http://127.0.0.1:8080/health/live     # 200: the process serves
//	curl http://127.0.0.1:8080/health/ready    # 200, or 503: send requests elsewhere
//	curl http://127.0.0.1:8080/health          # 200: what is the matter?
package main

import (
	"context"
	"database/sql"
	"log/slog"
	"net/http"
	"os"
	"time"

	_ "modernc.org/sqlite" // pure Go: no cgo

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/examples/internal/serve"
	"github.com/madcrow-go/madcrow/health"
)

func main() { serve.Main(run) }

func run(ctx context.Context, log *slog.Logger) error {
	db, err := sql.Open("sqlite", os.Getenv("DATABASE"))
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS records (id TEXT PRIMARY KEY)`); err != nil {
		return err
	}

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

	monitor, err := health.New(r, health.Options{
		Draining: func() bool { return ctx.Err() != nil },
		Checks: []health.Check{{
			Name: "database", Optional: true, Every: time.Second, // the cache answers meanwhile
			Run: func(ctx context.Context) error {
				return db.QueryRowContext(ctx, `SELECT count(*) FROM records`).Scan(new(int))
			},
		}},
	})
	if err != nil {
		return err
	}
	defer monitor.Close(context.WithoutCancel(ctx))

	mux := http.NewServeMux()
	mux.Handle("GET /health/live", monitor.Live())
	mux.Handle("GET /health/ready", monitor.Ready())
	mux.Handle("GET /health", monitor.Detail())
	return serve.HTTP(ctx, log, mux)
}
