package pubsub

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
)

// outbox holds messages while Redis is away, and sends them in order when it is
// back. While it holds any, every message goes behind them.
type outbox struct {
	b     *Bus
	bound int

	mu      sync.Mutex
	parcels []parcel
	running bool
}

func newOutbox(b *Bus, bound int) *outbox { return &outbox{b: b, bound: bound} }

func (o *outbox) holds() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.running
}

// put takes a message. The error is always one: that it is queued, or full.
func (o *outbox) put(p parcel, cause error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.parcels) >= o.bound {
		return errors.Join(ErrOutboxFull, cause)
	}
	o.parcels = append(o.parcels, p)
	o.b.event("queued", 1)
	if !o.running {
		o.running = true
		o.b.busy.Go(o.run)
	}
	if errors.Is(cause, ErrQueued) {
		return ErrQueued
	}
	return errors.Join(ErrQueued, cause)
}

// run sends what waits until nothing does.
func (o *outbox) run() {
	for {
		if !o.await() {
			return
		}
		for {
			o.mu.Lock()
			if len(o.parcels) == 0 {
				o.running, o.parcels = false, nil
				o.mu.Unlock()
				return
			}
			p := o.parcels[0]
			o.mu.Unlock()
			_, err := o.b.send(o.b.life, p)
			if o.b.life.Err() != nil {
				return
			}
			if err != nil && surelyUnsent(err) {
				break
			}
			if err != nil {
				// It may have been sent, or never can be: sending it again
				// could say it twice.
				o.b.log.Warn("a message of the outbox may be lost", "channel", p.channel, "reason", err)
				o.b.event("outbox_lost", 1)
			}
			o.mu.Lock()
			o.parcels[0] = parcel{}
			o.parcels = o.parcels[1:]
			o.mu.Unlock()
		}
	}
}

// await waits until Redis can be used; false after Close.
func (o *outbox) await() bool {
	select {
	case <-time.After(10 * time.Millisecond):
	case <-o.b.life.Done():
		return false
	}
	for st := range o.b.r.Watch(o.b.life) {
		switch st.State {
		case madcrow.StateUp, madcrow.StateDegraded:
			return true
		case madcrow.StateClosed:
			return false
		}
	}
	return false
}

// drain waits until everything is sent, or ctx ends, and says how much is left.
func (o *outbox) drain(ctx context.Context) int {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		o.mu.Lock()
		left := len(o.parcels)
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
