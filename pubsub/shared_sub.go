package pubsub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/keys"
)

// mode is how a channel is subscribed to.
type mode uint8

const (
	modeChannel mode = iota
	modePattern
	modeSharded
)

// feedKey names one server subscription; channel has the prefix.
type channelKey struct {
	mode    mode
	channel string
}

// feed is one server subscription and those who listen to it here.
type sharedSub struct {
	b     *Bus
	key   channelKey
	probe bool // it is one of the bus' own, see probe.go
	stop  context.CancelFunc

	mu        sync.Mutex
	listeners []listener
	typed     int       // how many of them are not plain
	attempt   int       // counts the subscriptions; that of an earlier one is late
	conn      *subConn  // where the messages come from
	confirmed bool      // the server tells of messages now
	lost      time.Time // since when it does not, after it did
	failed    error     // it cannot be mended
	seen      sequences
	lateTimer *time.Timer // when messages that are missing are given up
}

// listener is a subscriber of a feed.
type listener struct {
	*subscriber
	notified bool // it was told that it is subscribed
}

const (
	// confirmWithin is how long a subscription may take before it is tried
	// anew.
	confirmWithin  = 5 * time.Second
	reconnectRetry = 4 * time.Millisecond // after a connection that was lost
	minRetry       = 25 * time.Millisecond
	maxRetry       = 500 * time.Millisecond
)

// join adds a subscriber to the feed of a channel, and begins the feed where
// there is none.
func (b *Bus) join(key channelKey, sub *subscriber) (*sharedSub, error) {
	if b.rec != nil && sub.dropped == nil {
		sub.dropped = func(n int) { b.event("dropped", n) }
	}
	if sub.maxBytes == 0 { // it may have joined other feeds, which read it
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
		f = &sharedSub{b: b, key: key, probe: probe}
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

// forget takes a feed that ended out of the bus, which is locked.
func (b *Bus) removeShared(f *sharedSub) {
	if b.shared[f.key] != f {
		return
	}
	delete(b.shared, f.key)
	if !f.probe {
		b.stopProbing()
	}
}

// part takes a subscriber out, and ends the feed with the last one.
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
		f.seen = sequences{} // nobody counts on from here
	}
	if len(f.listeners) == 0 {
		f.stop()
		f.b.removeShared(f)
	}
}

// run subscribes again and again, until nobody listens or it makes no sense.
func (f *sharedSub) run(ctx context.Context) {
	wait := minRetry
	for {
		select {
		case f.b.subscribeSem <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := f.receive(ctx)
		if f.key.mode == modeSharded {
			err = noSharded(err)
		}
		if ctx.Err() != nil {
			return
		}
		if f.noteInterrupted(err) {
			wait = reconnectRetry
		}
		if hopeless(err) {
			f.fail(&Error{Channel: strings.TrimPrefix(f.key.channel, f.b.prefix), Op: "subscribe", Err: err})
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

// receive subscribes once. It holds a turn until it is confirmed.
func (f *sharedSub) receive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	turn := sync.OnceFunc(func() { <-f.b.subscribeSem })
	defer turn()
	tooLate := time.AfterFunc(confirmWithin, cancel)
	defer tooLate.Stop()
	conn := f.b.subConnOf(f.b.r.SubscriptionNode(f.key.command))
	f.mu.Lock()
	f.attempt++
	attempt := f.attempt
	f.conn = conn
	f.mu.Unlock()
	hooked := rueidis.WithOnSubscriptionHook(ctx, func(p rueidis.PubSubSubscription) {
		if p.Channel == f.key.channel && (p.Kind == "subscribe" || p.Kind == "psubscribe" || p.Kind == "ssubscribe") && ctx.Err() == nil {
			tooLate.Stop()
			turn()
			f.confirm(attempt)
		}
	})
	return f.b.r.Receive(hooked, f.key.command, f.deliver)
}

func (k channelKey) command(b madcrow.Builder) madcrow.Command {
	switch k.mode {
	case modePattern:
		return b.Psubscribe().Pattern(k.channel).Build()
	case modeSharded:
		return b.Ssubscribe().Channel(k.channel).Build()
	}
	return b.Subscribe().Channel(k.channel).Build()
}

// hopeless says that waiting will not help.
func hopeless(err error) bool {
	return errors.Is(err, madcrow.ErrClosed) || errors.Is(err, madcrow.ErrPermission) || errors.Is(err, madcrow.ErrConfig) || errors.Is(err, ErrTooOld)
}

// noSharded names the reason of a server without sharded channels.
func noSharded(err error) error {
	if err != nil && strings.Contains(err.Error(), "unknown command") {
		return fmt.Errorf("%w: sharded channels need Redis 7.0 or later: %w", ErrTooOld, err)
	}
	return err
}

// confirm tells that messages come from now on. That of an earlier attempt
// comes too late.
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
		f.b.event("gap", 1)
	}
	f.lost = time.Time{}
	for i := range f.listeners {
		l := &f.listeners[i]
		if !l.notified { // it came while there was nothing to hear
			l.notified = true
			l.push(item{kind: EventSubscribed})
		} else {
			l.push(gap)
		}
	}
}

// interrupted notes that messages do not come any more, and why. It says
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

// fail ends the feed for everybody.
func (f *sharedSub) fail(err error) {
	f.b.mu.Lock()
	f.b.removeShared(f)
	f.b.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = err
	for _, sub := range f.listeners {
		sub.end(err)
	}
}

// tell hands what is no message to everybody who was told that it is
// subscribed. The feed is locked.
func (f *sharedSub) notify(it item) {
	for _, l := range f.listeners {
		if l.notified && (it.kind != EventMissed || !l.plain) {
			l.push(it)
		}
	}
}

// deliver runs on the reader of the connection: it never waits.
func (f *sharedSub) deliver(m rueidis.PubSubMessage) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn.noteReceived(now)
	reserved := f.key.mode == modePattern && f.b.reserved(m.Channel)
	msg, fresh := &message{channel: m.Channel, raw: m.Message, payload: m.Message, shared: len(f.listeners) > 1}, true
	if f.typed > 0 && !reserved {
		if env, ok := parseEnvelope(m.Message); ok {
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
		f.b.event("received", 1)
	}
}

// reserved says whether a channel, with its prefix, is none that a pattern of
// strangers may hear.
func (b *Bus) reserved(channel string) bool {
	return keys.ReservedChannel(b.prefix, strings.TrimPrefix(channel, b.prefix)) != ""
}

// missed tells how many typed messages did not come. The feed is locked.
func (f *sharedSub) notifyMissed(n int) {
	if n > 0 {
		f.b.event("missed", n)
		f.notify(item{kind: EventMissed, n: n})
	}
}

// watchLate gives up on what is missing when its time is over, also when no
// further message comes. The feed is locked.
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
