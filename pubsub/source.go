package pubsub

import (
	"context"
	"iter"
	"strings"

	"github.com/madcrow-go/madcrow"
)

// Events is [Topic.Subscribe]; after has no meaning without a history. With
// Redis it makes the topic a source of package sse, as it does for the other
// kinds of topics.
func (t *Topic[T]) Events(ctx context.Context, _ Position, opts ...SubscribeOption) iter.Seq2[Event[T], error] {
	return t.Subscribe(ctx, opts...)
}

// Events is [Topics.Subscribe]; after has no meaning without a history.
func (t *Topics[T]) Events(ctx context.Context, _ Position, opts ...SubscribeOption) iter.Seq2[Event[T], error] {
	return t.Subscribe(ctx, opts...)
}

// Events is [Recoverable.Subscribe].
func (t *Recoverable[T]) Events(ctx context.Context, after Position, opts ...SubscribeOption) iter.Seq2[Event[T], error] {
	return t.Subscribe(ctx, after, opts...)
}

// Redis returns the Redis of the topic's bus.
func (t *Topic[T]) Redis() *madcrow.Redis { return t.b.r }

// Redis returns the Redis of the topics' bus.
func (t *Topics[T]) Redis() *madcrow.Redis { return t.b.r }

// Redis returns the Redis of the topic's bus.
func (t *Recoverable[T]) Redis() *madcrow.Redis { return t.b.r }

// Name is the name of the channel.
func (t *Topic[T]) Name() string { return t.name }

// Name is the names of the channels or patterns, with commas between them.
func (t *Topics[T]) Name() string {
	names := make([]string, len(t.keys))
	for i, key := range t.keys {
		names[i] = key.name(t.b)
	}
	return strings.Join(names, ",")
}

// Name is the name of the topic.
func (t *Recoverable[T]) Name() string { return t.name }
