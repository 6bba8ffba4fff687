package pubsub

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/logonce"
)

// outbox holds messages while Redis is away, and sends them in order when it is
// back. While it holds any, every message goes behind them.
type outbox struct {
	lost        logonce.Reasons // why messages may be
	b           *Bus
	maxMessages int
	maxBytes    int // bound of their size together

	mu       sync.Mutex
	messages []outgoing
	size     int // of parcels
	running  bool
	closed   bool // the bus is being closed: nothing more comes in
}

func newOutbox(b *Bus, bound, bytes int) *outbox {
	return &outbox{b: b, maxMessages: bound, maxBytes: bytes}
}

func (o *outbox) holds() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.running
}

// put takes a message. The error is always one: that it is queued, or full.
func (o *outbox) put(p outgoing, cause error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return ErrClosed
	case len(o.messages) >= o.maxMessages, len(o.messages) > 0 && o.size+p.size() > o.maxBytes:
		if errors.Is(cause, ErrQueued) {
			return ErrOutboxFull // that it is queued would not be true
		}
		return errors.Join(ErrOutboxFull, cause)
	}
	o.messages = append(o.messages, p)
	o.size += p.size()
	o.b.event("queued", 1)
	if !o.running {
		o.running = true
		o.b.wg.Go(o.run)
	}
	if errors.Is(cause, ErrQueued) {
		return ErrQueued
	}
	return errors.Join(ErrQueued, cause)
}

// mostParcels is how many messages are sent in one round trip.
const maxBatch = 256

// run sends what waits until nothing does: first one message, then more and
// more at a time, so that little is lost on a connection that is not well yet,
// and the outbox gets empty however fast others fill it.
func (o *outbox) run() {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, maxRetry) {
		if !o.await(wait) {
			o.refuse() // also where the Redis was closed first
			return
		}
		for n := 1; ; n = min(2*n, maxBatch) {
			list := o.nextBatch(n)
			if len(list) == 0 {
				return
			}
			errs := o.b.sendAll(o.b.ctx, list)
			if o.b.ctx.Err() != nil {
				return
			}
			unsent := o.settle(list, errs)
			if unsent == len(list) {
				break
			}
			wait = 10 * time.Millisecond
			if unsent > 0 {
				break
			}
		}
	}
}

// first returns the first messages, up to n, as far as they do not make a large
// pipeline, or one that is refused. There are none when the outbox is empty, and
// closed by that.
func (o *outbox) nextBatch(n int) []outgoing {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.messages) == 0 {
		o.running, o.messages, o.size = false, nil, 0
		return nil
	}
	size, i := 0, 0
	for i < min(n, len(o.messages)) && (i == 0 || size < o.b.bulkThreshold/2 && size+o.messages[i].size() <= o.b.maxMessage) {
		size += o.messages[i].size()
		i++
	}
	return o.messages[:i:i]
}

// settle takes out what was sent, and what may have been or never can be:
// sending that again could say it twice. It returns how many stay.
func (o *outbox) settle(list []outgoing, errs []error) (unsent int) {
	var stay []outgoing
	lost := false
	for i, err := range errs {
		switch {
		case err == nil:
		case surelyUnsent(err):
			stay = append(stay, list[i])
		default:
			if lost = true; o.lost.First(err) {
				o.b.log.Warn("messages of the outbox may be lost", "channel", list[i].channel, "reason", err)
			}
			o.b.event("outbox_lost", 1)
		}
	}
	if !lost && len(stay) == 0 && o.lost.Clear() {
		o.b.log.Info("messages of the outbox are sent again")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range list {
		o.size -= p.size()
	}
	for _, p := range stay {
		o.size += p.size()
	}
	clear(o.messages[:len(list)-len(stay)])
	o.messages = o.messages[len(list)-len(stay):]
	copy(o.messages, stay)
	return len(stay)
}

// await waits a while, and until Redis can be used; false after Close.
func (o *outbox) await(wait time.Duration) bool {
	if !sleep(o.b.ctx, wait) {
		return false
	}
	ctx, cancel := context.WithCancel(o.b.ctx)
	defer cancel()
	for st := range o.b.r.Watch(ctx) {
		switch st.State {
		case madcrow.StateUp, madcrow.StateDegraded:
			return true
		case madcrow.StateClosed:
			return false
		}
	}
	return false
}

// end lets nothing more in.
func (o *outbox) refuse() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}

// drain waits until everything is sent, or ctx ends, and says how much is left.
func (o *outbox) drain(ctx context.Context) int {
	o.refuse()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		o.mu.Lock()
		left := len(o.messages)
		o.mu.Unlock()
		if left == 0 || !o.b.r.Available() {
			return left
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return left
		}
	}
}
