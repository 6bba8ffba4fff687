package server

import (
	"context"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow/service"
)

// CacheController serves single keys.
type CacheController struct{ svc *service.Service }

type cacheKeyInput struct {
	Key string `path:"key" minLength:"1" maxLength:"255" doc:"The key; keys of sessions and limits are refused"`
}

type setCacheInput struct {
	Body struct {
		Key           string `json:"key" minLength:"1" maxLength:"255" example:"greeting"`
		Value         string `json:"value" example:"hello"`
		ExpireSeconds *int64 `json:"expire_seconds,omitempty" nullable:"true" minimum:"1" maximum:"3153600000" example:"3600" doc:"Lifetime; absent or null: none"`
	}
}

type cacheEntry struct {
	Key    string  `json:"key"`
	Value  *string `json:"value" nullable:"true" doc:"null when there is no such key"`
	Exists bool    `json:"exists"`
	TTL    *int64  `json:"ttl" nullable:"true" doc:"Seconds left; null without a lifetime"`
}

type cacheDeleted struct {
	Key     string `json:"key"`
	Deleted bool   `json:"deleted"`
	Existed bool   `json:"existed"`
	Message string `json:"message"`
}

func (c CacheController) register(g routes) {
	handle(g, route{
		method: http.MethodPost, summary: "Store a value",
		operation: "set", table: service.TableCache, errors: []int{http.StatusRequestEntityTooLarge},
	}, c.set)
	handle(g, route{
		method: http.MethodGet, path: "/{key}", summary: "Read a value",
		operation: "get", table: service.TableCache, errors: []int{http.StatusConflict},
	}, c.get)
	handle(g, route{
		method: http.MethodDelete, path: "/{key}", summary: "Remove a value",
		operation: "delete", table: service.TableCache,
	}, c.remove)
}

func (c CacheController) set(ctx context.Context, in *setCacheInput) (*cacheEntry, error) {
	b := &in.Body
	var ttl time.Duration
	if b.ExpireSeconds != nil {
		ttl = lifetime(*b.ExpireSeconds)
	}
	if err := c.svc.SetCache(ctx, b.Key, b.Value, ttl); err != nil {
		return nil, err
	}
	return &cacheEntry{Key: b.Key, Value: &b.Value, Exists: true, TTL: b.ExpireSeconds}, nil
}

func (c CacheController) get(ctx context.Context, in *cacheKeyInput) (*cacheEntry, error) {
	e, err := c.svc.GetCacheWithTTL(ctx, in.Key)
	if err != nil {
		return nil, err
	}
	out := &cacheEntry{Key: in.Key, Exists: e.Found}
	if e.Found {
		out.Value = &e.Value
	}
	if e.Found && e.TTL != service.NoLifetime {
		// Rounded as Redis' own TTL rounds, which FastAPI Madcrow shows.
		seconds := int64((e.TTL + time.Second/2) / time.Second)
		out.TTL = &seconds
	}
	return out, nil
}

func (c CacheController) remove(ctx context.Context, in *cacheKeyInput) (*cacheDeleted, error) {
	existed, err := c.svc.DeleteCache(ctx, in.Key)
	if err != nil {
		return nil, err
	}
	out := &cacheDeleted{Key: in.Key, Deleted: existed, Existed: existed, Message: "Cache key did not exist"}
	if existed {
		out.Message = "Cache key deleted successfully"
	}
	return out, nil
}
