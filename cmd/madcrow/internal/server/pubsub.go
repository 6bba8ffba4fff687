package server

import (
	"context"
	"errors"
	"net/http"
	"unicode/utf8"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/service"
	"github.com/madcrow-go/madcrow/sse"
)

// PubSubController publishes messages, and shows them as they come.
type PubSubController struct {
	svc    *service.Service
	events *sse.Handler
}

type publishInput struct {
	Channel string `path:"channel" minLength:"1" maxLength:"1024" doc:"The channel; those that begin with __ or m1: are refused"`
	Message string `query:"message" required:"true" minLength:"1"`
}

type published struct {
	Channel         string `json:"channel"`
	Message         string `json:"message"`
	SubscriberCount int64  `json:"subscriber_count"`
	Published       bool   `json:"published"`
}

type subscribeInput struct {
	Channel string `path:"channel" minLength:"1" maxLength:"1024" doc:"The channel; those that begin with __ or m1: are refused"`
}

// aboutEvents is the documentation of the stream.
const aboutEvents = "Server-sent events until the client leaves: a message of the channel has its text as data and no name. " +
	"Named events tell the state, with JSON as data: subscribed (what is published from now on comes), interrupted (messages do not come " +
	"at the moment), gap (they come again, those between since and until did not), dropped (n were dropped, since this client was too slow). " +
	"A comment comes every 15 seconds without an event."

func (c PubSubController) register(g routes) {
	handle(g, route{
		method: http.MethodPost, path: "/publish/{channel}", summary: "Publish a message",
		operation: "publish", table: service.TablePubSub,
	}, c.publish)
	stream[subscribeInput](g, route{
		method: http.MethodGet, path: "/subscribe/{channel}", summary: "Follow a channel: its messages as server-sent events",
		operation: "subscribe", table: service.TablePubSub,
	}, aboutEvents, c.events)
}

func (c PubSubController) publish(ctx context.Context, in *publishInput) (*published, error) {
	if !utf8.ValidString(in.Message) {
		return nil, problem.Validation(problem.FieldError{Field: "query.message", Message: "expected Unicode text"})
	}
	n, err := c.svc.Publish(ctx, in.Channel, in.Message)
	if err != nil {
		return nil, err
	}
	return &published{in.Channel, in.Message, n, true}, nil
}

// newEvents makes what serves the channel that a request names. Its bus has
// nothing running without listeners, so the end of those is its own.
func (s *Server) newEvents() (*sse.Handler, error) {
	bus, err := pubsub.New(s.opt.Redis, pubsub.Options{Logger: s.opt.Logger})
	if err != nil {
		return nil, err
	}
	return sse.NewFunc(func(r *http.Request) (sse.Source[string], error) {
		return pubsub.NewTopics(bus, []string{r.PathValue("channel")}, pubsub.TopicOptions[string]{Plain: true})
	}, sse.Options[string]{
		Logger: s.opt.Logger,
		Refuse: func(w http.ResponseWriter, r *http.Request, err error) {
			var e *madcrow.Error
			if errors.As(err, &e) { // in the words of the other routes
				err = service.Failed("subscribe", service.TablePubSub, e.Err)
			}
			s.fail(w, r, err)
		},
	})
}
