package httpcache

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/sealed"
)

// Cache caches the responses of HTTP handlers. Make it with [New]; it is safe for
// concurrent use.
type Cache struct {
	engine  cache.Engine[*storedResponse]
	r       *madcrow.Redis
	log     *slog.Logger
	panics  guard.Said // places of panics that are in the log
	opt     Options
	taggers atomic.Bool // handlers give tags by header
	codings codings
}

// New makes a cache of responses. name is as for [cache.New]; that of a
// [cache.Cache] on r is an error, as the entries differ. All that is wrong with the
// options is in one [*madcrow.ArgumentError]. Redis is not asked. Close the cache when
// it is not needed any more, after the server and before the Redis.
func New(r *madcrow.Redis, name string, options Options) (*Cache, error) {
	opt, err := options.filled(r, name)
	if err != nil {
		return nil, err
	}
	e, err := cache.NewEngine(sealed.Key{}, r, name, cache.Options[*storedResponse]{
		Codec: codec{},
		// Each response says for itself how long it lives. The longest life is
		// that which its tags must have.
		TTL: opt.MaxTTL, StaleTTL: opt.MaxStale, NegativeTTL: -1,
		Logger:         opt.Logger,
		NearCacheBytes: opt.NearCacheBytes, ReadTimeout: opt.ReadTimeout, LoadTimeout: opt.LoadTimeout, LeaseTTL: opt.LeaseTTL, MaxLoads: opt.MaxLoads,
	}, urlTag)
	if err != nil {
		return nil, err
	}
	return &Cache{engine: e, r: r, log: opt.Logger, opt: opt}, nil
}

// Middleware caches the responses of next. It belongs inside of what every
// request needs (limits, logins, compression by Accept-Encoding) and outside of
// what makes the response. The rules are in the documentation of the package.
func (h *Cache) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			h.get(w, r, next)
		case http.MethodOptions, http.MethodTrace:
			h.forward(w, r, next, "fwd=method")
		default:
			h.change(w, r, next)
		}
	})
}

// Close is [cache.Cache.Close]. Requests go to the handler after it.
func (h *Cache) Close(ctx context.Context) error { return h.engine.Close(ctx) }
