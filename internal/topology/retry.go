package topology

import (
	"context"
	"errors"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/deadline"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
)

// Route is one call on its way through its tries: the one place that decides
// what follows a failed try. Every way to call Redis makes its tries through
// it; what differs between them is how one try is sent.
//
// The decision comes from the class of the failure, from what a second run of
// the command would do, and from what is left of the deadline:
//
//	MOVED, ASK                  to the node that it names, at once, MaxRedirects times
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
type Route struct {
	Topology *Topology
	// Repeats says that a script may run again after one of its commands was
	// refused: it has not sent anything to subscribers.
	Repeats bool
	// Tries counts those that failed.
	Tries int

	slot      uint16       // of the last try
	next      Redirect     // where the last reply said to go; otherwise the slot decides
	refusal   *fault.Error // the last one that may pass
	redirects int
	waits     int // pauses after refusals that pass
	breaks    int // tries that were not sent, or whose connection was lost
}

// Pick returns the node for the next try.
func (c *Route) Pick(ctx context.Context, slot uint16) (Redirect, *fault.Error) {
	to := c.next
	c.next, c.slot = Redirect{}, slot
	if to.Node != nil {
		return to, nil
	}
	n, err := c.Topology.Pick(ctx, slot)
	return Redirect{Node: n}, err
}

// Reach is Pick for a call that waits until the node is up.
func (c *Route) Reach(ctx context.Context, slot uint16) (*node.Node, *fault.Error) {
	to, err := c.Pick(ctx, slot)
	if err == nil {
		err = to.Node.Availability.Wait(ctx)
	}
	return to.Node, err
}

// Retry decides what follows a failed try on a node. It returns true when the
// same call is to be tried again, after it has waited; otherwise e is the error
// of the call.
func (c *Route) Retry(ctx context.Context, from *node.Node, op string, failed error, idem fault.Idempotency) (again bool, e *fault.Error) {
	to, redirected := c.redirectOf(from, failed)
	switch {
	case !redirected:
	case ctx.Err() != nil:
		failed = notFollowed(failed, fault.NotSent(op, fault.ContextKind(ctx.Err()), ctx.Err()))
	case c.follow(to):
		return true, nil
	default:
		return false, from.NoteFailure(ctx, op, notFollowed(failed, fault.ErrTooManyRedirects), idem).Error
	}
	f := from.NoteFailure(ctx, op, failed, idem)
	if c.SaysMoving(ctx, f) {
		return false, f.Error
	}
	if c.refusal != nil && f.Kind == fault.KindTimeout && f.Outcome == fault.OutcomeNotApplied {
		return false, c.refusal // it says more than the deadline of the last try
	}
	passes := f.Backoff || f.Later && c.Repeats
	if passes {
		c.refusal = f.Error
	}
	return (f.Retry || passes) && c.Wait(ctx, passes), f.Error
}

// RetryUnsent is Retry for a call that a node did not let in. A call fails at
// once while its node is known to be away: it is only tried again where the node
// has left the cluster, or after a refusal that passes.
func (c *Route) RetryUnsent(ctx context.Context, from *node.Node, op string, failed *fault.Error) (again bool, e *fault.Error) {
	if c.refusal == nil && !errors.Is(failed, fault.ErrMoved) {
		return false, failed.For(op)
	}
	return c.Retry(ctx, from, op, failed, fault.NonIdempotent)
}

// Redirected reports that a failed try only has to go to another node. It is
// false after too many of them, and when the context is over.
func (c *Route) Redirected(ctx context.Context, from *node.Node, failed error) bool {
	to, redirected := c.redirectOf(from, failed)
	return redirected && ctx.Err() == nil && c.follow(to)
}

// redirectOf reports that a failed try only has to go to another node of the
// cluster: to the one that it names, or else to the one that has the slot now.
func (c *Route) redirectOf(from *node.Node, failed error) (to Redirect, redirected bool) {
	to, named := c.Topology.Follow(from, failed)
	return to, named || c.Topology.Clustered() && errors.Is(failed, fault.ErrMoved)
}

// follow sends the next try where a redirect says. It is false after too many of
// them.
func (c *Route) follow(to Redirect) bool {
	if c.redirects++; c.redirects > MaxRedirects {
		return false
	}
	c.next = to
	c.Tries++
	return true
}

// notFollowed is the error of a call that does not follow its redirect. A node
// that left the cluster says itself why the call was not sent.
func notFollowed(failed, why error) error {
	if errors.Is(failed, fault.ErrMoved) {
		return failed
	}
	return why
}

// Elsewhere notes a round of a pipeline after which some commands only have to go
// to other nodes. It is false after too many of them.
func (c *Route) Elsewhere() bool {
	c.redirects++
	c.Tries++
	return c.redirects <= MaxRedirects
}

// At says which slot the next question is about, for a call of several.
func (c *Route) At(slot uint16) { c.slot = slot }

// Wait waits before the next try. After a refusal that passes it pauses for as
// long as the deadline allows. After a broken connection the next try comes at
// once, and those after it with pauses, maxTries in all. It is false where
// another try makes no sense: the caller then learns the real reason, and not
// that a deadline passed.
func (c *Route) Wait(ctx context.Context, passes bool) bool {
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
	c.Tries++
	return true
}

// SaysMoving reports that the call ends here because its slot is being moved,
// and that its caller knows another way. The slot is noted, so that the next
// call goes that way at once.
func (c *Route) SaysMoving(ctx context.Context, f fault.Failure) bool {
	if !f.SlotMoving || !c.Topology.Clustered() || ctx.Value(deadline.SplitsKeys{}) == nil {
		return false
	}
	c.Topology.cluster.moving.note(c.slot)
	return true
}

// retryBackoff gives the pauses between the tries of a call that Redis refuses
// for the moment.
var retryBackoff = clock.Backoff{First: 5 * time.Millisecond, Most: 100 * time.Millisecond}

// maxTries bounds the tries over connections that break again and again.
const maxTries = 5
