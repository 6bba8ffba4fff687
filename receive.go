package madcrow

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// unsubscribeTimeout bounds the farewell of the last subscriber of a channel.
const unsubscribeTimeout = 100 * time.Millisecond

// subscriptions counts the local subscribers of each channel, so that the last
// one to leave unsubscribes at the server.
type subscriptions struct {
	mu     sync.Mutex
	topics map[string]*topic // "address SUBSCRIBE channel"
	cancel map[*context.CancelFunc]struct{}
	over   bool
}

// topic is one channel or pattern.
type topic struct {
	subscribers int
	// farewell is set while the last subscriber unsubscribes, and closed after
	// it: who comes then must subscribe after that and not before.
	farewell chan struct{}
}

// Receive subscribes, with a SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE command, on
// the connection for pub/sub and calls fn for each message, in order, until
// ctx ends. It returns nil when the server ended the subscription, otherwise an
// [*Error]; messages sent while nobody listens are lost, and Receive does not
// subscribe again by itself. A slow fn holds up all subscribers of this Redis:
// hand messages on. rueidis.WithOnSubscriptionHook tells when it is subscribed,
// and may still be called, with the farewell, after Receive has returned;
// WithOnReceiveReturnHook is used here and not passed on.
func (r *Redis) Receive(ctx context.Context, subscribe func(Builder) Command, fn func(rueidis.PubSubMessage)) error {
	cmd := subscribe(r.builder)
	op, channels := cmd.Commands()[0], append([]string(nil), cmd.Commands()[1:]...)
	if !cmd.NoReply() || strings.Contains(op, "UNSUB") || len(channels) == 0 {
		return &Error{Op: op, Kind: KindServer, Outcome: OutcomeNotApplied, Err: errNoSubscription}
	}
	n, e := r.pick(ctx, subscriptionSlot(cmd))
	if e == nil {
		e = n.gate.pass(ctx)
	}
	if e != nil {
		return e.of(op)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !r.subs.join(&cancel) {
		return refusedClosed(op)
	}
	// The client may be deaf to ctx while it connects or a queue is full, so it
	// runs where it can be left; then fn is not called any more.
	var calling sync.Mutex
	gone := false
	deliver := func(m rueidis.PubSubMessage) {
		calling.Lock()
		defer calling.Unlock()
		if !gone {
			fn(m)
		}
	}
	r.calls.Add(1)
	err := leave(ctx, func() error {
		defer r.calls.Add(-1)
		defer r.subs.part(&cancel)
		err := n.receive(ctx, &r.subs, op, channels, cmd, deliver)
		for hops := 0; err != nil && hops < maxHops; hops++ { // a sharded channel moves with its slot
			next, moved := r.follow(n, err)
			if !moved {
				break
			}
			n = next.node
			err = n.receive(ctx, &r.subs, op, channels, subscribe(r.builder), deliver)
		}
		return err
	}, func() {})
	calling.Lock()
	gone = true
	calling.Unlock()
	if err == nil {
		return nil
	}
	if err == errLeft {
		return &Error{Op: op, Kind: contextKind(ctx.Err()), Outcome: OutcomeNotApplied, Err: ctx.Err()}
	}
	return n.failed(ctx, op, err, true).Error
}

// subscriptionSlot says which slot's node tells of a channel: any node tells of
// all but sharded ones.
func subscriptionSlot(cmd Command) uint16 {
	if cmd.Commands()[0] == "SSUBSCRIBE" {
		return cmd.Slot()
	}
	return keyless
}

// SubscriptionNode says on which node a subscription would be now, by its
// address; "" is none. Those of one node share a connection. It asks nobody.
func (r *Redis) SubscriptionNode(subscribe func(Builder) Command) string {
	now, cancel := context.WithCancel(r.life)
	cancel()
	if n, e := r.pick(now, subscriptionSlot(subscribe(r.builder))); e == nil {
		return n.addr()
	}
	return ""
}

// RenewSubscriptions ends the connection for pub/sub of a node, as
// [Redis.SubscriptionNode] names it, and those of all nodes for "". Each
// Receive on it returns an error, and the next one connects anew. It is for who
// knows that messages do not come although the server answers, as behind a
// balancer that has put another server in the place of the one subscribed to.
func (r *Redis) RenewSubscriptions(address string) {
	r.each(func(n *node) {
		if address == "" || n.addr() == address {
			n.conns.dropThose(func(c *conn) bool { return c.sub })
		}
	})
}

func refusedClosed(op string) *Error {
	return &Error{Op: op, Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: ErrClosed}
}

func (n *node) receive(ctx context.Context, subs *subscriptions, op string, channels []string, cmd Command, deliver func(rueidis.PubSubMessage)) error {
	op = n.addr() + " " + op // each node has subscriptions of its own
	if err := subs.add(ctx, op, channels); err != nil {
		return err
	}
	parted := false
	hooked := rueidis.WithOnReceiveReturnHook(ctx, func(err error, c rueidis.CommandClient) error {
		parted = true
		if n.gate.state.Load() == gateClosed {
			c = nil // in doubt, or away, it may still be subscribed
		}
		subs.leave(op, channels, c)
		return err
	})
	err := n.sub.Receive(hooked, cmd, deliver)
	if !parted {
		subs.leave(op, channels, nil)
	}
	return err
}

func (s *subscriptions) join(cancel *context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.cancel[cancel] = struct{}{}
	}
	return !s.over
}

func (s *subscriptions) part(cancel *context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cancel, cancel)
}

// add counts a subscriber in, after a farewell that is under way.
func (s *subscriptions) add(ctx context.Context, op string, channels []string) error {
	for i, ch := range channels {
		for {
			s.mu.Lock()
			t := s.topics[op+" "+ch]
			if t == nil {
				t = &topic{}
				s.topics[op+" "+ch] = t
			}
			wait := t.farewell
			if wait == nil {
				t.subscribers++
			}
			s.mu.Unlock()
			if wait == nil {
				break
			}
			select {
			case <-wait:
			case <-ctx.Done():
				s.leave(op, channels[:i], nil)
				return ctx.Err()
			}
		}
	}
	return nil
}

// leave counts a subscriber out and unsubscribes from the channels that have
// none left, when there is a connection.
func (s *subscriptions) leave(op string, channels []string, c rueidis.CommandClient) {
	s.mu.Lock()
	var last []string
	done := make(chan struct{})
	for _, ch := range channels {
		t := s.topics[op+" "+ch]
		if t.subscribers--; t.subscribers == 0 {
			t.farewell = done
			last = append(last, ch)
		}
	}
	farewell := c != nil && len(last) > 0 && !s.over
	s.mu.Unlock()
	if farewell {
		unsubscribe(op, last, c)
	}
	s.mu.Lock()
	for _, ch := range last {
		delete(s.topics, op+" "+ch)
	}
	s.mu.Unlock()
	close(done)
}

func unsubscribe(op string, channels []string, c rueidis.CommandClient) {
	ctx, done := context.WithTimeout(context.Background(), unsubscribeTimeout)
	defer done()
	b := c.B()
	switch op[strings.LastIndexByte(op, ' ')+1:] {
	case "SUBSCRIBE":
		c.Do(ctx, b.Unsubscribe().Channel(channels...).Build())
	case "PSUBSCRIBE":
		c.Do(ctx, b.Punsubscribe().Pattern(channels...).Build())
	case "SSUBSCRIBE":
		c.Do(ctx, b.Sunsubscribe().Channel(channels...).Build())
	}
}

// stopAll ends every subscription, for Close.
func (s *subscriptions) stopAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for cancel := range s.cancel {
		(*cancel)()
	}
}
