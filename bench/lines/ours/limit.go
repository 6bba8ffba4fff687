package ours

import (
	"net/http"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/ratelimit"
)

func limited(mux *http.ServeMux, redis *madcrow.Redis) {
	limit := ratelimit.LimitBy(redis, "api_action", ratelimit.PerMinute(10), ratelimit.ByClient(clientip.RemoteAddr()), madcrow.FailClosed)
	mux.Handle("POST /api/action", limit(http.HandlerFunc(action)))
}

func action(w http.ResponseWriter, _ *http.Request) {
	_ = site.Reply(w, map[string]string{"result": "done"})
}
