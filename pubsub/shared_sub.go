package pubsub

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/sealed"
)

// mode is how a channel is subscribed to.
type mode uint8

const (
	modeChannel mode = iota
	modePattern
	modeSharded
)

// channelKey names one server subscription; channel has the prefix.
type channelKey struct {
	mode    mode
	channel string
}

// sharedSub is one subscription at the server and its local subscribers. Its run
// goroutine subscribes; the reader of the connection delivers.
type sharedSub struct {
	b     *Bus
	key   channelKey
	name  string // of the topic or the pattern, for events
	probe bool   // it is the bus's own, see probe.go
	stop  context.CancelFunc

	mu        sync.Mutex
	listeners []listener
	typed     int       // how many of them are not plain
	attempt   int       // counts the subscriptions; that of an earlier one is late
	conn      *subConn  // where the messages come from
	confirmed bool      // the server delivers now
	lost      time.Time // since when it does not any more
	failed    error     // why it has ended for good
	seen      sequences
	lateTimer *time.Timer // gives up missing messages
}

// listener is a local subscriber of a sharedSub.
type listener struct {
	*subscriber
	notified bool // it got EventSubscribed
}

const (
	// confirmWithin is how long a subscription may take before it is tried
	// again.
	confirmWithin  = 5 * time.Second
	reconnectRetry = 4 * time.Millisecond // after a connection that was lost
	minRetry       = 25 * time.Millisecond
	maxRetry       = 500 * time.Millisecond
)

// join adds a subscriber to the shared subscription of a channel, and starts that
// where there is none.
func (b *Bus) join(key channelKey, sub *subscriber) (*sharedSub, error) {
	if sub.dropped == nil {
		sub.dropped = func(n int) { b.event(context.Background(), madcrow.EventPubSubDropped, b.topicName(key.name(b)), n) }
	}
	if sub.maxBytes == 0 { // it may have joined others already, which read maxBytes
		sub.maxBytes = b.queueBytes
	}
	return b.addListener(key, sub, false)
}

func (b *Bus) addListener(key channelKey, sub *subscriber, probe bool) (*sharedSub, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	f := b.shared[key]
	if f == nil {
		f = &sharedSub{b: b, key: key, name: b.topicName(key.name(b)), probe: probe}
		var ctx context.Context
		ctx, f.stop = context.WithCancel(b.ctx)
		b.shared[key] = f
		if !probe {
			b.startProbing()
		}
		b.wg.Go(func() { f.run(ctx) })
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return nil, f.failed
	}
	if !sub.plain {
		f.typed++
	}
	f.listeners = append(f.listeners, listener{sub, f.confirmed})
	if f.confirmed {
		sub.push(item{kind: EventSubscribed})
	}
	return f, nil
}

// removeShared removes a subscription that ended from the bus, which is locked.
func (b *Bus) removeShared(f *sharedSub) {
	if b.shared[f.key] != f {
		return
	}
	delete(b.shared, f.key)
	if !f.probe {
		b.stopProbing()
	}
}

// remove removes a subscriber, and ends the subscription with the last one.
func (f *sharedSub) remove(sub *subscriber) {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.listeners, func(l listener) bool { return l.subscriber == sub })
	if i < 0 {
		return
	}
	f.listeners = slices.Delete(f.listeners, i, i+1)
	if !sub.plain {
		f.typed--
	}
	if f.typed == 0 {
		f.seen = sequences{} // no one counts on from here
	}
	if len(f.listeners) == 0 {
		f.stop()
		f.b.removeShared(f)
	}
}

// run subscribes again after each loss, until no subscriber is left or the error is
// permanent.
func (f *sharedSub) run(ctx context.Context) {
	wait := minRetry
	for {
		select {
		case f.b.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := f.receive(ctx)
		if f.key.mode == modeSharded {
			err = nameNoSharded(err)
		}
		if ctx.Err() != nil {
			return
		}
		if f.noteInterrupted(err) {
			wait = reconnectRetry
		}
		if permanent(err) {
			f.fail(err)
			return
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2)) //nolint:gosec // no secret
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(2*wait, maxRetry)
	}
}

// receive subscribes once. It holds a slot until that is confirmed.
func (f *sharedSub) receive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	release := sync.OnceFunc(func() { <-f.b.slots })
	defer release()
	tooLate := time.AfterFunc(confirmWithin, cancel)
	defer tooLate.Stop()
	conn := f.b.subConnOf(f.b.r.SubscriptionNode(sealed.Key{}, f.key.subscription()))
	f.mu.Lock()
	f.attempt++
	attempt := f.attempt
	f.conn = conn
	f.mu.Unlock()
	return f.b.r.Subscribe(ctx, f.key.subscription(), madcrow.Handler{OnMessage: f.deliver, OnSubscribed: func(string) {
		if ctx.Err() == nil {
			tooLate.Stop()
			release()
			f.confirm(attempt)
		}
	}})
}

// name is the channel or the pattern as the program gave it.
func (k channelKey) name(b *Bus) string {
	prefix := b.prefix
	if k.mode == modePattern {
		prefix = escapePattern(prefix)
	}
	return strings.TrimPrefix(k.channel, prefix)
}

func (k channelKey) subscription() madcrow.Subscription {
	one := []string{k.channel}
	switch k.mode {
	case modePattern:
		return madcrow.Subscription{Patterns: one}
	case modeSharded:
		return madcrow.Subscription{Sharded: one}
	}
	return madcrow.Subscription{Channels: one}
}

// confirm notifies the subscribers that messages come from now on. A confirmation
// of an earlier attempt is too late and ignored.
func (f *sharedSub) confirm(attempt int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.confirmed || f.attempt != attempt {
		return
	}
	now := time.Now()
	f.confirmed = true
	f.conn.noteReceived(now)
	gap := item{kind: EventGap, since: f.lost, until: now}
	if !f.lost.IsZero() && !f.probe {
		f.b.event(context.Background(), madcrow.EventPubSubGap, f.name, 1)
	}
	f.lost = time.Time{}
	for i := range f.listeners {
		l := &f.listeners[i]
		if !l.notified { // it was added while the connection was lost
			l.notified = true
			l.push(item{kind: EventSubscribed})
		} else {
			l.push(gap)
		}
	}
}

// noteInterrupted notes that messages do not come any more, and why. It returns
// whether they did.
func (f *sharedSub) noteInterrupted(err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.confirmed
	f.attempt++ // a confirmation that is still on its way is late
	if f.confirmed = false; was {
		f.lost = f.conn.lostSince(err, time.Now())
		f.notify(item{kind: EventInterrupted})
	}
	return was
}

// fail ends the subscription for all subscribers. They wrap the error.
func (f *sharedSub) fail(err error) {
	f.b.mu.Lock()
	f.b.removeShared(f)
	f.b.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = err
	for _, sub := range f.listeners {
		sub.end(f.key, err)
	}
}

// notify adds an event that is no message to the queues of all subscribers that
// got EventSubscribed. The subscription is locked.
func (f *sharedSub) notify(it item) {
	for _, l := range f.listeners {
		if l.notified && (it.kind != EventMissed || !l.plain) {
			l.push(it)
		}
	}
}

// deliver runs on the reader of the connection: it never waits.
func (f *sharedSub) deliver(m madcrow.PubSubMessage) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn.noteReceived(now)
	reserved := f.key.mode == modePattern && f.b.reserved(m.Channel)
	msg, fresh := &message{channel: m.Channel, raw: m.Payload, payload: m.Payload, shared: len(f.listeners) > 1}, true
	if f.typed > 0 && !reserved {
		if env, ok := parseEnvelope(m.Payload); ok {
			var missing int
			env.publisher, missing, fresh = f.seen.record(m.Channel, env, now)
			msg.env, msg.payload = env, env.payload
			f.conn.noteDelay(now, env.sent)
			f.notifyMissed(missing)
			f.scheduleLate()
		}
	}
	for _, l := range f.listeners {
		if (fresh || l.plain) && (!reserved || l.reserved) {
			l.push(item{kind: EventMessage, message: msg})
		}
	}
	if !f.probe {
		f.b.event(context.Background(), madcrow.EventPubSubReceived, f.name, 1)
	}
}

// reserved says whether a channel, with its prefix, must not be delivered to
// patterns without TopicOptions.Reserved.
func (b *Bus) reserved(channel string) bool {
	return keys.ReservedChannel(b.prefix, strings.TrimPrefix(channel, b.prefix)) != ""
}

// notifyMissed notifies of typed messages that did not come. The subscription is
// locked.
func (f *sharedSub) notifyMissed(n int) {
	if n > 0 {
		f.b.event(context.Background(), madcrow.EventPubSubMissed, f.name, n)
		f.notify(item{kind: EventMissed, n: n})
	}
}

// scheduleLate gives up missing messages when their time is over, also when no
// further message comes. The subscription is locked.
func (f *sharedSub) scheduleLate() {
	if f.lateTimer != nil || f.seen.openHoles == 0 {
		return
	}
	f.lateTimer = time.AfterFunc(reorderWithin/4, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lateTimer = nil
		f.notifyMissed(f.seen.expire(time.Now()))
		f.scheduleLate()
	})
}
