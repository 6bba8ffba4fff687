package ratelimit

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/limitscript"
)

// apartFor is how long a limiter asks for one key at a time, in two round trips,
// after a slot was seen to move. It is not known when all slots have arrived.
const apartFor = time.Second

// apart is until when.
type apart struct{ until atomic.Int64 }

func (a *apart) now() bool { return mono() < a.until.Load() }

func (a *apart) begin() { a.until.Store(mono() + int64(apartFor)) }

// slotMoves says whether the slot of a script's keys may be on its way to
// another node, as a cluster refuses it then. Nothing was applied.
func slotMoves(err error) bool {
	var e *madcrow.Error
	return errors.As(err, &e) && e.Kind == madcrow.KindUnavailable && e.Outcome == madcrow.OutcomeNotApplied
}

// evalApart asks whether the subject is blocked, and then the limit. Between the
// two a block may begin; one that was told before is seen.
func (l *Limiter) evalApart(ctx context.Context, key string, args []string) (reply, error) {
	m, err := l.run(ctx, limitscript.Blocked, []string{key + blockSuffix}, nil)
	if err != nil {
		return reply{}, err
	}
	block, err := m.AsInt64()
	if err != nil {
		return reply{}, errors.Join(errReply, err)
	}
	if block > 0 {
		return reply{retry: block, used: -1, reset: block}, nil
	}
	if m, err = l.run(ctx, l.plan.script, []string{key}, args); err != nil {
		return reply{}, err
	}
	return readReply(m)
}
