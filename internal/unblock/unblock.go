// Package unblock lets a caller end a command that waits in Redis without
// closing its connection: what Redis had to give in that moment is not lost.
package unblock

import "context"

type key struct{}

// When returns a context for a blocking command of the core. When stop ends, the
// command is ended in Redis (CLIENT UNBLOCK) and returns what it has: nothing, or
// the value that it was given just then. The end of ctx itself closes the
// connection, as without this. Where the server does not know CLIENT ID, or the
// user may not, the command waits to its end.
func When(ctx, stop context.Context) context.Context {
	return context.WithValue(ctx, key{}, stop)
}

// From returns the context whose end unblocks the command of ctx; nil: none does.
func From(ctx context.Context) context.Context {
	stop, _ := ctx.Value(key{}).(context.Context)
	return stop
}
