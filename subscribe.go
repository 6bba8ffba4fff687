package madcrow

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
	"github.com/madcrow-go/madcrow/internal/sealed"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// Subscription names what [Redis.Subscribe] listens to: channels, patterns or
// sharded channels. Exactly one of the fields is set.
type Subscription struct {
	// Channels are names, as PUBLISH has them (SUBSCRIBE).
	Channels []string
	// Patterns are globs of such names: "news.*" (PSUBSCRIBE).
	Patterns []string
	// Sharded are channels of SPUBLISH (SSUBSCRIBE). In a cluster all of one call
	// are in one slot. They need Redis 7.0.
	Sharded []string
}

// Handler is what [Redis.Subscribe] calls. Its functions must be quick and must not
// wait: all subscribers of this Redis are behind them. A panic ends that Subscribe
// with an error.
type Handler struct {
	// OnMessage is called for each message, in the order of its channel. It must be
	// set.
	OnMessage func(PubSubMessage)
	// OnSubscribed is called when the server has confirmed a channel or a pattern:
	// before its messages come, and at once when others of this Redis receive it
	// already. It may still be called at the moment when Subscribe returns. Defaults
	// to none.
	OnSubscribed func(channel string)
}

// PubSubMessage is a message that was published to a channel.
type PubSubMessage struct {
	Channel string
	// Pattern is the one of Subscription.Patterns that the channel matches, or "".
	Pattern string
	Payload string
}

// Subscribe listens on the connection for pub/sub, and calls h for each message,
// until ctx ends. Config.CommandTimeout does not bound it. It returns nil when the
// server ended the subscription, an [*ArgumentError] for a Subscription or a Handler
// that cannot be used, and otherwise an [*Error]. Messages sent while no one listens
// are lost, and Subscribe does not subscribe again by itself: package pubsub does.
// All who listen to a channel share one subscription, which ends with the last of
// them.
func (r *Redis) Subscribe(ctx context.Context, s Subscription, h Handler) error {
	op, channels, slot, err := s.command(r.topology)
	if err == nil && h.OnMessage == nil {
		err = wrongSubscription("Handler.OnMessage", "must be set")
	}
	if err != nil {
		return err
	}
	onMessage := func(m rueidis.PubSubMessage) {
		h.OnMessage(PubSubMessage{Channel: m.Channel, Pattern: m.Pattern, Payload: m.Message})
	}
	return r.listen(ctx, op, channels, slot, node.Handler{OnMessage: onMessage, OnSubscribed: h.OnSubscribed})
}

// command says which command subscribes, to what, and which slot's node tells of it:
// any node tells of all but sharded channels.
func (s Subscription) command(t *topology.Topology) (op string, channels []string, slot uint16, err error) {
	set := 0
	for _, of := range []struct {
		op       string
		channels []string
	}{{"SUBSCRIBE", s.Channels}, {"PSUBSCRIBE", s.Patterns}, {opSharded, s.Sharded}} {
		if len(of.channels) > 0 {
			op, channels = of.op, of.channels
			set++
		}
	}
	if set != 1 {
		return "", nil, 0, wrongSubscription("Subscription", "must have Channels, Patterns or Sharded, and one of them only")
	}
	if op != opSharded {
		return op, channels, topology.Keyless, nil
	}
	slot = t.SlotOf(channels[0])
	for _, channel := range channels[1:] {
		if t.SlotOf(channel) != slot {
			return "", nil, 0, wrongSubscription("Subscription.Sharded", "must have channels of one slot of the cluster: write the same {tag} into each, or call Subscribe for each slot")
		}
	}
	return op, channels, slot, nil
}

const opSharded = "SSUBSCRIBE"

func wrongSubscription(argument, reason string) error {
	return &ArgumentError{Op: "subscribe", Argument: argument, Reason: reason}
}

var errNoSubscription = errors.New("Receive takes SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE")

// receive is Subscribe for the client of rueidis, by a command.
func (r *Redis) receive(ctx context.Context, cmd Command, fn func(rueidis.PubSubMessage)) error {
	op, channels, slot := cmd.Commands()[0], append([]string(nil), cmd.Commands()[1:]...), uint16(topology.Keyless)
	if !cmd.NoReply() || strings.Contains(op, "UNSUB") || len(channels) == 0 {
		return publicError(fault.NotSent(op, fault.KindServer, errNoSubscription))
	}
	if op == opSharded {
		slot = cmd.Slot()
	}
	return r.listen(ctx, op, channels, slot, node.Handler{OnMessage: fn})
}

// listen subscribes on the node of a slot, and goes along when the slot moves.
func (r *Redis) listen(ctx context.Context, op string, channels []string, slot uint16, h node.Handler) error {
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
		err := r.subs.Listen(ctx, n, op, channels, h)
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

// SubscriptionNode says on which node a subscription would be now, by its
// address; "" is none. Those of one node share a connection. Nothing is sent. Only
// the packages of this module can call it.
func (r *Redis) SubscriptionNode(_ sealed.Key, s Subscription) string {
	now, cancel := context.WithCancel(r.life)
	cancel()
	_, _, slot, err := s.command(r.topology)
	if err != nil {
		return ""
	}
	if n, e := r.topology.Pick(now, slot); e == nil {
		return n.Addr()
	}
	return ""
}

// RenewSubscriptions ends the connection for pub/sub of a node, as
// [Redis.SubscriptionNode] names it, and those of all nodes for "". Each
// Subscribe on it returns an error, and the next one connects again. It is for who
// knows that messages do not come although the server answers, as behind a
// balancer that has put another server in the place of the one subscribed to. Only
// the packages of this module can call it.
func (r *Redis) RenewSubscriptions(_ sealed.Key, address string) {
	r.topology.Each(func(n *node.Node) {
		if address == "" || n.Addr() == address {
			n.Conns.CloseSubscriptions()
		}
	})
}

func refusedClosed(op string) *fault.Error {
	return fault.NotSent(op, fault.KindUnavailable, fault.ErrClosed)
}
