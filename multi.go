package madcrow

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// Result is the outcome of one command of a pipeline.
type Result struct {
	// Message is the reply; an absent value is Message.IsNil().
	Message Message
	// Err is an [*Error], or nil.
	Err error
}

// bulkCommands is the length from which a pipeline gets a connection of its
// own, so that other calls do not wait for all its replies.
const bulkCommands = 2000

// DoMulti sends all commands in one round trip and returns their results in
// order. The error is that of the first command that failed, nil when none
// did; the others may have been applied all the same: a pipeline is no
// transaction. Deadlines, retries and sizes are those of [Redis.Do]; the whole
// pipeline is tried again only when that is harmless for each of its commands.
func (r *Redis) DoMulti(ctx context.Context, build func(Builder) []Command) ([]Result, error) {
	start := mono()
	bounded, cc := r.deadlines.enter(ctx, start)
	results, tries, err := r.doMulti(bounded, build)
	r.deadlines.leave(cc)
	if r.rec != nil {
		r.record("PIPELINE", len(results), start, tries, err)
	}
	if err != nil {
		return results, err
	}
	return results, nil
}

func (r *Redis) doMulti(ctx context.Context, build func(Builder) []Command) (out []Result, tries int, e *Error) {
	n := r.node
	for ; ; tries++ {
		l, err := n.enter(ctx)
		if err != nil {
			return nil, tries, notSentMulti(err)
		}
		cmds := build(l.client.B())
		if len(cmds) == 0 {
			l.inflight.Add(-1)
			return nil, tries, nil
		}
		p := look(cmds)
		var replies []rueidis.RedisResult
		var failed error
		if p.size < n.cfg.BulkThreshold && len(cmds) < bulkCommands && !p.special {
			start := mono()
			replies = l.client.DoMulti(ctx, cmds...)
			l.leave(start, ctx.Err() != nil && replies[len(replies)-1].NonRedisError() != nil)
		} else {
			l.inflight.Add(-1)
			for _, c := range cmds {
				if e := r.refuse(c, c.Commands()[0], p.size); e != nil {
					return nil, tries, e
				}
			}
			replies, failed = r.borrow(ctx, cmds...)
		}
		var again, backoff bool
		out, again, backoff, e = n.collect(ctx, p, replies, failed)
		if e == nil || !again || !n.pause(ctx, tries, backoff) {
			return out, tries, e
		}
	}
}

// pipeline is what is known of commands before they are sent, and no longer
// after: the client takes them back.
type pipeline struct {
	ops        []string
	repeatable bool // every one of them
	special    bool // blocks or subscribes
	size       int
}

func look(cmds []Command) pipeline {
	p := pipeline{ops: make([]string, len(cmds)), repeatable: true}
	for i := range cmds {
		c := &cmds[i]
		p.ops[i] = c.Commands()[0]
		p.repeatable = p.repeatable && (c.IsReadOnly() || c.IsRetryable())
		p.special = p.special || c.IsBlock() || c.NoReply()
		p.size += commandSize(*c)
	}
	return p
}

// collect turns replies into results. again is true when no command was
// applied or all may be repeated, and each failed.
func (n *node) collect(ctx context.Context, p pipeline, replies []rueidis.RedisResult, failed error) (out []Result, again, backoff bool, first *Error) {
	out = make([]Result, len(p.ops))
	again = true
	for i, op := range p.ops {
		err := failed
		if err == nil {
			out[i].Message, err = replies[i].ToMessage()
		}
		if err == nil || err == rueidis.Nil {
			again = again && p.repeatable
			continue
		}
		f := n.failed(ctx, op, err, p.repeatable)
		out[i].Err = f.Error
		again = again && f.again
		backoff = backoff || f.backoff
		if first == nil {
			first = f.Error
		}
	}
	return out, again, backoff, first
}

func notSentMulti(e *Error) *Error {
	named := *e
	named.Op = "PIPELINE"
	return &named
}

// DoBlocking sends one command that waits in Redis, such as XREADGROUP with
// BLOCK or BLPOP, on a connection of its own. block is the time it may wait
// there, the same as in the command, at least 1 ms; the call returns by block
// and Config.CommandTimeout together, by ctx's deadline, or at once when ctx
// is cancelled: the connection is given up then, and what the command would
// have taken may be taken and lost ([OutcomeUnknown]). A wait that ends
// without a value is msg.IsNil(). It is not retried after a broken connection.
func (r *Redis) DoBlocking(ctx context.Context, block time.Duration, build func(Builder) Command) (Message, error) {
	start := mono()
	ctx, cancel := context.WithTimeout(ctx, max(block, time.Millisecond)+r.cfg.CommandTimeout)
	defer cancel()
	msg, op, tries, err := r.alone(ctx, build)
	if r.rec != nil {
		r.record(op, 1, start, tries, err)
	}
	if err != nil {
		return msg, err
	}
	return msg, nil
}

// DoBulk is [Redis.Do] on a connection of its own whatever the command's size:
// for replies that are known to be large, so that small calls do not wait
// behind them.
func (r *Redis) DoBulk(ctx context.Context, build func(Builder) Command) (Message, error) {
	return r.DoBlocking(ctx, 0, build)
}

func (r *Redis) alone(ctx context.Context, build func(Builder) Command) (msg Message, op string, tries int, e *Error) {
	n := r.node
	for ; ; tries++ {
		cmd := build(n.pool.client.B())
		op = cmd.Commands()[0]
		repeatable := !cmd.IsBlock() && (cmd.IsReadOnly() || cmd.IsRetryable())
		if e := r.refuse(cmd, op, commandSize(cmd)); e != nil {
			return msg, op, tries, e
		}
		var failed error
		if msg, failed = r.borrowed(ctx, cmd).ToMessage(); failed == nil || failed == rueidis.Nil {
			return msg, op, tries, nil
		}
		f := n.failed(ctx, op, failed, repeatable)
		if !f.again || !n.pause(ctx, tries, f.backoff) {
			return Message{}, op, tries, f.Error
		}
	}
}
