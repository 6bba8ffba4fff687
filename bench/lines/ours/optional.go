package ours

import (
	"context"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/inject"
)

func optional(mux *http.ServeMux, deps *inject.Set, redis *madcrow.Redis) {
	records := madcrow.Must(cache.New(redis, "data", cache.Options[string]{TTL: 300 * time.Second}))
	mux.Handle("GET /data/{id}", deps.Handler(func(w http.ResponseWriter, r *http.Request) error {
		id := r.PathValue("id")
		res, err := records.GetOrLoadWith(r.Context(), id, func(context.Context, *cache.Load[string]) (string, error) {
			if data, found := site.Find(id); found {
				return data, nil
			}
			return "", cache.ErrNotFound
		})
		if err != nil {
			return err
		}
		source := "cache"
		if res.Source == cache.SourceLoad {
			source = "database"
		}
		return site.Reply(w, site.Data{Data: res.Value, Source: source})
	}))
}
