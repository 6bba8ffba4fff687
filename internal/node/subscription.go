package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/guard"
)

const (
	// unsubscribeWait is how long the last listener of a channel waits until the
	// server has confirmed that the subscription is over.
	unsubscribeWait = 100 * time.Millisecond
	// unsubscribeTimeout is when the connection is given up because no
	// confirmation came.
	unsubscribeTimeout = 5 * time.Second
)

// Subscriptions are the shared subscriptions of all calls of Subscribe. rueidis
// delivers messages through a small queue from the moment when a subscription is
// registered, and reads that queue only between the replies to SUBSCRIBE and
// UNSUBSCRIBE. While the queue is full, the reader of the connection waits, and
// so does that very reply. Therefore at most one subscription of rueidis exists
// for a channel, and it goes on receiving until the server has confirmed
// UNSUBSCRIBE.
type Subscriptions struct {
	calls *atomic.Int64
	Life  context.Context // ends with Close
	stop  context.CancelFunc

	mu     sync.Mutex
	shared map[subscription]*sharedSubscription
}

// Init makes s usable. calls counts what receives, so that Close waits for it.
func (s *Subscriptions) Init(calls *atomic.Int64) {
	s.calls, s.shared = calls, map[subscription]*sharedSubscription{}
	s.Life, s.stop = context.WithCancel(context.Background())
}

// StopAll ends every subscription, for Close.
func (s *Subscriptions) StopAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

// subscription names one of a server.
type subscription struct {
	node    *Node
	op      string // SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE
	channel string
}

// sharedSubscription receives some channels for all their listeners.
type sharedSubscription struct {
	subs     *Subscriptions
	node     *Node
	op       string
	channels []string
	ctx      context.Context
	cancel   context.CancelFunc
	ended    chan struct{}

	// With subs.mu:
	listeners     int
	leaving       bool // no one can join any more
	unsubscribing sync.WaitGroup

	mu        sync.Mutex
	heard     map[string][]*listener // by channel; lists are not changed
	confirmed map[string]bool
}

// Handler is what a listener calls. OnSubscribed may be nil.
type Handler struct {
	OnMessage    func(rueidis.PubSubMessage)
	OnSubscribed func(channel string)
}

// listener is one call of Subscribe.
type listener struct {
	ctx     context.Context
	handler Handler
	over    chan error // why one of its shared ended
	left    atomic.Bool

	mu   sync.Mutex // while it is called
	gone bool
}

// Listen calls h for the messages of some channels of a node.
func (s *Subscriptions) Listen(ctx context.Context, n *Node, op string, channels []string, h Handler) error {
	l := &listener{ctx: ctx, handler: h, over: make(chan error, 1)}
	shared := s.join(n, op, channels, l)
	if shared == nil {
		return fault.ErrCallerLeft
	}
	defer s.leave(l, shared)
	select {
	case err := <-l.over:
		return err
	case <-ctx.Done():
		return fault.ErrCallerLeft
	}
}

// join lets l listen to the shared of all channels, and begins one for those
// that have none. It returns nil when l's context ended before that.
func (s *Subscriptions) join(n *Node, op string, channels []string, l *listener) []*sharedSubscription {
	l.mu.Lock() // OnSubscribed is called before it gets messages
	defer l.mu.Unlock()
	for {
		list, welcome, wait := s.tryJoin(n, op, channels, l)
		if wait == nil {
			for _, tell := range welcome {
				tell()
			}
			return list
		}
		select {
		case <-wait:
		case <-l.ctx.Done():
			return nil
		}
	}
}

// tryJoin is join, where nothing has to be waited for.
func (s *Subscriptions) tryJoin(n *Node, op string, channels []string, l *listener) (list []*sharedSubscription, welcome []func(), wait <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Life.Err() != nil {
		return nil, nil, nil
	}
	for _, channel := range channels {
		if c := s.shared[subscription{n, op, channel}]; c != nil && c.leaving {
			return nil, nil, c.ended
		}
	}
	var own *sharedSubscription
	for _, channel := range channels {
		key := subscription{n, op, channel}
		c := s.shared[key]
		if c == nil {
			if own == nil {
				own = s.newSharedSubscription(n, op)
			}
			c = own
			c.channels = append(c.channels, channel)
			s.shared[key] = c
		}
		if !slices.Contains(list, c) {
			list = append(list, c)
			c.listeners++
		}
		if tell := c.add(channel, l); tell != nil {
			welcome = append(welcome, tell)
		}
	}
	if own != nil {
		s.calls.Add(1)
		go own.run()
	}
	return list, welcome, nil
}

func (s *Subscriptions) newSharedSubscription(n *Node, op string) *sharedSubscription {
	c := &sharedSubscription{
		subs: s, node: n, op: op, ended: make(chan struct{}),
		heard: map[string][]*listener{}, confirmed: map[string]bool{},
	}
	c.ctx, c.cancel = context.WithCancel(s.Life)
	return c
}

// leave removes l. Subscriptions without listeners end; they are
// waited for a moment.
func (s *Subscriptions) leave(l *listener, shared []*sharedSubscription) {
	l.left.Store(true)
	l.mu.Lock()
	l.gone = true
	l.mu.Unlock()
	var last []*sharedSubscription
	s.mu.Lock()
	for _, c := range shared {
		c.remove(l)
		if c.listeners--; c.listeners == 0 && !c.leaving {
			c.leaving = true
			last = append(last, c)
			c.unsubscribing.Go(c.unsubscribe)
		}
	}
	s.mu.Unlock()
	if len(last) == 0 || last[0].node.Availability.Load() == availability.Closed {
		return
	}
	enough := time.NewTimer(unsubscribeWait)
	defer enough.Stop()
	for _, c := range last {
		select {
		case <-c.ended:
		case <-enough.C:
			return
		}
	}
}

// add lets l hear a channel, and returns what tells it that it is subscribed,
// where that is so.
func (c *sharedSubscription) add(channel string, l *listener) (tell func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.heard[channel]
	if slices.Contains(list, l) {
		return nil
	}
	c.heard[channel] = append(slices.Clip(list), l)
	if c.confirmed[channel] {
		return func() { l.notify(channel) }
	}
	return nil
}

func (c *sharedSubscription) remove(l *listener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for channel, list := range c.heard {
		if i := slices.Index(list, l); i >= 0 {
			c.heard[channel] = slices.Concat(list[:i], list[i+1:])
		}
	}
}

// run receives until the connection is lost, the server has ended it, or
// the last listener has left.
func (c *sharedSubscription) run() {
	defer c.subs.calls.Add(-1)
	defer close(c.ended)
	defer c.cancel()
	ctx := rueidis.WithOnSubscriptionHook(c.ctx, c.onSubscription)
	err := error(guard.ErrGoexit)
	defer func() { c.end(err) }() // also where a listener ended this goroutine
	err = c.node.Sub.Receive(ctx, c.command(c.op), c.deliver)
}

// end tells those who listen why nothing more comes.
func (c *sharedSubscription) end(err error) {
	s := c.subs
	s.mu.Lock()
	c.leaving = true
	s.mu.Unlock()
	c.unsubscribing.Wait()
	s.mu.Lock()
	for _, channel := range c.channels {
		delete(s.shared, subscription{c.node, c.op, channel})
	}
	s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, list := range c.heard {
		for _, l := range list {
			l.stopWith(err)
		}
	}
}

func (l *listener) stopWith(err error) {
	select {
	case l.over <- err:
	default: // it knows
	}
}

func (c *sharedSubscription) command(op string) rueidis.Completed {
	b := c.node.Sub.B()
	switch op {
	case "SUBSCRIBE":
		return b.Subscribe().Channel(c.channels...).Build()
	case "PSUBSCRIBE":
		return b.Psubscribe().Pattern(c.channels...).Build()
	case "SSUBSCRIBE":
		return b.Ssubscribe().Channel(c.channels...).Build()
	case "UNSUBSCRIBE":
		return b.Unsubscribe().Channel(c.channels...).Build()
	case "PUNSUBSCRIBE":
		return b.Punsubscribe().Pattern(c.channels...).Build()
	}
	return b.Sunsubscribe().Channel(c.channels...).Build()
}

// unsubscribe has the server end it, which ends run. Where no answer comes, the
// connection is not believed any more: it might bring messages for ever that
// no one hears.
func (c *sharedSubscription) unsubscribe() {
	defer c.cancel()
	op := map[string]string{"SUBSCRIBE": "UNSUBSCRIBE", "PSUBSCRIBE": "PUNSUBSCRIBE", "SSUBSCRIBE": "SUNSUBSCRIBE"}[c.op]
	ctx, done := context.WithTimeout(c.subs.Life, unsubscribeTimeout)
	defer done()
	err := c.node.Sub.Do(ctx, c.command(op)).Error()
	if errors.Is(err, context.DeadlineExceeded) {
		c.node.Conns.CloseSubscriptions()
	}
}

// onSubscription runs on the reader of the connection.
func (c *sharedSubscription) onSubscription(p rueidis.PubSubSubscription) {
	c.mu.Lock()
	c.confirmed[p.Channel] = p.Kind == "subscribe" || p.Kind == "psubscribe" || p.Kind == "ssubscribe"
	var list []*listener
	if c.confirmed[p.Channel] {
		list = c.heard[p.Channel]
	}
	c.mu.Unlock()
	for _, l := range list {
		l.notify(p.Channel)
	}
}

func (c *sharedSubscription) deliver(m rueidis.PubSubMessage) {
	channel := m.Channel
	if c.op == "PSUBSCRIBE" {
		channel = m.Pattern
	}
	c.mu.Lock()
	list := c.heard[channel]
	c.mu.Unlock()
	for _, l := range list {
		l.hear(m)
	}
}

func (l *listener) hear(m rueidis.PubSubMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return
	}
	defer func() {
		if p := recover(); p != nil { // the others go on listening
			l.gone = true
			l.stopWith(fmt.Errorf("Handler.OnMessage: %w", guard.Recovered(p)))
		}
	}()
	l.handler.OnMessage(m)
}

// notify says that a channel is subscribed.
func (l *listener) notify(channel string) {
	if l.left.Load() || l.handler.OnSubscribed == nil {
		return
	}
	// The connection's reader calls it, which must go on whatever it does.
	if err := guard.Apart(func() error { l.handler.OnSubscribed(channel); return nil }); err != nil {
		l.stopWith(fmt.Errorf("Handler.OnSubscribed: %w", err))
	}
}
