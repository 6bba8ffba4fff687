package pubsub

import (
	"context"
	"iter"

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

// Events is [Pattern.Subscribe]; after has no meaning without a history.
func (p *Pattern[T]) Events(ctx context.Context, _ Position, opts ...SubscribeOption) iter.Seq2[Event[T], error] {
	return p.Subscribe(ctx, opts...)
}

// Events is [Recoverable.Subscribe].
func (t *Recoverable[T]) Events(ctx context.Context, after Position, opts ...SubscribeOption) iter.Seq2[Event[T], error] {
	return t.Subscribe(ctx, after, opts...)
}

// Redis returns the Redis of the topic's bus.
func (t *Topic[T]) Redis() *madcrow.Redis { return t.b.r }

// Redis returns the Redis of the topics' bus.
func (t *Topics[T]) Redis() *madcrow.Redis { return t.b.r }

// Redis returns the Redis of the pattern's bus.
func (p *Pattern[T]) Redis() *madcrow.Redis { return p.b.r }

// Redis returns the Redis of the topic's bus.
func (t *Recoverable[T]) Redis() *madcrow.Redis { return t.b.r }
