package madcrow

import (
	"context"
	"errors"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// ErrSlotMoving is also ErrUnavailable: a cluster is moving the keys of one call
// from one node to another, and refuses calls with several of them until all
// have arrived. Nothing was applied. See [Redis.SplitKeys].
var ErrSlotMoving = fault.ErrSlotMoving

// SplitKeys makes one call that has two forms, and runs the one that Redis takes
// now. together uses several keys of one slot, in one command, script or
// transaction. While a cluster moves that slot to another node, it refuses such
// a call for as long as the move takes, which may be minutes. split does the
// same with commands and scripts of one key each. It is less atomic, and runs
// only while the slot moves.
//
// In a cluster both run within one deadline: ctx's, or Config.CommandTimeout from
// now, whichever is sooner. They must use the context that they get. It ends when
// SplitKeys returns; what goes on after that needs context.WithoutCancel.
//
// together is called at most once. When it fails because the slot moves, that is
// known after one round trip, nothing was applied, and split is called. For a
// second after that, split is called at once for every key of that slot. The
// error is that of the form that ran last. A nil split is for a caller that goes
// on without the call: the refusal is its error, after one round trip.
//
// Without a cluster it is together alone, with ctx itself, and costs nothing more
// than it: each call in it has a deadline of its own. [Redis.Within] gives several
// calls one.
func (r *Redis) SplitKeys(ctx context.Context, key string, together, split func(context.Context) error) error {
	if !r.topology.Clustered() {
		return together(ctx)
	}
	bounded, cc := r.deadlines.EnterSplit(ctx, clock.Now())
	defer r.deadlines.Leave(cc)
	if split == nil {
		return together(bounded)
	}
	if !r.topology.IsMoving(key) {
		err := together(bounded)
		if err == nil || !errors.Is(err, ErrSlotMoving) {
			return err
		}
	}
	return split(bounded)
}

// Within runs fn as one call: all that it sends with the context that it gets
// ends by ctx's deadline, or by Config.CommandTimeout from now, whichever is
// sooner. That context ends when Within returns; what fn starts and goes on after
// that needs context.WithoutCancel.
func (r *Redis) Within(ctx context.Context, fn func(context.Context) error) error {
	bounded, cc := r.deadlines.EnterCallback(ctx, clock.Now())
	defer r.deadlines.Leave(cc)
	return fn(bounded)
}
