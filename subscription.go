package madcrow

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
	"github.com/madcrow-go/madcrow/internal/node"
)

const (
	// farewellWait is how long who leaves as the last one waits for the server
	// to know that.
	farewellWait = 100 * time.Millisecond
	// farewellTimeout is when the connection is given up instead.
	farewellTimeout = 5 * time.Second
)

// subscriptions are those of all who receive. The client hands messages over
// in a queue of few places from the moment when a subscription is registered,
// and takes them from there only between the answers to SUBSCRIBE and
// UNSUBSCRIBE; while the queue is full, the connection's reader waits, and with
// it that very answer. So a channel is never registered when the server may
// tell of it already: each has one carrier at a time, which goes on receiving
// until the server has said that it is over.
type subscriptions struct {
	calls *atomic.Int64
	life  context.Context // ends with Close
	stop  context.CancelFunc

	mu       sync.Mutex
	carriers map[subscription]*carrier
}

func (s *subscriptions) init(calls *atomic.Int64) {
	s.calls, s.carriers = calls, map[subscription]*carrier{}
	s.life, s.stop = context.WithCancel(context.Background())
}

// stopAll ends every subscription, for Close.
func (s *subscriptions) stopAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

// subscription names one of a server.
type subscription struct {
	node    *node.Node
	op      string // SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE
	channel string
}

// carrier receives some channels for all who listen to them.
type carrier struct {
	subs     *subscriptions
	node     *node.Node
	op       string
	channels []string
	ctx      context.Context
	cancel   context.CancelFunc
	ended    chan struct{}

	// With subs.mu:
	listeners int
	leaving   bool // nobody can join any more
	farewell  sync.WaitGroup

	mu        sync.Mutex
	heard     map[string][]*listener // by channel; lists are not changed
	confirmed map[string]rueidis.PubSubSubscription
	hookKey   any // of the subscription hook in a context
}

// listener is one call of Receive.
type listener struct {
	ctx  context.Context
	fn   func(rueidis.PubSubMessage)
	over chan error // why one of its carriers ended
	left atomic.Bool

	mu   sync.Mutex // while it is called
	gone bool
}

// listen calls fn for the messages of some channels of a node.
func (s *subscriptions) listen(ctx context.Context, n *node.Node, op string, channels []string, fn func(rueidis.PubSubMessage)) error {
	l := &listener{ctx: ctx, fn: fn, over: make(chan error, 1)}
	carriers := s.join(n, op, channels, l)
	if carriers == nil {
		return fault.ErrCallerLeft
	}
	defer s.part(l, carriers)
	select {
	case err := <-l.over:
		return err
	case <-ctx.Done():
		return fault.ErrCallerLeft
	}
}

// join lets l listen to the carriers of all channels, and begins one for those
// that have none. It returns nil when l's context ended before that.
func (s *subscriptions) join(n *node.Node, op string, channels []string, l *listener) []*carrier {
	l.mu.Lock() // it is told of its subscriptions before messages
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

// tryJoin is join, if nobody has to be waited for.
func (s *subscriptions) tryJoin(n *node.Node, op string, channels []string, l *listener) (list []*carrier, welcome []func(), wait <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return nil, nil, nil
	}
	for _, channel := range channels {
		if c := s.carriers[subscription{n, op, channel}]; c != nil && c.leaving {
			return nil, nil, c.ended
		}
	}
	var own *carrier
	for _, channel := range channels {
		key := subscription{n, op, channel}
		c := s.carriers[key]
		if c == nil {
			if own == nil {
				own = s.newCarrier(n, op)
			}
			c = own
			c.channels = append(c.channels, channel)
			s.carriers[key] = c
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

func (s *subscriptions) newCarrier(n *node.Node, op string) *carrier {
	c := &carrier{
		subs: s, node: n, op: op, ended: make(chan struct{}),
		heard: map[string][]*listener{}, confirmed: map[string]rueidis.PubSubSubscription{},
	}
	c.ctx, c.cancel = context.WithCancel(s.life)
	return c
}

// part takes l out. Carriers that nobody listens to any more end; they are
// waited for a moment.
func (s *subscriptions) part(l *listener, carriers []*carrier) {
	l.left.Store(true)
	l.mu.Lock()
	l.gone = true
	l.mu.Unlock()
	var last []*carrier
	s.mu.Lock()
	for _, c := range carriers {
		c.remove(l)
		if c.listeners--; c.listeners == 0 && !c.leaving {
			c.leaving = true
			last = append(last, c)
			c.farewell.Go(c.unsubscribe)
		}
	}
	s.mu.Unlock()
	if len(last) == 0 || last[0].node.Availability.Load() == availability.Closed {
		return
	}
	enough := time.NewTimer(farewellWait)
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
func (c *carrier) add(channel string, l *listener) (tell func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.heard[channel]
	if slices.Contains(list, l) {
		return nil
	}
	c.heard[channel] = append(slices.Clip(list), l)
	if p, ok := c.confirmed[channel]; ok {
		key := c.hookKey
		return func() { l.tell(p, key) }
	}
	return nil
}

func (c *carrier) remove(l *listener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for channel, list := range c.heard {
		if i := slices.Index(list, l); i >= 0 {
			c.heard[channel] = slices.Concat(list[:i], list[i+1:])
		}
	}
}

// run receives until the connection is lost, the server has ended it, or
// nobody listens any more.
func (c *carrier) run() {
	defer c.subs.calls.Add(-1)
	defer close(c.ended)
	defer c.cancel()
	ctx := hookFinder{rueidis.WithOnSubscriptionHook(c.ctx, c.told), c}
	err := error(guard.ErrGoexit)
	defer func() { c.end(err) }() // also where a listener ended this goroutine
	err = c.node.Sub.Receive(ctx, c.command(c.op), c.deliver)
}

// end tells those who listen why nothing more comes.
func (c *carrier) end(err error) {
	s := c.subs
	s.mu.Lock()
	c.leaving = true
	s.mu.Unlock()
	c.farewell.Wait()
	s.mu.Lock()
	for _, channel := range c.channels {
		delete(s.carriers, subscription{c.node, c.op, channel})
	}
	s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, list := range c.heard {
		for _, l := range list {
			l.end(err)
		}
	}
}

func (l *listener) end(err error) {
	select {
	case l.over <- err:
	default: // it knows
	}
}

func (c *carrier) command(op string) Command {
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
// connection is not believed any more: it might bring for ever what nobody
// hears.
func (c *carrier) unsubscribe() {
	defer c.cancel()
	op := map[string]string{"SUBSCRIBE": "UNSUBSCRIBE", "PSUBSCRIBE": "PUNSUBSCRIBE", "SSUBSCRIBE": "SUNSUBSCRIBE"}[c.op]
	ctx, done := context.WithTimeout(c.subs.life, farewellTimeout)
	defer done()
	err := c.node.Sub.Do(ctx, c.command(op)).Error()
	if errors.Is(err, context.DeadlineExceeded) {
		c.node.Conns.CloseSubscriptions()
	}
}

// told runs on the reader of the connection.
func (c *carrier) told(p rueidis.PubSubSubscription) {
	c.mu.Lock()
	switch p.Kind {
	case "subscribe", "psubscribe", "ssubscribe":
		c.confirmed[p.Channel] = p
	default:
		delete(c.confirmed, p.Channel)
	}
	list, key := c.heard[p.Channel], c.hookKey
	c.mu.Unlock()
	for _, l := range list {
		l.tell(p, key)
	}
}

func (c *carrier) deliver(m rueidis.PubSubMessage) {
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
			l.end(fmt.Errorf("the function of Receive: %w", guard.Recovered(p)))
		}
	}()
	l.fn(m)
}

// tell calls the hook of l's context, if it has one.
func (l *listener) tell(p rueidis.PubSubSubscription, hookKey any) {
	if l.left.Load() {
		return
	}
	if hook, ok := l.ctx.Value(hookKey).(func(rueidis.PubSubSubscription)); ok {
		// The connection's reader calls it, which must go on whatever it does.
		if err := guard.Apart(func() error { hook(p); return nil }); err != nil {
			l.end(fmt.Errorf("the subscription hook: %w", err))
		}
	}
}

// hookFinder is a context with a subscription hook. By it the client tells
// under which key, known to itself alone, hooks are found in contexts. It asks
// for that before it subscribes.
type hookFinder struct {
	context.Context
	c *carrier
}

func (h hookFinder) Value(key any) any {
	v := h.Context.Value(key)
	if _, ok := v.(func(rueidis.PubSubSubscription)); ok {
		h.c.mu.Lock()
		h.c.hookKey = key
		h.c.mu.Unlock()
	}
	return v
}
