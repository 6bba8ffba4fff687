package usual

import (
	"net/http"
	"time"

	"github.com/go-redis/cache/v9"
	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/redis/go-redis/v9"
)

func optional(mux *http.ServeMux, rdb *redis.Client) {
	records := cache.New(&cache.Options{Redis: rdb})
	mux.HandleFunc("GET /data/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		var data string
		if records.Get(r.Context(), "data:"+id, &data) == nil {
			_ = site.Reply(w, site.Data{Data: data, Source: "cache"})
			return
		}
		data, found := site.Find(id)
		if !found {
			refuse(w, http.StatusNotFound, "NOT_FOUND", "There is no such record")
			return
		}
		_ = records.Set(&cache.Item{Ctx: r.Context(), Key: "data:" + id, Value: data, TTL: 300 * time.Second}) // Redis may be away
		_ = site.Reply(w, site.Data{Data: data, Source: "database"})
	})
}
