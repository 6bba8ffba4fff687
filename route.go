package madcrow

import (
	"context"
	"errors"

	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// route is one call on its way through its tries: the one place that decides
// what follows a failed try. Every way to call Redis makes its tries through
// it; what differs between them is how one try is sent.
//
// The decision comes from the class of the failure, from what a second run of
// the command would do, and from what is left of the deadline:
//
//	MOVED, ASK                  to the node that it names, at once, maxRedirects times
//	the node left the cluster   to the node that has the slot now, the same
//	TRYAGAIN                    an error at once for a call of SplitKeys, a pause otherwise
//	LOADING, BUSY, CLUSTERDOWN,
//	MASTERDOWN, NOREPLICAS, …   a pause, as long as the deadline allows
//	READONLY                    an error, and the node's role is looked at
//	not sent                    at once, then after pauses, maxTries in all
//	connection lost meanwhile   the same for a command that may run twice, else an error
//	any other reply             an error
//
// A refusal inside a script or a transaction counts like one of a single command
// where nothing was applied before it.
type route struct {
	t *topology.Topology
	// repeats says that a script may run again after one of its commands was
	// refused: it has not sent anything to subscribers.
	repeats bool
	// alone says that the command gets a connection of its own, and is not
	// repeated where it may have been waiting in Redis.
	alone bool

	slot      uint16            // of the last try
	next      topology.Redirect // where the last reply said to go; otherwise the slot decides
	redirects int
	waits     int // pauses after refusals that pass
	breaks    int // tries that were not sent, or whose connection was lost
	tries     int // that failed
}

// pick returns the node for the next try.
func (c *route) pick(ctx context.Context, slot uint16) (topology.Redirect, *fault.Error) {
	to := c.next
	c.next, c.slot = topology.Redirect{}, slot
	if to.Node != nil {
		return to, nil
	}
	n, err := c.t.Pick(ctx, slot)
	return topology.Redirect{Node: n}, err
}

// reach is pick for a call that waits until the node is up.
func (c *route) reach(ctx context.Context, slot uint16) (*node.Node, *fault.Error) {
	to, err := c.pick(ctx, slot)
	if err == nil {
		err = to.Node.Availability.Wait(ctx)
	}
	return to.Node, err
}

// retry decides what follows a failed try on a node. It returns true when the
// same call is to be tried again, after it has waited; otherwise e is the error
// of the call.
func (c *route) retry(ctx context.Context, from *node.Node, op string, failed error, idem fault.Idempotency) (again bool, e *fault.Error) {
	if c.redirected(from, failed) {
		return true, nil
	}
	if c.redirects > topology.MaxRedirects {
		failed = fault.ErrTooManyRedirects
	}
	f := from.NoteFailure(ctx, op, failed, idem)
	if c.saysMoving(ctx, f) {
		return false, f.Error
	}
	passes := f.Backoff || f.Later && c.repeats
	return (f.Retry || passes) && c.wait(ctx, passes), f.Error
}

// redirected reports that a failed try only has to go to another node. After too
// many of them it is false, and c.redirects is past maxRedirects.
func (c *route) redirected(from *node.Node, failed error) bool {
	to, ok := c.t.Follow(from, failed)
	if !ok && !errors.Is(failed, fault.ErrMoved) {
		return false
	}
	if c.redirects++; c.redirects > topology.MaxRedirects {
		return false
	}
	c.next = to
	c.tries++
	return true
}

// wait waits before the next try. After a refusal that passes it pauses for as
// long as the deadline allows. After a broken connection the next try comes at
// once, and those after it with pauses, maxTries in all. It is false where
// another try makes no sense: the caller then learns the real reason, and not
// that a deadline passed.
func (c *route) wait(ctx context.Context, passes bool) bool {
	if passes {
		c.waits++
		c.redirects = 0 // each try may be redirected as before: ASK, then TRYAGAIN, …
		if !retryBackoff.Pause(ctx, c.waits-1) {
			return false
		}
	} else {
		c.breaks++
		switch {
		case c.breaks >= maxTries, ctx.Err() != nil:
			return false
		case c.breaks > 1 && !retryBackoff.Pause(ctx, c.breaks-1):
			return false
		}
	}
	c.tries++
	return true
}

// saysMoving reports that the call ends here because its slot is being moved,
// and that its caller knows another way. The slot is noted, so that the next
// call goes that way at once.
func (c *route) saysMoving(ctx context.Context, f fault.Failure) bool {
	if !f.SlotMoving || !splitsKeys(ctx) {
		return false
	}
	c.t.NoteMoving(c.slot)
	return true
}
