package madcrow

import (
	"context"
	"slices"
	"sync"

	"github.com/redis/rueidis"
)

// doMultiCluster groups a pipeline by node and sends the groups at the same
// time. Commands of one slot keep their order; a transaction goes to one node
// whole.
func (r *Redis) doMultiCluster(ctx context.Context, build func(Builder) []Command) (out []Result, tries int, first *Error) {
	cmds := build(r.builder)
	if len(cmds) == 0 {
		return nil, 0, nil
	}
	p, err := look(cmds, r.cfg.MaxValueSize)
	if err != nil {
		return nil, 0, err
	}
	replies, froms, tries := r.spread(ctx, p, func() []Command {
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
		f := froms[i].failed(ctx, p.ops[i], failed, p.reads[i])
		out[i].Err = f.Error
		if first == nil {
			first = f.Error
		}
	}
	return out, tries, first
}

// spread sends commands to their nodes, follows redirections, and tries reads
// again. It returns the last reply to each and the node that gave it. build
// gives the same commands for every round: those that were answered are gone.
func (r *Redis) spread(ctx context.Context, p pipeline, build func() []Command) (replies []rueidis.RedisResult, froms []*node, tries int) {
	replies = make([]rueidis.RedisResult, len(p.ops))
	froms = make([]*node, len(p.ops))
	next := make([]hop, len(p.ops))
	todo := make([]int, len(p.ops))
	for i := range todo {
		todo[i] = i
	}
	for ; len(todo) > 0; tries++ {
		cmds := build()
		r.round(ctx, p, cmds, todo, next, replies, froms)
		backoff := false
		todo = slices.DeleteFunc(todo, func(i int) bool {
			err := replies[i].Error()
			if err == nil || rueidis.IsRedisNil(err) || p.whole {
				return true
			}
			var moved bool
			if next[i], moved = r.follow(froms[i], err); moved {
				return false
			}
			f := classify(ctx, p.ops[i], err, p.reads[i])
			backoff = backoff || f.backoff
			return !f.again || !p.reads[i]
		})
		if len(todo) > 0 && (tries >= maxHops || !pause(ctx, tries, backoff)) {
			break
		}
	}
	return replies, froms, tries
}

// round sends the commands in todo once.
func (r *Redis) round(ctx context.Context, p pipeline, cmds []Command, todo []int, next []hop, replies []rueidis.RedisResult, froms []*node) {
	type group struct {
		hop
		of []int
	}
	var groups []*group
	for _, i := range todo {
		h := next[i]
		if h.node == nil {
			slot := cmds[i].Slot()
			if p.whole {
				slot = firstSlot(cmds)
			}
			n, err := r.pick(ctx, slot)
			if err != nil {
				replies[i], froms[i] = rueidis.NewErrorResult(err.of(p.ops[i])), r.cluster.someone()
				continue
			}
			h.node = n
		}
		froms[i] = h.node
		at := slices.IndexFunc(groups, func(g *group) bool { return g.hop == h })
		if at < 0 {
			at = len(groups)
			groups = append(groups, &group{hop: h})
		}
		groups[at].of = append(groups[at].of, i)
	}
	var wg sync.WaitGroup
	for g, grp := range groups {
		if g == len(groups)-1 { // the last one on this goroutine
			r.sendGroup(ctx, p, cmds, grp.hop, grp.of, replies)
			break
		}
		wg.Go(func() { r.sendGroup(ctx, p, cmds, grp.hop, grp.of, replies) })
	}
	wg.Wait()
}

func (r *Redis) sendGroup(ctx context.Context, p pipeline, cmds []Command, h hop, of []int, replies []rueidis.RedisResult) {
	part := make([]Command, 0, len(of))
	per := 1
	if h.asking {
		per = 2
	}
	size := 0
	for _, i := range of {
		if h.asking {
			part = append(part, h.node.builder.Asking().Build())
		}
		size += commandSize(cmds[i].Commands())
		part = append(part, cmds[i])
	}
	got, err := h.node.send(ctx, pipeline{alone: p.alone, size: size}, part)
	for k, i := range of {
		if err != nil {
			replies[i] = rueidis.NewErrorResult(err.of(p.ops[i]))
		} else {
			replies[i] = got[k*per+per-1]
		}
	}
}

// firstSlot is the slot of the first command that has one.
func firstSlot(cmds []Command) uint16 {
	for i := range cmds {
		if s := cmds[i].Slot(); s != keyless {
			return s
		}
	}
	return keyless
}

// someone returns any node, to classify an error that no node gave.
func (c *cluster) someone() *node {
	for _, n := range *c.masters.Load() {
		return n
	}
	return &node{cfg: c.r.cfg, gate: newGate(), kick: make(chan struct{}, 1), changed: func() {}}
}
