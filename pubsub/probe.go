package pubsub

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/sealed"
)

// A connection may answer PING and bring no messages: behind a balancer that has
// replaced the server that was subscribed to, or on a node that was cut off from
// its cluster. So when a connection is silent for a while, the bus sends a message
// to itself (a probe), over a channel of its own that is subscribed on the same
// connection from early on.

// subConn is the connection for pub/sub of one node. Its atomic times are set by
// the reader of the connection and by sendProbe.
type subConn struct {
	b            *Bus
	node         string
	lastReceived atomic.Int64 // when something came last, since the bus was born
	delay        atomic.Int64 // how long the last typed message was under way

	silentSince, renewedAt atomic.Int64 // when it was silent for too long, and when it was replaced for that

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

func (w *subConn) noteReceived(now time.Time) { w.lastReceived.Store(int64(now.Sub(w.b.start))) }

// maxDelay bounds how late messages can be: the clocks of others may be wrong.
const maxDelay = time.Hour

// noteDelay notes when a message that arrived was sent.
func (w *subConn) noteDelay(now, sent time.Time) {
	w.delay.Store(int64(min(max(now.Sub(sent), 0), maxDelay)))
}

// lostSince says since when messages may have been lost. A silent connection is
// noticed only later. One that is behind has not delivered the latest messages:
// when Redis closes it, they are discarded.
func (w *subConn) lostSince(err error, now time.Time) time.Time {
	at := func(v *atomic.Int64) time.Time { return w.b.start.Add(time.Duration(v.Load())) }
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

// startProbing counts a subscription in; with the first one the prober starts. The
// bus is locked.
func (b *Bus) startProbing() {
	if b.probedSubs++; b.probedSubs > 1 || b.probeAfter < 0 {
		return
	}
	var ctx context.Context
	ctx, b.stopProber = context.WithCancel(b.ctx)
	b.wg.Go(func() { b.probeAll(ctx) })
}

// stopProbing counts a subscription out. The bus is locked.
func (b *Bus) stopProbing() {
	if b.probedSubs--; b.probedSubs == 0 && b.stopProber != nil {
		b.stopProber()
		b.stopProber = nil
	}
}

// probeAll probes the silent connections until ctx ends. A subscription that ends
// before the first round costs nothing.
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
		if clock.Sleep(ctx, every/2+rand.N(every)) != nil { //nolint:gosec // no secret
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
			if w.ensureProbe(key) && time.Since(b.start)-time.Duration(w.lastReceived.Load()) >= w.interval {
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

// subConnsInUse returns the connections that have subscriptions, and the channel of
// the probe of each.
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

// hashTag returns the part of a channel that decides its slot, if the name of
// another channel can contain it.
func hashTag(channel string) (string, bool) {
	if _, rest, ok := strings.Cut(channel, "{"); ok {
		if tag, _, closed := strings.Cut(rest, "}"); closed && tag != "" {
			return tag, true
		}
	}
	return channel, !strings.Contains(channel, "}")
}

// ensureProbe says whether the probe of a connection is subscribed, and subscribes
// it if it is not.
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

// maxIntervalFactor bounds the interval of a connection that does not recover.
const maxIntervalFactor = 20

// sendProbe sends a message to ourselves, and replaces the connection when neither
// that nor any other message comes.
func (w *subConn) sendProbe(ctx context.Context) {
	b, key := w.b, w.probe.key
	before := w.lastReceived.Load()
	probe := b.r.B().Publish().Channel(key.channel).Message("").Build()
	if key.mode == modeSharded {
		probe = b.r.B().Spublish().Channel(key.channel).Message("").Build()
	}
	if b.r.Do(ctx, probe).Err() != nil {
		return // that says nothing about the connection
	}
	for end := time.Now().Add(b.probeAfter / 3); time.Now().Before(end); {
		if w.lastReceived.Load() != before {
			w.interval = b.probeAfter
			if w.warned {
				w.warned = false
				b.log.Info("messages arrive again", "address", w.node)
			}
			return
		}
		if clock.Sleep(ctx, min(b.probeAfter/100, 50*time.Millisecond)) != nil {
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
		b.log.Warn("no messages arrive although redis answers: the connection for them is replaced", "address", w.node)
	}
	b.event(ctx, madcrow.EventPubSubRenewed, "", 1)
	w.interval = min(2*w.interval, maxIntervalFactor*b.probeAfter)
	w.silentSince.Store(before)
	w.renewedAt.Store(int64(time.Since(b.start)))
	b.r.RenewSubscriptions(sealed.Key{}, w.node)
}
