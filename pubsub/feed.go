package pubsub

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
)

// mode is how a channel is subscribed to.
type mode uint8

const (
	modeChannel mode = iota
	modePattern
	modeSharded
)

// feedKey names one server subscription; channel has the prefix.
type feedKey struct {
	mode    mode
	channel string
}

// feed is one server subscription and those who listen to it here.
type feed struct {
	b    *Bus
	key  feedKey
	stop context.CancelFunc

	mu        sync.Mutex
	subs      map[*subscriber]struct{}
	confirmed bool      // the server tells of messages now
	lost      time.Time // since when it does not, after it did
	failed    error     // it cannot be mended
	seen      sequences
	late      *time.Timer // when messages that are missing are given up
}

const (
	// confirmWithin is how long a subscription may take before it is tried
	// anew.
	confirmWithin = 5 * time.Second
	retryFirst    = 25 * time.Millisecond
	retryMost     = 500 * time.Millisecond
)

// join adds a subscriber to the feed of a channel, and begins the feed where
// there is none.
func (b *Bus) join(key feedKey, sub *subscriber) (*feed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	f := b.feeds[key]
	if f == nil {
		f = &feed{b: b, key: key, subs: map[*subscriber]struct{}{}}
		var ctx context.Context
		ctx, f.stop = context.WithCancel(b.life)
		b.feeds[key] = f
		b.busy.Go(func() { f.run(ctx) })
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return nil, f.failed
	}
	f.subs[sub] = struct{}{}
	if f.confirmed {
		sub.push(item{kind: EventSubscribed})
	}
	return f, nil
}

// part takes a subscriber out, and ends the feed with the last one.
func (f *feed) part(sub *subscriber) {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.subs, sub)
	if len(f.subs) == 0 {
		f.stop()
		if f.b.feeds[f.key] == f {
			delete(f.b.feeds, f.key)
		}
	}
}

// run subscribes again and again, until nobody listens or it makes no sense.
func (f *feed) run(ctx context.Context) {
	wait := retryFirst
	for {
		select {
		case f.b.turns <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := f.receive(ctx)
		if ctx.Err() != nil {
			return
		}
		if f.interrupted() {
			wait = retryFirst
		}
		if hopeless(err) {
			f.fail(&Error{Channel: f.key.channel, Op: "subscribe", Err: err})
			return
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2)) //nolint:gosec // no secret
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(2*wait, retryMost)
	}
}

// receive subscribes once. It holds a turn until it is confirmed.
func (f *feed) receive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	turn := sync.OnceFunc(func() { <-f.b.turns })
	defer turn()
	tooLate := time.AfterFunc(confirmWithin, cancel)
	defer tooLate.Stop()
	hooked := rueidis.WithOnSubscriptionHook(ctx, func(p rueidis.PubSubSubscription) {
		if p.Channel == f.key.channel && (p.Kind == "subscribe" || p.Kind == "psubscribe" || p.Kind == "ssubscribe") && ctx.Err() == nil {
			tooLate.Stop()
			turn()
			f.confirm()
		}
	})
	return f.b.r.Receive(hooked, func(b madcrow.Builder) madcrow.Command {
		switch f.key.mode {
		case modePattern:
			return b.Psubscribe().Pattern(f.key.channel).Build()
		case modeSharded:
			return b.Ssubscribe().Channel(f.key.channel).Build()
		}
		return b.Subscribe().Channel(f.key.channel).Build()
	}, f.deliver)
}

// hopeless says that waiting will not help.
func hopeless(err error) bool {
	return errors.Is(err, madcrow.ErrClosed) || errors.Is(err, madcrow.ErrPermission) || errors.Is(err, madcrow.ErrConfig)
}

// confirm tells that messages come from now on.
func (f *feed) confirm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.confirmed {
		return
	}
	f.confirmed = true
	it := item{kind: EventSubscribed}
	if !f.lost.IsZero() {
		it = item{kind: EventGap, since: f.lost, until: time.Now()}
		f.lost = time.Time{}
		f.b.event("gap", 1)
	}
	f.tell(it)
}

// interrupted notes that messages do not come any more, and says whether they
// did.
func (f *feed) interrupted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.confirmed
	if f.confirmed = false; was {
		f.lost = time.Now()
		f.tell(item{kind: EventInterrupted})
	}
	return was
}

// fail ends the feed for everybody.
func (f *feed) fail(err error) {
	f.b.mu.Lock()
	if f.b.feeds[f.key] == f {
		delete(f.b.feeds, f.key)
	}
	f.b.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = err
	for sub := range f.subs {
		sub.end(err)
	}
}

// tell hands an item to everybody. The feed is locked.
func (f *feed) tell(it item) {
	for sub := range f.subs {
		sub.push(it)
	}
}

// deliver runs on the reader of the connection: it never waits.
func (f *feed) deliver(m rueidis.PubSubMessage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	it := item{kind: EventMessage, channel: m.Channel, raw: m.Message, payload: m.Message}
	if env, ok := parseEnvelope(m.Message); ok {
		it.env, it.payload = env, env.payload
		missing, fresh := f.seen.take(m.Channel, env, time.Now())
		if missing > 0 {
			f.b.event("missed", missing)
			f.tell(item{kind: EventMissed, n: missing})
		}
		f.watchLate()
		if !fresh {
			return // it came twice
		}
	}
	f.tell(it)
	f.b.event("received", 1)
}

// watchLate gives up on what is missing when its time is over, also when no
// further message comes. The feed is locked.
func (f *feed) watchLate() {
	if f.late != nil || f.seen.waiting == 0 {
		return
	}
	f.late = time.AfterFunc(reorderWithin, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.late = nil
		if n := f.seen.expire(time.Now()); n > 0 {
			f.b.event("missed", n)
			f.tell(item{kind: EventMissed, n: n})
		}
		f.watchLate()
	})
}
