package ratelimit

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/limitscript"
)

// splitKeysFor is how long a limiter uses one key at a time, in two round trips,
// after a slot was seen to move. When the last slot arrives is unknown.
const splitKeysFor = time.Second

// splitKeys holds until when keys are used one at a time.
type splitKeys struct{ until atomic.Int64 }

func (a *splitKeys) now() bool { return clock.Now() < a.until.Load() }

func (a *splitKeys) begin() { a.until.Store(clock.Now() + int64(splitKeysFor)) }

// slotMoves reports whether the slot of a script's keys may be moving to another
// node: a cluster then refuses the script. Nothing was applied.
func slotMoves(err error) bool {
	var e *madcrow.Error
	return errors.As(err, &e) && e.Kind == madcrow.KindUnavailable && e.Outcome == madcrow.OutcomeNotApplied
}

// evalSplitKeys reads the subject's block, and then evaluates the limit. A block
// that starts between the two is not seen; an earlier one is.
func (l *Limiter) evalSplitKeys(ctx context.Context, key string, args []string) (limitscript.Reply, error) {
	m, err := l.eval(ctx, limitscript.Blocked, []string{key + limitscript.BlockSuffix}, nil)
	if err != nil {
		return limitscript.Reply{}, err
	}
	block, err := m.AsInt64()
	if err != nil {
		return limitscript.Reply{}, errors.Join(limitscript.ErrReply, err)
	}
	if block > 0 {
		return limitscript.Reply{Retry: block, Used: -1, Reset: block}, nil
	}
	if m, err = l.eval(ctx, l.plan.script, []string{key}, args); err != nil {
		return limitscript.Reply{}, err
	}
	return limitscript.ReadReply(m)
}
