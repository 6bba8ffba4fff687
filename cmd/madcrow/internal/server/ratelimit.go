package server

import (
	"context"
	"net/http"

	"github.com/madcrow-go/madcrow/service"
)

// limitKeyPrefix is FastAPI Madcrow's, before the caller's key.
const limitKeyPrefix = "rate_limit:"

// RateLimitController answers whether a request may pass. To be limited is an
// answer here, 200, not a refusal.
type RateLimitController struct{ svc *service.Service }

type limitInput struct {
	Body struct {
		Key           string `json:"key" minLength:"1" maxLength:"255" example:"user:1"`
		Limit         int    `json:"limit" minimum:"1" maximum:"1000000" example:"10"`
		WindowSeconds int64  `json:"window_seconds" minimum:"1" maximum:"3153600000" example:"60"`
	}
}

type limitAnswer struct {
	Key           string `json:"key"`
	IsLimited     bool   `json:"is_limited"`
	Limit         int    `json:"limit"`
	WindowSeconds int64  `json:"window_seconds"`
	CurrentCount  int    `json:"current_count" doc:"Requests in the window, this one included when it passed"`
}

func (c RateLimitController) register(g routes) {
	handle(g, route{
		method: http.MethodPost, path: "/check", summary: "Count a request and say whether it is over the limit",
		operation: "check", table: service.TableRateLimits, errors: []int{http.StatusConflict},
	}, c.check)
}

func (c RateLimitController) check(ctx context.Context, in *limitInput) (*limitAnswer, error) {
	b := &in.Body
	d, err := c.svc.CheckRateLimit(ctx, limitKeyPrefix+b.Key, b.Limit, lifetime(b.WindowSeconds))
	if err != nil {
		return nil, err
	}
	return &limitAnswer{b.Key, !d.Allowed, b.Limit, b.WindowSeconds, d.Count}, nil
}
