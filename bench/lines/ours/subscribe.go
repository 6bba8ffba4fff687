package ours

import (
	"context"
	"log/slog"

	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/service"
)

func subscribe(ctx context.Context, redis *service.Service, heard *site.Heard) {
	for event, err := range redis.Subscribe(ctx, "notifications") {
		switch {
		case err != nil:
			slog.Error("the subscription has ended", "reason", err)
		case event.Kind == pubsub.EventMessage:
			heard.Add(event.Message)
		}
	}
}
