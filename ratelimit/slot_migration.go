package ratelimit

import (
	"context"
	"errors"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/limitscript"
)

// While a cluster moves a slot, it refuses scripts with several keys of it. The
// limits then use one key at a time ([madcrow.Redis.SplitKeys]), so two steps of
// one decision are no longer atomic.

// evalSplitKeys reads the subject's block, and then evaluates the limit. A block
// that starts between the two is not seen; an earlier one is.
func (l *Limiter) evalSplitKeys(ctx context.Context, e evaluation, key string, args []string) (limitscript.Reply, error) {
	block, err := l.evalBlock(ctx, limitscript.Blocked, key+limitscript.BlockSuffix)
	if err != nil {
		return limitscript.Reply{}, err
	}
	switch e.verb {
	case limitscript.VerbForce: // counts during a block, too
	case limitscript.VerbReserve:
		if block > e.maxWait.Microseconds() {
			return blockedReply(block), nil
		}
	default:
		if block > 0 {
			return blockedReply(block), nil
		}
	}
	m, err := l.eval(ctx, l.plan.script, []string{key}, args)
	if err != nil {
		return limitscript.Reply{}, err
	}
	r, err := limitscript.ReadReply(m)
	if err == nil && block > 0 {
		r.Retry, r.Used, r.Reset = max(r.Retry, block), -1, max(r.Reset, block)
	}
	return r, err
}

func blockedReply(block int64) limitscript.Reply {
	return limitscript.Reply{Retry: block, Used: -1, Reset: block}
}

// evalBlock returns how long a block still lasts, in microseconds.
func (l *Limiter) evalBlock(ctx context.Context, s *madcrow.Script, key string) (int64, error) {
	m, err := l.eval(ctx, s, []string{key}, nil)
	if err != nil {
		return 0, err
	}
	block, err := m.AsInt64()
	if err != nil {
		return 0, errors.Join(limitscript.ErrReply, err)
	}
	return block, nil
}

// evalSplitKeys peeks at every limit, and counts only if each admits. Another
// request may come between: then a limit denies after others have counted.
func (g *Group) evalSplitKeys(ctx context.Context, subject string, costs []int64) ([]limitscript.Reply, error) {
	replies := make([]limitscript.Reply, len(g.limits))
	for _, verb := range []limitscript.Verb{limitscript.VerbPeek, limitscript.VerbAllow} {
		for i, l := range g.limits {
			if verb == limitscript.VerbAllow && costs[i] == 0 {
				continue
			}
			e := evaluation{verb: verb, subject: subject, cost: costs[i]}
			r, err := l.evalSplitKeys(ctx, e, subjectKey(l.keyPrefix, subject), l.appendArgs(nil, e))
			if err != nil {
				return nil, err
			}
			if costs[i] == 0 && r.Used >= 0 {
				r.Retry = 0 // left out of the count
			}
			replies[i] = r
		}
		for _, r := range replies {
			if r.Retry > 0 {
				return replies, nil
			}
		}
	}
	return replies, nil
}
