package ours

import (
	"net/http"

	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/service"
)

func notify(mux *http.ServeMux, redis inject.Dep[*service.Service]) {
	mux.Handle("POST /notify/{channel}", inject.With(redis, send))
}

func send(w http.ResponseWriter, r *http.Request, redis *service.Service) error {
	channel, message := r.PathValue("channel"), r.FormValue("message")
	n, err := redis.Publish(r.Context(), channel, message)
	if err != nil {
		return err
	}
	return site.Reply(w, map[string]any{"channel": channel, "message": message, "subscribers": n})
}
