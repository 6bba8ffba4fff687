package topology

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
)

// Spread sends commands to their nodes, follows redirections, and tries reads
// again. It returns the last reply to each and the node that gave it. build
// makes one of them again for a later round: those that were answered are gone.
func (t *Topology) Spread(ctx context.Context, p Pipeline, cmds []rueidis.Completed, build func(int) rueidis.Completed) (replies []rueidis.RedisResult, froms []*node.Node, tries int) {
	replies = make([]rueidis.RedisResult, len(p.Steps))
	froms = make([]*node.Node, len(p.Steps))
	next := make([]Redirect, len(p.Steps))
	todo := make([]int, len(p.Steps))
	for i := range todo {
		todo[i] = i
	}
	c := Route{Topology: t}
	for {
		t.round(ctx, p, cmds, todo, next, replies, froms)
		var v roundOutcome
		if p.whole {
			c.At(p.firstSlot())
			if v = retryWhole(ctx, &c, p, replies, froms, next); !v.again {
				break
			}
		} else {
			todo = slices.DeleteFunc(todo, func(i int) bool {
				c.At(p.Steps[i].Slot)
				return !retryOne(ctx, &c, p, i, replies[i], froms[i], &next[i], &v)
			})
		}
		if len(todo) == 0 || !waitRound(ctx, &c, v) {
			break
		}
		for _, i := range todo {
			cmds[i] = build(i)
		}
	}
	return replies, froms, c.Tries
}

// roundOutcome is what one round of a pipeline showed of those of its commands
// that are sent once more.
type roundOutcome struct {
	again  bool // there are some
	passes bool // one was refused for the moment
	broken bool // one was not sent, or its connection was lost
}

// waitRound waits before the next round. One of redirects alone comes at once.
func waitRound(ctx context.Context, c *Route, v roundOutcome) bool {
	if v.passes || v.broken {
		return c.Wait(ctx, v.passes)
	}
	return c.Elsewhere()
}

// retryOne decides whether one command of a pipeline is sent once more, and
// where. Only what was refused before it was sent, redirected, or may run twice:
// later commands of its slot may have been applied.
func retryOne(ctx context.Context, c *Route, p Pipeline, i int, reply rueidis.RedisResult, from *node.Node, next *Redirect, v *roundOutcome) bool {
	*next = Redirect{}
	err := reply.Error()
	if err == nil || rueidis.IsRedisNil(err) {
		return false
	}
	if to, moved := c.Topology.Follow(from, err); moved {
		*next, v.again = to, true
		return true
	}
	f := fault.Classify(ctx, p.Steps[i].Op, err, p.Steps[i].Idempotency)
	if c.SaysMoving(ctx, f) || !f.Retry || p.Steps[i].Idempotency < fault.Idempotent && !errors.Is(err, fault.ErrNotOpen) {
		return false
	}
	v.again = true
	v.passes = v.passes || f.Backoff
	v.broken = v.broken || !f.Backoff
	return true
}

// retryWhole decides whether a transaction is sent once more, and where: to where
// its slot is now, or a little later, while its keys are being moved. That is
// sure only when it is all there is, and EXEC says that nothing of it was
// applied. Valkey 9 queues a command of a slot that moves, and EXEC is
// redirected; before, the command is, and EXEC is EXECABORT.
func retryWhole(ctx context.Context, c *Route, p Pipeline, replies []rueidis.RedisResult, froms []*node.Node, next []Redirect) (v roundOutcome) {
	last := len(replies) - 1
	single := strings.EqualFold(p.Steps[0].Op, "MULTI") && strings.EqualFold(p.Steps[last].Op, "EXEC") &&
		!slices.ContainsFunc(p.Steps[1:], func(c Step) bool { return strings.EqualFold(c.Op, "MULTI") })
	exec, ok := rueidis.IsRedisErr(replies[last].Error())
	if !single || !ok || !fault.ScriptNotApplied(exec.Error()) {
		return roundOutcome{}
	}
	for i := range replies {
		reply, ok := rueidis.IsRedisErr(replies[i].Error())
		if !ok {
			continue
		}
		rd, moved := c.Topology.Follow(froms[i], reply)
		if moved {
			for k := range next {
				next[k] = rd
			}
			return roundOutcome{again: true}
		}
		if f := fault.Classify(ctx, p.Steps[i].Op, reply, fault.NonIdempotent); f.Backoff {
			return roundOutcome{again: !c.SaysMoving(ctx, f), passes: true}
		}
	}
	return roundOutcome{}
}

// round sends the commands in todo once.
func (t *Topology) round(ctx context.Context, p Pipeline, cmds []rueidis.Completed, todo []int, next []Redirect, replies []rueidis.RedisResult, froms []*node.Node) {
	type group struct {
		node *node.Node
		of   []int
	}
	var groups []*group
	var anywhere *node.Node // for all commands without a key, so that they keep their order
	for _, i := range todo {
		n := next[i].Node
		if n == nil {
			slot := p.Steps[i].Slot
			if p.whole {
				slot = p.firstSlot()
			}
			if slot == Keyless {
				n = anywhere
			}
			if n == nil {
				var err *fault.Error
				if n, err = t.Pick(ctx, slot); err != nil {
					replies[i], froms[i] = rueidis.NewErrorResult(err.For(p.Steps[i].Op)), t.Placeholder()
					continue
				}
			}
			if slot == Keyless {
				anywhere = n
			}
		}
		froms[i] = n
		at := slices.IndexFunc(groups, func(g *group) bool { return g.node == n })
		if at < 0 {
			at = len(groups)
			groups = append(groups, &group{node: n})
		}
		groups[at].of = append(groups[at].of, i)
	}
	var wg sync.WaitGroup
	for g, grp := range groups {
		if g == len(groups)-1 { // the last one on this goroutine
			sendGroup(ctx, p, cmds, grp.node, grp.of, next, replies)
			break
		}
		wg.Go(func() { sendGroup(ctx, p, cmds, grp.node, grp.of, next, replies) })
	}
	wg.Wait()
}

// sendGroup sends the commands of one node, in order, each after an ASKING
// where a redirect said so.
func sendGroup(ctx context.Context, p Pipeline, cmds []rueidis.Completed, n *node.Node, of []int, next []Redirect, replies []rueidis.RedisResult) {
	part := make([]rueidis.Completed, 0, 2*len(of))
	at := make([]int, len(of))
	size := 0
	for k, i := range of {
		// Inside a transaction the one before MULTI holds for all.
		if next[i].Asking && (!p.whole || k == 0) {
			part = append(part, n.Builder.Asking().Build())
		}
		size += CommandSize(cmds[i].Commands())
		at[k] = len(part)
		part = append(part, cmds[i])
	}
	got, err := n.Send(ctx, p.Dedicated, size, part)
	for k, i := range of {
		if err != nil {
			replies[i] = rueidis.NewErrorResult(err.For(p.Steps[i].Op))
		} else {
			replies[i] = got[at[k]]
		}
	}
}

// firstSlot is the slot of the first command that has one.
func (p Pipeline) firstSlot() uint16 {
	for i := range p.Steps {
		if s := p.Steps[i].Slot; s != Keyless {
			return s
		}
	}
	return Keyless
}

// FirstSlot is the slot of the first command that has one.
func FirstSlot(cmds []rueidis.Completed) uint16 {
	for i := range cmds {
		if s := cmds[i].Slot(); s != Keyless {
			return s
		}
	}
	return Keyless
}
