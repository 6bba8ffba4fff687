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
	count  map[string]int // "SUBSCRIBE channel"
	cancel map[*context.CancelFunc]struct{}
	over   bool
}

// Receive subscribes, with a SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE command, on
// the connection for pub/sub and calls fn for each message, in order, until
// ctx ends. It returns nil when the server ended the subscription, otherwise an
// [*Error]; messages sent while nobody listens are lost, and Receive does not
// subscribe again by itself. A slow fn holds up all subscribers of this Redis:
// hand messages on. rueidis.WithOnSubscriptionHook tells when it is subscribed.
func (r *Redis) Receive(ctx context.Context, subscribe func(Builder) Command, fn func(rueidis.PubSubMessage)) error {
	n := r.node
	cmd := subscribe(n.sub.B())
	op, channels := cmd.Commands()[0], append([]string(nil), cmd.Commands()[1:]...)
	if !cmd.NoReply() || strings.Contains(op, "UNSUB") || len(channels) == 0 {
		return &Error{Op: op, Kind: KindServer, Outcome: OutcomeNotApplied, Err: errNoSubscription}
	}
	if err := n.gate.pass(ctx); err != nil {
		return notSent(err, cmd)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !r.subs.add(op, channels, &cancel) {
		return &Error{Op: op, Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: ErrClosed}
	}
	r.calls.Add(1)
	defer r.calls.Add(-1)
	left := sync.OnceFunc(func() { r.subs.leave(op, channels, &cancel, nil) })
	defer left()
	hooked := rueidis.WithOnReceiveReturnHook(ctx, func(err error, c rueidis.CommandClient) error {
		r.subs.leave(op, channels, &cancel, c)
		left = func() {}
		return err
	})
	err := n.sub.Receive(hooked, cmd, fn)
	if err == nil {
		return nil
	}
	return n.failed(ctx, op, err, true).Error
}

func (s *subscriptions) add(op string, channels []string, cancel *context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.cancel[cancel] = struct{}{}
	for _, ch := range channels {
		s.count[op+" "+ch]++
	}
	return true
}

// leave counts a subscriber out and unsubscribes from the channels that have
// none left. It holds the lock meanwhile, so that a new subscriber of the same
// channel subscribes after that and not before.
func (s *subscriptions) leave(op string, channels []string, cancel *context.CancelFunc, c rueidis.CommandClient) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cancel, cancel)
	var last []string
	for _, ch := range channels {
		key := op + " " + ch
		if s.count[key]--; s.count[key] <= 0 {
			delete(s.count, key)
			last = append(last, ch)
		}
	}
	if c == nil || len(last) == 0 || s.over {
		return
	}
	ctx, done := context.WithTimeout(context.Background(), unsubscribeTimeout)
	defer done()
	b := c.B()
	switch op {
	case "SUBSCRIBE":
		c.Do(ctx, b.Unsubscribe().Channel(last...).Build())
	case "PSUBSCRIBE":
		c.Do(ctx, b.Punsubscribe().Pattern(last...).Build())
	case "SSUBSCRIBE":
		c.Do(ctx, b.Sunsubscribe().Channel(last...).Build())
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
