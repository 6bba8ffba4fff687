// Package usual is the six usage examples with go-redis, scs, redis_rate and
// go-redis/cache, and as much of what Madcrow does on a failure as they offer.
package usual

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/redis/go-redis/v9"
)

// Open connects with the Redis of the environment, and makes the application.
func Open(ctx context.Context, heard *site.Heard) (h http.Handler, end func(), err error) {
	opt, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	if err != nil {
		return nil, nil, err
	}
	// Otherwise a frozen Redis holds a request for many seconds.
	opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout, opt.PoolTimeout = time.Second/2, time.Second/2, time.Second/2, time.Second/2
	opt.MaxRetries, opt.DialerRetries = -1, 1
	opt.ContextTimeoutEnabled = true
	rdb := redis.NewClient(opt)
	end = func() { _ = rdb.Close() }
	mux := http.NewServeMux()
	basic(mux, rdb)
	optional(mux, rdb)
	notify(mux, rdb)
	limited(mux, rdb)
	sessions(mux, rdb)
	go subscribe(ctx, rdb, heard)
	return mux, end, nil
}

func fail(w http.ResponseWriter, r *http.Request, err error) {
	slog.ErrorContext(r.Context(), "Redis failed", "path", r.URL.Path, "reason", err)
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		refuse(w, http.StatusConflict, "REDIS_WRONG_TYPE", "Other data is there")
		return
	}
	w.Header().Set("Retry-After", "1")
	refuse(w, http.StatusServiceUnavailable, "REDIS_UNAVAILABLE", "Redis is not available")
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "error": true, "code": code, "message": message})
}
