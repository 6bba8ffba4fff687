package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/service"
)

// dataLifetime is how long a record stays in the cache.
const dataLifetime = 300 * time.Second

// DataController shows an optional Redis: it caches when it can, and answers
// from the source when it cannot.
type DataController struct {
	svc *service.Service
	log *slog.Logger
}

type dataInput struct {
	ID string `path:"id" minLength:"1" maxLength:"250"`
}

type dataAnswer struct {
	Data   string `json:"data"`
	Source string `json:"source" enum:"cache,database"`
}

func (c DataController) register(g routes) {
	handle(g, route{
		method: http.MethodGet, path: "/{id}", summary: "Read a record, from the cache where possible; works without Redis",
		errors: []int{http.StatusInternalServerError},
	}, c.get)
}

func (c DataController) get(ctx context.Context, in *dataInput) (*dataAnswer, error) {
	key := "data:" + in.ID
	cached := c.svc.Available()
	if cached {
		value, found, err := c.svc.GetCache(ctx, key)
		if found {
			return &dataAnswer{value, "cache"}, nil
		}
		var refused *madcrow.ArgumentError
		switch {
		case errors.As(err, &refused): // the cache does not take such a key
			cached = false
		case err != nil:
			c.log.WarnContext(ctx, "the cache was left out", slog.String("cause", err.Error()))
			cached = false // what just failed would only cost time again
		}
	}
	data := record(in.ID)
	if cached {
		if err := c.svc.SetCache(ctx, key, data, dataLifetime); err != nil {
			c.log.WarnContext(ctx, "the cache was left out", slog.String("cause", err.Error()))
		}
	}
	return &dataAnswer{data, "database"}, nil
}

// record stands for a database.
func record(id string) string { return "Record " + id }
