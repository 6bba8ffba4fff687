package stream

import (
	"context"
	"time"
)

// WithSweep changes how often consumers of crashed processes are removed, and how
// long they must have been idle.
func WithSweep(o WorkOptions, every, idle time.Duration) WorkOptions {
	o.sweepEvery, o.consumerIdle = every, idle
	return o
}

// Heartbeat renews messages as a worker of the group that has them under way.
func Heartbeat[T any](ctx context.Context, s *Stream[T], group string, ids []string) error {
	c := &consumer[T]{s: s, group: group, name: "of-a-test", held: map[string]bool{}}
	for _, id := range ids {
		c.held[id] = false
	}
	return c.heartbeat(ctx)
}
