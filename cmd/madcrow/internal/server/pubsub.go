package server

import (
	"context"
	"net/http"

	"github.com/madcrow-go/madcrow/service"
)

// PubSubController publishes messages.
type PubSubController struct{ svc *service.Service }

type publishInput struct {
	Channel string `path:"channel" minLength:"1"`
	Message string `query:"message" required:"true" minLength:"1"`
}

type published struct {
	Channel         string `json:"channel"`
	Message         string `json:"message"`
	SubscriberCount int64  `json:"subscriber_count"`
	Published       bool   `json:"published"`
}

func (c PubSubController) register(g routes) {
	handle(g, route{
		method: http.MethodPost, path: "/publish/{channel}", summary: "Publish a message",
		operation: "publish", table: service.TablePubSub,
	}, c.publish)
}

func (c PubSubController) publish(ctx context.Context, in *publishInput) (*published, error) {
	n, err := c.svc.Publish(ctx, in.Channel, in.Message)
	if err != nil {
		return nil, err
	}
	return &published{in.Channel, in.Message, n, true}, nil
}
