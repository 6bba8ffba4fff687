package madcrow

import (
	"context"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// Do sends one command and returns its reply. An absent value is msg.IsNil()
// and no error; every error is an [*Error].
//
// It returns by ctx's deadline or Config.CommandTimeout, whichever is sooner,
// and within 5 ms of a cancellation; when Redis is known to be away it fails
// in under a millisecond. build is called for each try: once, and again after
// a refusal that surely changed nothing (LOADING, BUSY, a connection that was
// not open) or, for reads and commands marked ToRetryable(), after a broken
// connection. It must give the same command each time, and must not keep it.
//
// A command of Config.BulkThreshold bytes or more, or one that blocks, travels
// on a connection of its own. Commands that change the connection, such as
// SELECT, WATCH, MULTI or MONITOR, are refused: others share it.
func (r *Redis) Do(ctx context.Context, build func(Builder) Command) (Message, error) {
	start := clock.Now()
	bounded, cc := r.deadlines.Enter(ctx, start)
	defer r.deadlines.Leave(cc)
	msg, op, tries, err := r.do(bounded, build)
	if r.rec != nil {
		r.record(ctx, op, 1, start, tries, err)
	}
	if err != nil {
		return msg, publicError(err)
	}
	return msg, nil
}

func (r *Redis) do(ctx context.Context, build func(Builder) Command) (msg Message, op string, tries int, e *fault.Error) {
	c := topology.Route{Topology: r.topology}
	for again := true; again; {
		msg, op, again, e = r.try(ctx, &c, build(r.builder), false)
	}
	return msg, op, c.Tries, e
}

// try sends one command once. again says to build it again and to try it again.
// dedicated gives it a connection of its own; then a command that waits in Redis is
// not repeated after a broken connection.
func (r *Redis) try(ctx context.Context, c *topology.Route, cmd Command, dedicated bool) (msg Message, op string, again bool, e *fault.Error) {
	args := cmd.Commands()
	op = args[0]
	idem := fault.IdempotencyOf(cmd)
	size := topology.CommandSize(args)
	kind := topology.ClassOf(args)
	switch {
	case kind > topology.ClassBlocks:
		return msg, op, false, topology.NotAllowed(op, topology.ErrState)
	case size > r.cfg.MaxValueSize:
		return msg, op, false, topology.TooLarge(op, size, r.cfg.MaxValueSize)
	}
	to, e := c.Pick(ctx, cmd.Slot())
	if e != nil {
		return msg, op, false, e.For(op)
	}
	blocks := kind != topology.ClassPlain || cmd.IsBlock()
	var failed error
	if dedicated || blocks || size >= r.cfg.BulkThreshold {
		if dedicated && blocks {
			idem = fault.NonIdempotent
		}
		msg, failed = to.Node.DoDedicated(ctx, cmd, to.Asking).ToMessage()
	} else if s, err := to.Node.Enter(ctx); err != nil {
		again, e = c.RetryUnsent(ctx, to.Node, op, err)
		return msg, op, again, e
	} else {
		msg, failed = s.Do(ctx, cmd, to.Asking).ToMessage()
	}
	if failed == nil || failed == rueidis.Nil { //nolint:errorlint // the client's own value
		return msg, op, false, nil
	}
	again, e = c.Retry(ctx, to.Node, op, failed, idem)
	return Message{}, op, again, e
}

func (r *Redis) record(ctx context.Context, op string, commands int, start int64, retries int, err *fault.Error) {
	kind := Kind(0)
	if err != nil {
		kind = Kind(err.Kind)
	}
	r.recordKind(ctx, op, commands, start, retries, kind)
}

func (r *Redis) recordKind(ctx context.Context, op string, commands int, start int64, retries int, kind Kind) {
	r.rec.Operation(ctx, Operation{Name: op, Commands: commands, Duration: time.Duration(clock.Now() - start), Retries: retries, Kind: kind})
}
