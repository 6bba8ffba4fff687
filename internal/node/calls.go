package node

import (
	"context"
	"strings"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// Enter waits until the node is up, and takes a place on a shared connection.
func (n *Node) Enter(ctx context.Context) (*conn.Shared, *fault.Error) {
	if err := ctx.Err(); err != nil {
		return nil, &fault.Error{Kind: fault.ContextKind(err), Outcome: fault.OutcomeNotApplied, Err: err}
	}
	if !n.Availability.IsUp() {
		if err := n.Availability.Wait(ctx); err != nil {
			return nil, err
		}
	}
	s := n.NextShared()
	if err := s.Enter(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// DoDedicated sends one command on a connection of its own.
func (n *Node) DoDedicated(ctx context.Context, cmd rueidis.Completed, asking bool) rueidis.RedisResult {
	cmds := []rueidis.Completed{cmd}
	if asking {
		cmds = []rueidis.Completed{n.Builder.Asking().Build(), cmd}
	}
	results, err := n.doMultiDedicated(ctx, cmds)
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	return results[len(results)-1]
}

// doMultiDedicated sends commands on a connection of their own.
func (n *Node) doMultiDedicated(ctx context.Context, cmds []rueidis.Completed) ([]rueidis.RedisResult, *fault.Error) {
	n.Dedicated.Calls.Add(1)
	defer n.Dedicated.Calls.Add(-1)
	c, err := n.Dedicated.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Release()
	defer n.unblockable(ctx, c)()
	return c.Do(ctx, cmds...), nil
}

// NoteFailure classifies the error of one try, and has the node take notice of
// what is its own fault.
func (n *Node) NoteFailure(ctx context.Context, op string, err error, idem fault.Idempotency) fault.Failure {
	f := fault.Classify(ctx, op, err, idem)
	n.explainReply(f.Error)
	switch f.NodeFault {
	case fault.KindReadOnly:
		n.noteDemoted(f.Err)
	case fault.KindAuth:
		// The password changed while we were connected: connect again,
		// with what Credentials says now.
		n.Availability.Suspect(&fault.Error{Op: "connect", Kind: fault.KindAuth, Outcome: fault.OutcomeNotApplied, Err: f.Err})
	}
	n.restrict(f)
	return f
}

// Send sends commands, on a shared connection or on a dedicated one: where that is
// asked for, and where their size is large. Its error is of commands that were
// not sent.
func (n *Node) Send(ctx context.Context, dedicated bool, size int, cmds []rueidis.Completed) ([]rueidis.RedisResult, *fault.Error) {
	if !dedicated && size < n.config.BulkThreshold {
		s, err := n.Enter(ctx)
		if err != nil {
			return nil, err
		}
		return s.DoMulti(ctx, cmds), nil
	}
	return n.doMultiDedicated(ctx, cmds)
}

// InspectExec looks for faults of the node inside the reply to EXEC: a script is
// refused only there.
func (n *Node) InspectExec(ctx context.Context, op string, reply rueidis.RedisMessage) {
	if len(op) != len("EXEC") || !strings.EqualFold(op, "EXEC") {
		return
	}
	inner, err := reply.ToArray()
	if err != nil {
		return
	}
	for i := range inner {
		if err := inner[i].Error(); err != nil && err != rueidis.Nil {
			n.NoteFailure(ctx, "EXEC", err, fault.NonIdempotent)
		}
	}
}
