package madcrow

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
	"github.com/madcrow-go/madcrow/internal/topology"
)

var errNoSubscription = errors.New("Receive takes SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE")

// Receive subscribes, with a SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE command, on
// the connection for pub/sub and calls fn for each message, in the order of its
// channel, until ctx ends. It returns nil when the server ended the
// subscription, otherwise an [*Error]; messages sent while no one listens are
// lost, and Receive does not subscribe again by itself. All who receive a
// channel share one subscription, which ends with the last of them. A slow fn
// holds up all subscribers of this Redis: hand messages on.
// [WithSubscriptionHook] says when it is subscribed; the hooks of rueidis have no
// effect.
func (r *Redis) Receive(ctx context.Context, subscribe func(Builder) Command, fn func(rueidis.PubSubMessage)) error {
	cmd := subscribe(r.builder)
	op, channels := cmd.Commands()[0], append([]string(nil), cmd.Commands()[1:]...)
	if !cmd.NoReply() || strings.Contains(op, "UNSUB") || len(channels) == 0 {
		return publicError(fault.NotSent(op, fault.KindServer, errNoSubscription))
	}
	slot := subscriptionSlot(cmd)
	c := topology.Route{Topology: r.topology}
	n, e := c.Reach(ctx, slot)
	if e != nil {
		return publicError(e.For(op))
	}
	if r.subs.Life.Err() != nil {
		return publicError(refusedClosed(op))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.subs.Life, cancel)()
	for {
		err := r.subs.Listen(ctx, n, op, channels, fn)
		switch {
		case err == nil:
			return nil
		case err != fault.ErrCallerLeft: //nolint:errorlint // it is made here
			if !c.Redirected(ctx, n, err) { // a sharded channel moves with its slot
				return publicError(n.NoteFailure(ctx, op, err, fault.ReadOnly).Error)
			}
			if n, e = c.Reach(ctx, slot); e != nil {
				return publicError(e.For(op))
			}
		case ctx.Err() == nil:
			return publicError(refusedClosed(op))
		default:
			return publicError(fault.NotSent(op, fault.ContextKind(ctx.Err()), ctx.Err()))
		}
	}
}

// WithSubscriptionHook returns a context for [Redis.Receive]: hook is called
// with each confirmation of the server that a channel is subscribed or not any
// more, before messages of that channel come, and again after a channel was
// joined that others receive already. It may still be called at the moment when
// Receive returns. It runs on the reader of a connection, so it must be quick; a
// panic ends the Receive with an error.
func WithSubscriptionHook(ctx context.Context, hook func(rueidis.PubSubSubscription)) context.Context {
	return context.WithValue(ctx, node.SubscriptionHook{}, hook)
}

// subscriptionSlot says which slot's node tells of a channel: any node tells of
// all but sharded ones.
func subscriptionSlot(cmd Command) uint16 {
	if cmd.Commands()[0] == "SSUBSCRIBE" {
		return cmd.Slot()
	}
	return topology.Keyless
}

// SubscriptionNode says on which node a subscription would be now, by its
// address; "" is none. Those of one node share a connection. Nothing is sent.
func (r *Redis) SubscriptionNode(subscribe func(Builder) Command) string {
	now, cancel := context.WithCancel(r.life)
	cancel()
	if n, e := r.topology.Pick(now, subscriptionSlot(subscribe(r.builder))); e == nil {
		return n.Addr()
	}
	return ""
}

// RenewSubscriptions ends the connection for pub/sub of a node, as
// [Redis.SubscriptionNode] names it, and those of all nodes for "". Each
// Receive on it returns an error, and the next one connects again. It is for who
// knows that messages do not come although the server answers, as behind a
// balancer that has put another server in the place of the one subscribed to.
func (r *Redis) RenewSubscriptions(address string) {
	r.topology.Each(func(n *node.Node) {
		if address == "" || n.Addr() == address {
			n.Conns.CloseSubscriptions()
		}
	})
}

func refusedClosed(op string) *fault.Error {
	return fault.NotSent(op, fault.KindUnavailable, fault.ErrClosed)
}
