package madcrow

import (
	"context"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// Result is the outcome of one command of a pipeline.
type Result struct {
	// Message is the reply; an absent value is Message.IsNil().
	Message Message
	// Err is an [*Error], or nil.
	Err error
}

// DoMulti sends all commands in one round trip and returns their results in
// order. The error is that of the first command that failed, nil when none
// did; the others may have been applied all the same: a pipeline is no
// transaction. Deadlines, retries and sizes are those of [Redis.Do]; the whole
// pipeline is tried again only when that is harmless for each of its commands.
func (r *Redis) DoMulti(ctx context.Context, build func(Builder) []Command) ([]Result, error) {
	start := clock.Now()
	bounded, cc := r.deadlines.Enter(ctx, start)
	defer r.deadlines.Leave(cc)
	results, tries, err := r.doMulti(bounded, build)
	if r.rec != nil {
		r.record(ctx, "PIPELINE", len(results), start, tries, err)
	}
	if err != nil {
		return results, publicError(err)
	}
	return results, nil
}

func (r *Redis) doMulti(ctx context.Context, build func(Builder) []Command) (out []Result, tries int, e *fault.Error) {
	if r.topology.Clustered() {
		return r.doMultiCluster(ctx, build)
	}
	c := topology.Route{Topology: r.topology}
	var space [topology.FewCommands]topology.Step
	for {
		cmds := build(r.builder)
		if len(cmds) == 0 {
			return nil, c.Tries, nil
		}
		p, err := topology.Inspect(cmds, r.cfg.MaxValueSize, space[:])
		if err != nil {
			return nil, c.Tries, err
		}
		replies, failed := r.topology.One().Send(ctx, p.Dedicated, p.Size, cmds)
		if failed != nil {
			return nil, c.Tries, failed.For("PIPELINE")
		}
		var again, passes bool
		out, again, passes, e = collect(ctx, r.topology.One(), p, replies)
		if e == nil || !again || !c.Wait(ctx, passes) {
			return out, c.Tries, e
		}
	}
}

// collect turns replies into results. again says that the pipeline may be sent
// once more: each command failed without being applied, or all may run twice.
// passes says that the reason passes by itself.
func collect(ctx context.Context, n *node.Node, p topology.Pipeline, replies []rueidis.RedisResult) (out []Result, again, passes bool, first *fault.Error) {
	out = make([]Result, len(p.Steps))
	again = true
	for i := range p.Steps {
		var err error
		if out[i].Message, err = replies[i].ToMessage(); err == nil || err == rueidis.Nil {
			again = again && p.Idempotency >= fault.Idempotent
			n.InspectExec(ctx, p.Steps[i].Op, out[i].Message)
			continue
		}
		f := n.NoteFailure(ctx, p.Steps[i].Op, err, p.Idempotency)
		out[i].Err = publicError(f.Error)
		again = again && f.Retry
		passes = passes || f.Backoff
		if first == nil {
			first = f.Error
		}
	}
	return out, again, passes, first
}

// DoBlocking sends one command that waits in Redis, such as XREADGROUP with
// BLOCK or BLPOP, on a connection of its own. block is the time it may wait
// there, the same as in the command, at least 1 ms; the call returns by block
// and Config.CommandTimeout together, by ctx's deadline, or at once when ctx
// is cancelled: the connection is given up then, and what the command would
// have taken may be taken and lost ([OutcomeUnknown]). A wait that ends
// without a value is msg.IsNil(). It is not retried after a broken connection.
func (r *Redis) DoBlocking(ctx context.Context, block time.Duration, build func(Builder) Command) (Message, error) {
	start := clock.Now()
	ctx, cancel := context.WithTimeout(ctx, max(block, time.Millisecond)+r.cfg.CommandTimeout)
	defer cancel()
	c := topology.Route{Topology: r.topology}
	var (
		msg Message
		op  string
		err *fault.Error
	)
	for again := true; again; {
		msg, op, again, err = r.try(ctx, &c, build(r.builder), true)
	}
	if r.rec != nil {
		r.record(ctx, op, 1, start, c.Tries, err)
	}
	if err != nil {
		return msg, publicError(err)
	}
	return msg, nil
}

// DoBulk is [Redis.Do] on a connection of its own whatever the command's size:
// for replies that are known to be large, so that small calls do not wait
// behind them.
func (r *Redis) DoBulk(ctx context.Context, build func(Builder) Command) (Message, error) {
	return r.DoBlocking(ctx, 0, build)
}

// doMultiCluster groups a pipeline by node and sends the groups at the same
// time. Commands of one slot keep their order; a transaction goes to one node
// whole.
func (r *Redis) doMultiCluster(ctx context.Context, build func(Builder) []Command) (out []Result, tries int, first *fault.Error) {
	cmds := build(r.builder)
	if len(cmds) == 0 {
		return nil, 0, nil
	}
	p, err := topology.Inspect(cmds, r.cfg.MaxValueSize, nil)
	if err != nil {
		return nil, 0, err
	}
	replies, froms, tries := r.topology.Spread(ctx, p, func() []Command {
		if c := cmds; c != nil {
			cmds = nil
			return c
		}
		return build(r.builder)
	})
	out = make([]Result, len(replies))
	for i := range replies {
		var failed error
		if out[i].Message, failed = replies[i].ToMessage(); failed == nil || failed == rueidis.Nil {
			continue
		}
		f := froms[i].NoteFailure(ctx, p.Steps[i].Op, failed, p.Steps[i].Idempotency)
		out[i].Err = publicError(f.Error)
		if first == nil {
			first = f.Error
		}
	}
	return out, tries, first
}
