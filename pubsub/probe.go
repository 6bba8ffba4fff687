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
type subConn struct {
	b            *Bus
	node         string
	lastReceived atomic.Int64 // when something came last, since the bus was born
	delay        atomic.Int64 // how long the last typed message was under way

	silentSince, renewedAt atomic.Int64 // when it was made anew, since when it was silent

	// Of the prober alone.
	probe    *sharedSub
	sub      *subscriber
	interval time.Duration
	warned   bool // the log says that nothing comes
	probeMu  sync.Mutex
}

func (b *Bus) subConnOf(node string) *subConn {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.subConns[node]
	if w == nil {
		w = &subConn{b: b, node: node, interval: b.probeAfter}
		b.subConns[node] = w
	}
	return w
}

func (w *subConn) noteReceived(now time.Time) { w.lastReceived.Store(int64(now.Sub(w.b.born))) }

// mostLate bounds how late messages can be: the clocks of others may be wrong.
const maxDelay = time.Hour

// hearSent notes when what came was sent.
func (w *subConn) noteDelay(now, sent time.Time) {
	w.delay.Store(int64(min(max(now.Sub(sent), 0), maxDelay)))
}

// lostSince says since when messages may have been lost. A connection that fell
// silent is only noticed later, and one that is behind has not brought what was
// published since: when Redis hangs up on it, that is thrown away.
func (w *subConn) lostSince(err error, now time.Time) time.Time {
	at := func(v *atomic.Int64) time.Time { return w.b.born.Add(time.Duration(v.Load())) }
	since := now
	switch {
	case w.renewedAt.Load() != 0 && now.Sub(at(&w.renewedAt)) < confirmWithin:
		since = at(&w.silentSince)
	case err != nil:
		since = now.Add(-w.b.silenceLimit)
		if heard := at(&w.lastReceived); heard.After(since) {
			since = heard
		}
	}
	return since.Add(-time.Duration(w.delay.Load()))
}

// watch counts a feed in; with the first one the prober begins. The bus is
// locked.
func (b *Bus) startProbing() {
	if b.probedSubs++; b.probedSubs > 1 || b.probeAfter < 0 {
		return
	}
	var ctx context.Context
	ctx, b.stopProber = context.WithCancel(b.ctx)
	b.wg.Go(func() { b.probeAll(ctx) })
}

// unwatch counts a feed out. The bus is locked.
func (b *Bus) stopProbing() {
	if b.probedSubs--; b.probedSubs == 0 && b.stopProber != nil {
		b.stopProber()
		b.stopProber = nil
	}
}

// probeAll looks after the connections until ctx ends. What ends before the
// first look costs nothing.
func (b *Bus) probeAll(ctx context.Context) {
	mine := map[*subConn]struct{}{}
	defer func() {
		for w := range mine {
			w.probeMu.Lock() // not while one is asked
			w.unsubscribe()
			w.probeMu.Unlock()
		}
	}()
	for {
		every := b.probeAfter / 5
		if !sleep(ctx, every/2+rand.N(every)) { //nolint:gosec // no secret
			return
		}
		used := b.subConnsInUse()
		for w := range mine {
			if _, ok := used[w]; !ok && w.probeMu.TryLock() {
				w.unsubscribe()
				w.probeMu.Unlock()
				delete(mine, w)
			}
		}
		for w, key := range used {
			mine[w] = struct{}{}
			if !w.probeMu.TryLock() {
				continue // it is being asked
			}
			if w.ensureProbe(key) && time.Since(b.born)-time.Duration(w.lastReceived.Load()) >= w.interval {
				b.wg.Go(func() {
					defer w.probeMu.Unlock()
					w.sendProbe(ctx)
				})
				continue
			}
			w.probeMu.Unlock()
		}
	}
}

// used returns the connections that feeds use, and how to subscribe on each.
func (b *Bus) subConnsInUse() map[*subConn]channelKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	used := map[*subConn]channelKey{}
	for key, f := range b.shared {
		f.mu.Lock()
		w, ok := f.conn, f.confirmed && !f.probe
		f.mu.Unlock()
		if !ok || w.node == "" {
			continue
		}
		if key.mode != modeSharded {
			used[w] = channelKey{modeChannel, b.prefix + "m1:probe:" + b.processID}
		} else if tag, ok := hashTag(key.channel); ok && used[w] == (channelKey{}) {
			used[w] = channelKey{modeSharded, b.prefix + "m1:probe:{" + tag + "}:" + b.processID}
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
func (w *subConn) ensureProbe(key channelKey) bool {
	if w.probe != nil {
		w.probe.mu.Lock()
		here, confirmed, failed := w.probe.conn == w || w.probe.conn == nil, w.probe.confirmed, w.probe.failed
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
	f, err := w.b.addListener(key, w.sub, true)
	if err == nil {
		w.probe = f
	}
	return false
}

func (w *subConn) unsubscribe() {
	if w.probe != nil {
		w.probe.remove(w.sub)
		w.probe, w.sub = nil, nil
	}
}

// mostPatience is how rarely a connection is tried that does not get better.
const maxIntervalFactor = 20

// ask sends a message to ourselves, and makes the connection anew when neither
// it nor anything else comes.
func (w *subConn) sendProbe(ctx context.Context) {
	b, key := w.b, w.probe.key
	before := w.lastReceived.Load()
	_, err := b.r.Do(ctx, func(rb madcrow.Builder) madcrow.Command {
		if key.mode == modeSharded {
			return rb.Spublish().Channel(key.channel).Message("").Build()
		}
		return rb.Publish().Channel(key.channel).Message("").Build()
	})
	if err != nil {
		return // then nothing can be said
	}
	for end := time.Now().Add(b.probeAfter / 3); time.Now().Before(end); {
		if w.lastReceived.Load() != before {
			w.interval = b.probeAfter
			if w.warned {
				w.warned = false
				b.log.Info("messages come again", "address", w.node)
			}
			return
		}
		if !sleep(ctx, min(b.probeAfter/100, 50*time.Millisecond)) {
			return
		}
	}
	w.probe.mu.Lock()
	alive := w.probe.confirmed && w.probe.conn == w
	w.probe.mu.Unlock()
	if !alive {
		return // the loss was noticed meanwhile
	}
	if !w.warned { // it may take many new connections
		w.warned = true
		b.log.Warn("no messages come although redis answers: the connection for them is made anew", "address", w.node)
	}
	b.event("renewed", 1)
	w.interval = min(2*w.interval, maxIntervalFactor*b.probeAfter)
	w.silentSince.Store(before)
	w.renewedAt.Store(int64(time.Since(b.born)))
	b.r.RenewSubscriptions(w.node)
}
