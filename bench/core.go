package main

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// corePlain is the first row of the budgets: what the core costs a call
// whose context cannot end, or ends by itself soon enough.
func corePlain(e *environment) (race, error) {
	background := func() (context.Context, func()) { return context.Background(), func() {} }
	return race{name: "core", what: "Redis.Do(GET), 128 bytes", contestants: []contestant{
		{"rueidis, background", 0, bareGet(e, e.bare, background)},
		{"rueidis with one connection, background", 0, bareGet(e, e.one, background)},
		{"madcrow, background", 0.95, madcrowGet(e, background)},
	}}, nil
}

// coreDeadline is the same under contexts that end sooner than the default.
func coreDeadline(e *environment) (race, error) {
	sooner := func() (context.Context, func()) {
		return context.WithTimeout(context.Background(), 400*time.Millisecond)
	}
	return race{name: "core-deadline", what: "Redis.Do(GET) under a context with a sooner deadline", contestants: []contestant{
		{"rueidis, sooner deadline", 0, bareGet(e, e.bare, sooner)},
		{"rueidis with one connection, sooner deadline", 0, bareGet(e, e.one, sooner)},
		{"madcrow, sooner deadline", 0.95, madcrowGet(e, sooner)},
	}}, nil
}

// coreCancellable is the second row: the context of an HTTP handler.
func coreCancellable(e *environment) (race, error) {
	handler := func() (context.Context, func()) { return context.WithCancel(context.Background()) }
	return race{name: "core-cancellable", what: "Redis.Do(GET) under a cancellable context", contestants: []contestant{
		{"rueidis, cancellable", 0, bareGet(e, e.bare, handler)},
		{"rueidis with one connection, cancellable", 0, bareGet(e, e.one, handler)},
		{"madcrow, cancellable", 0.85, madcrowGet(e, handler)},
	}}, nil
}

func bareGet(e *environment, c rueidis.Client, newContext func() (context.Context, func())) func(int) func() error {
	return func(g int) func() error {
		i := g * 37
		ctx, cancel := newContext()
		_, hasDeadline := ctx.Deadline()
		return func() error {
			i++
			ctx := ctx
			if hasDeadline {
				ctx, cancel = newContext()
				defer cancel()
			}
			return c.Do(ctx, c.B().Get().Key(e.keys[i%keys]).Build()).Error()
		}
	}
}

func madcrowGet(e *environment, newContext func() (context.Context, func())) func(int) func() error {
	return func(g int) func() error {
		i := g * 37
		ctx, cancel := newContext()
		_, hasDeadline := ctx.Deadline()
		return func() error {
			i++
			ctx := ctx
			if hasDeadline {
				ctx, cancel = newContext()
				defer cancel()
			}
			key := e.keys[i%keys]
			err := e.redis.Do(ctx, e.redis.B().Get().Key(key).Build()).Err()
			return err
		}
	}
}
