package ours

import (
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/service"
)

func basic(mux *http.ServeMux, redis inject.Dep[*service.Service]) {
	mux.Handle("GET /cache/{key}", inject.With(redis, getCached))
	mux.Handle("POST /cache", inject.With(redis, setCached))
}

func getCached(w http.ResponseWriter, r *http.Request, redis *service.Service) error {
	value, found, err := redis.GetCache(r.Context(), r.PathValue("key"))
	if err != nil {
		return err
	}
	return site.Reply(w, site.Entry{Key: r.PathValue("key"), Value: value, Exists: found})
}

func setCached(w http.ResponseWriter, r *http.Request, redis *service.Service) error {
	key := r.FormValue("key")
	if err := redis.SetCache(r.Context(), key, r.FormValue("value"), time.Hour); err != nil {
		return err
	}
	return site.Reply(w, map[string]any{"success": true, "key": key})
}
