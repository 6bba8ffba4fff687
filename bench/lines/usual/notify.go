package usual

import (
	"net/http"

	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/redis/go-redis/v9"
)

func notify(mux *http.ServeMux, rdb *redis.Client) {
	mux.HandleFunc("POST /notify/{channel}", func(w http.ResponseWriter, r *http.Request) {
		channel, message := r.PathValue("channel"), r.FormValue("message")
		n, err := rdb.Publish(r.Context(), channel, message).Result()
		if err != nil {
			fail(w, r, err)
			return
		}
		_ = site.Reply(w, map[string]any{"channel": channel, "message": message, "subscribers": n})
	})
}
