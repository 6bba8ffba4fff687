package usual

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/redis/go-redis/v9"
)

func basic(mux *http.ServeMux, rdb *redis.Client) {
	mux.HandleFunc("GET /cache/{key}", func(w http.ResponseWriter, r *http.Request) {
		value, err := rdb.Get(r.Context(), r.PathValue("key")).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			fail(w, r, err)
			return
		}
		_ = site.Reply(w, site.Entry{Key: r.PathValue("key"), Value: value, Exists: err == nil})
	})
	mux.HandleFunc("POST /cache", func(w http.ResponseWriter, r *http.Request) {
		key := r.FormValue("key")
		if key == "" {
			refuse(w, http.StatusUnprocessableEntity, "VALIDATION_ERROR", "The key is empty")
			return
		}
		if err := rdb.Set(r.Context(), key, r.FormValue("value"), time.Hour).Err(); err != nil {
			fail(w, r, err)
			return
		}
		_ = site.Reply(w, map[string]any{"success": true, "key": key})
	})
}
