package usual

import (
	"math"
	"net"
	"net/http"
	"strconv"

	"github.com/go-redis/redis_rate/v10"
	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/redis/go-redis/v9"
)

func limited(mux *http.ServeMux, rdb *redis.Client) {
	limiter := redis_rate.NewLimiter(rdb)
	mux.HandleFunc("POST /api/action", func(w http.ResponseWriter, r *http.Request) {
		client, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			fail(w, r, err)
			return
		}
		res, err := limiter.Allow(r.Context(), "api_action:"+client, redis_rate.PerMinute(10))
		if err != nil {
			fail(w, r, err)
			return
		}
		if res.Allowed == 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(res.RetryAfter.Seconds()))))
			refuse(w, http.StatusTooManyRequests, "QUOTA_EXCEEDED", "Rate limit exceeded. Try again later")
			return
		}
		_ = site.Reply(w, map[string]string{"result": "done"})
	})
}
