package pubsub

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
)

// A connection may be well and bring no messages: behind a balancer that has put
// another server in the place of the one subscribed to, or on a node that was
// cut off from its cluster. The client's PING does not see that. So where
// nothing comes for a while, the bus sends a message to itself, over a channel
// of its own that is subscribed on the same connection from early on.

// wire is the connection for pub/sub of one node.
type wire struct {
	b     *Bus
	node  string
	heard atomic.Int64 // when something came last, since the bus was born
	late  atomic.Int64 // how long the last typed message was under way

	silent, renewed atomic.Int64 // when it was made anew, since when it was silent

	// Of the prober alone.
	probe    *feed
	sub      *subscriber
	patience time.Duration
	warned   bool // the log says that nothing comes
	asking   sync.Mutex
}

func (b *Bus) wireOf(node string) *wire {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.wires[node]
	if w == nil {
		w = &wire{b: b, node: node, patience: b.probing}
		b.wires[node] = w
	}
	return w
}

func (w *wire) hear(now time.Time) { w.heard.Store(int64(now.Sub(w.b.born))) }

// mostLate bounds how late messages can be: the clocks of others may be wrong.
const mostLate = time.Hour

// hearSent notes when what came was sent.
func (w *wire) hearSent(now, sent time.Time) {
	w.late.Store(int64(min(max(now.Sub(sent), 0), mostLate)))
}

// lostSince says since when messages may have been lost. A connection that fell
// silent is only noticed later, and one that is behind has not brought what was
// published since: when Redis hangs up on it, that is thrown away.
func (w *wire) lostSince(err error, now time.Time) time.Time {
	at := func(v *atomic.Int64) time.Time { return w.b.born.Add(time.Duration(v.Load())) }
	since := now
	switch {
	case w.renewed.Load() != 0 && now.Sub(at(&w.renewed)) < confirmWithin:
		since = at(&w.silent)
	case err != nil:
		since = now.Add(-w.b.silence)
		if heard := at(&w.heard); heard.After(since) {
			since = heard
		}
	}
	return since.Add(-time.Duration(w.late.Load()))
}

// watch counts a feed in; with the first one the prober begins. The bus is
// locked.
func (b *Bus) watch() {
	if b.watched++; b.watched > 1 || b.probing < 0 {
		return
	}
	var ctx context.Context
	ctx, b.stopping = context.WithCancel(b.life)
	b.busy.Go(func() { b.probeAll(ctx) })
}

// unwatch counts a feed out. The bus is locked.
func (b *Bus) unwatch() {
	if b.watched--; b.watched == 0 && b.stopping != nil {
		b.stopping()
		b.stopping = nil
	}
}

// probeAll looks after the connections until ctx ends. What ends before the
// first look costs nothing.
func (b *Bus) probeAll(ctx context.Context) {
	mine := map[*wire]struct{}{}
	defer func() {
		for w := range mine {
			w.asking.Lock() // not while one is asked
			w.unsubscribe()
			w.asking.Unlock()
		}
	}()
	for {
		every := b.probing / 5
		if !pauseFor(ctx, every/2+rand.N(every)) { //nolint:gosec // no secret
			return
		}
		used := b.used()
		for w := range mine {
			if _, ok := used[w]; !ok && w.asking.TryLock() {
				w.unsubscribe()
				w.asking.Unlock()
				delete(mine, w)
			}
		}
		for w, key := range used {
			mine[w] = struct{}{}
			if !w.asking.TryLock() {
				continue // it is being asked
			}
			if w.ready(key) && time.Since(b.born)-time.Duration(w.heard.Load()) >= w.patience {
				b.busy.Go(func() {
					defer w.asking.Unlock()
					w.ask(ctx)
				})
				continue
			}
			w.asking.Unlock()
		}
	}
}

// used returns the connections that feeds use, and how to subscribe on each.
func (b *Bus) used() map[*wire]feedKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	used := map[*wire]feedKey{}
	for key, f := range b.feeds {
		f.mu.Lock()
		w, ok := f.wire, f.confirmed && !f.probe
		f.mu.Unlock()
		if !ok || w.node == "" {
			continue
		}
		if key.mode != modeSharded {
			used[w] = feedKey{modeChannel, b.prefix + "m1:probe:" + b.node}
		} else if tag, ok := hashTag(key.channel); ok && used[w] == (feedKey{}) {
			used[w] = feedKey{modeSharded, b.prefix + "m1:probe:{" + tag + "}:" + b.node}
		}
	}
	return used
}

// hashTag returns what decides the slot of a channel, if it can stand in the
// name of another one.
func hashTag(channel string) (string, bool) {
	if _, rest, ok := strings.Cut(channel, "{"); ok {
		if tag, _, closed := strings.Cut(rest, "}"); closed && tag != "" {
			return tag, true
		}
	}
	return channel, !strings.Contains(channel, "}")
}

// ready says whether the probe of a connection is subscribed, and subscribes it
// where it is not.
func (w *wire) ready(key feedKey) bool {
	if w.probe != nil {
		w.probe.mu.Lock()
		here, confirmed, failed := w.probe.wire == w || w.probe.wire == nil, w.probe.confirmed, w.probe.failed
		w.probe.mu.Unlock()
		switch {
		case failed != nil:
			return false // it is not allowed
		case here:
			return confirmed
		}
		w.unsubscribe() // its slot has moved
	}
	w.sub = newSubscriber(1, DropOldest)
	w.sub.plain = true
	f, err := w.b.listen(key, w.sub, true)
	if err == nil {
		w.probe = f
	}
	return false
}

func (w *wire) unsubscribe() {
	if w.probe != nil {
		w.probe.part(w.sub)
		w.probe, w.sub = nil, nil
	}
}

// mostPatience is how rarely a connection is tried that does not get better.
const mostPatience = 20

// ask sends a message to ourselves, and makes the connection anew when neither
// it nor anything else comes.
func (w *wire) ask(ctx context.Context) {
	b, key := w.b, w.probe.key
	before := w.heard.Load()
	_, err := b.r.Do(ctx, func(rb madcrow.Builder) madcrow.Command {
		if key.mode == modeSharded {
			return rb.Spublish().Channel(key.channel).Message("").Build()
		}
		return rb.Publish().Channel(key.channel).Message("").Build()
	})
	if err != nil {
		return // then nothing can be said
	}
	for end := time.Now().Add(b.probing / 3); time.Now().Before(end); {
		if w.heard.Load() != before {
			w.patience = b.probing
			if w.warned {
				w.warned = false
				b.log.Info("messages come again", "address", w.node)
			}
			return
		}
		if !pauseFor(ctx, min(b.probing/100, 50*time.Millisecond)) {
			return
		}
	}
	w.probe.mu.Lock()
	alive := w.probe.confirmed && w.probe.wire == w
	w.probe.mu.Unlock()
	if !alive {
		return // the loss was noticed meanwhile
	}
	if !w.warned { // it may take many new connections
		w.warned = true
		b.log.Warn("no messages come although redis answers: the connection for them is made anew", "address", w.node)
	}
	b.event("renewed", 1)
	w.patience = min(2*w.patience, mostPatience*b.probing)
	w.silent.Store(before)
	w.renewed.Store(int64(time.Since(b.born)))
	b.r.RenewSubscriptions(w.node)
}
