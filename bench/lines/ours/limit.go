package ours

import (
	"net/http"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/ratelimit"
)

func limited(mux *http.ServeMux, redis *madcrow.Redis) error {
	limit, err := ratelimit.New(redis, "api_action", ratelimit.Options{Rate: ratelimit.PerMinute(10), FailPolicy: madcrow.FailClosed})
	if err != nil {
		return err
	}
	mux.Handle("POST /api/action", ratelimit.Middleware(limit, ratelimit.ByClient(clientip.RemoteAddr()), ratelimit.MiddlewareOptions{})(http.HandlerFunc(action)))
	return nil
}

func action(w http.ResponseWriter, _ *http.Request) {
	_ = site.Reply(w, map[string]string{"result": "done"})
}
