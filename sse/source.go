package sse

import (
	"context"
	"iter"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/pubsub"
)

// Source is where a [Handler] has its messages from: a [*pubsub.Recoverable], a
// [*pubsub.Topic] or a [*pubsub.Topics].
type Source[T any] interface {
	// Events yields the messages after a position and the events between them,
	// until ctx ends. Without a history the position has no meaning. An error is
	// the last thing that it yields.
	Events(ctx context.Context, after pubsub.Position, opts ...pubsub.SubscribeOption) iter.Seq2[pubsub.Event[T], error]
	// Name is the topic's, for the log and for events.
	Name() string
	// Redis has the recorder and the logger.
	Redis() *madcrow.Redis
}
