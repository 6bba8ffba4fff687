package madcrow

import (
	"context"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// DoMulti sends all commands in one round trip and returns their replies in
// order. The error is that of the first command that failed, nil when none
// did; the others may have been applied all the same: a pipeline is no
// transaction. Where nothing was sent there are no replies. Deadlines, retries and
// sizes are those of [Redis.Do]; the whole pipeline is tried again only when that is
// harmless for each of its commands. The commands, and a slice of them, belong to
// DoMulti from the call on.
func (r *Redis) DoMulti(ctx context.Context, cmds ...Command) ([]Reply, error) {
	start := clock.Now()
	bounded, cc := r.deadlines.Enter(ctx, start)
	defer r.deadlines.Leave(cc)
	replies, tries, err := r.doMulti(bounded, cmds)
	if r.rec != nil {
		r.record(ctx, "PIPELINE", len(replies), start, tries, err)
	}
	if err != nil {
		return replies, publicError(err)
	}
	return replies, nil
}

func (r *Redis) doMulti(ctx context.Context, cmds []Command) (out []Reply, tries int, e *fault.Error) {
	var space [topology.FewCommands]topology.Step
	if len(cmds) == 0 {
		return nil, 0, nil
	}
	for i := range cmds {
		if cmds[i].IsEmpty() {
			return nil, 0, topology.NotAllowed("PIPELINE", errEmpty)
		}
	}
	if r.topology.Clustered() {
		return r.doMultiCluster(ctx, cmds)
	}
	p, e := topology.Inspect(cmds, r.cfg.MaxValueSize, space[:])
	if e != nil {
		return nil, 0, e
	}
	var k keptMany
	k.keep(cmds)
	defer k.release()
	c := topology.Route{Topology: r.topology}
	for {
		replies, failed := r.topology.One().Send(ctx, p.Dedicated, p.Size, cmds)
		if failed != nil {
			return nil, c.Tries, failed.For("PIPELINE")
		}
		var again, passes bool
		out, again, passes, e = collect(ctx, r.topology.One(), p, replies)
		if e == nil || !again || !c.Wait(ctx, passes) {
			return out, c.Tries, e
		}
		cmds = k.buildAll(r.builder, len(cmds))
	}
}

// collect turns the client's replies into ours. again says that the pipeline may be sent
// once more: each command failed without being applied, or all may run twice.
// passes says that the reason passes by itself.
func collect(ctx context.Context, n *node.Node, p topology.Pipeline, replies []rueidis.RedisResult) (out []Reply, again, passes bool, first *fault.Error) {
	out = make([]Reply, len(p.Steps))
	again = true
	for i := range p.Steps {
		var err error
		if out[i].msg, err = replies[i].ToMessage(); err == nil || err == rueidis.Nil {
			again = again && p.Idempotency >= fault.Idempotent
			n.InspectExec(ctx, p.Steps[i].Op, out[i].msg)
			continue
		}
		f := n.NoteFailure(ctx, p.Steps[i].Op, err, p.Idempotency)
		out[i].err = publicError(f.Error)
		again = again && f.Retry
		passes = passes || f.Backoff
		if first == nil {
			first = f.Error
		}
	}
	return out, again, passes, first
}

// doMultiCluster groups a pipeline by node and sends the groups at the same
// time. Commands of one slot keep their order; a transaction goes to one node
// whole.
func (r *Redis) doMultiCluster(ctx context.Context, cmds []Command) (out []Reply, tries int, first *fault.Error) {
	p, e := topology.Inspect(cmds, r.cfg.MaxValueSize, nil)
	if e != nil {
		return nil, 0, e
	}
	var k keptMany
	k.keep(cmds)
	defer k.release()
	replies, froms, tries := r.topology.Spread(ctx, p, cmds, func(i int) Command { return k.build(r.builder, i) })
	out = make([]Reply, len(replies))
	for i := range replies {
		var failed error
		if out[i].msg, failed = replies[i].ToMessage(); failed == nil || failed == rueidis.Nil { //nolint:errorlint // the client's own value
			continue
		}
		f := froms[i].NoteFailure(ctx, p.Steps[i].Op, failed, p.Steps[i].Idempotency)
		out[i].err = publicError(f.Error)
		if first == nil {
			first = f.Error
		}
	}
	return out, tries, first
}
