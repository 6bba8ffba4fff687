// Package lease keeps a lease in Redis alive while its holder works: a semaphore's
// place, the right to load a value, the messages in a worker's hands. It knows
// when to renew, when a renewal that failed is tried again, and when the lease is
// lost. How to acquire, renew and release is the caller's.
package lease

import (
	"context"
	"errors"
	"time"

	"github.com/madcrow-go/madcrow"
)

// Options say how a lease is kept alive. Renew is required.
type Options struct {
	// TTL is how long the lease lives after a renewal. 0 means that it does not
	// expire: then only Renew can find that it is lost.
	TTL time.Duration
	// Every is the time between two renewals. Defaults to a third of TTL.
	Every time.Duration
	// First is the time until the first renewal. Defaults to Every. Until then
	// no goroutine runs.
	First time.Duration
	// Renew renews the lease. held is false when it belongs to another holder or
	// to none. After an error, which says neither, Renew is called again sooner.
	// ctx ends with Stop, and, with a TTL, at the end of the lease and at the latest
	// after Every. Without a TTL it has no deadline: those of the calls bound it.
	Renew func(ctx context.Context) (held bool, err error)
	// Lost is called once when the lease is lost: Renew returned false, no renewal
	// succeeded for TTL, or the Redis is closed. It must not call Stop. nil does
	// nothing.
	Lost func()
	// Wake, if set, is called when the renewals start. A value on its channel
	// causes a renewal at once. stop is called when the renewals end.
	Wake func() (wake <-chan struct{}, stop func())
	// Known, if set, is asked when a renewal is due that Wake did not cause. True
	// says that the lease is known to be held, and Renew is not called this time.
	Known func() bool
}

// Lease is a lease that is being kept alive. Make it with [Keep].
type Lease struct {
	opt    Options
	ctx    context.Context
	cancel context.CancelFunc
	timer  *time.Timer   // of the first renewal
	ended  chan struct{} // closed when no renewal runs any more
}

// Keep renews a lease until Stop is called, ctx ends, or the lease is lost.
// acquired is when the call that acquired it was sent: the lease cannot live
// longer than TTL after that without a renewal. Stop must be called.
func Keep(ctx context.Context, acquired time.Time, o Options) *Lease {
	if o.Every == 0 {
		o.Every = o.TTL / 3
	}
	if o.First == 0 {
		o.First = o.Every
	}
	l := &Lease{opt: o, ended: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.timer = time.AfterFunc(time.Until(acquired.Add(o.First)), func() { l.run(acquired) })
	return l
}

// Stop ends the renewals and waits for one that is running: none comes after
// Stop, so a release that follows is the last word. It may be called again.
func (l *Lease) Stop() {
	l.cancel()
	if l.timer.Stop() {
		close(l.ended) // the first renewal never started
	}
	<-l.ended
}

// run renews until the end. last is when the last renewal that succeeded was
// sent.
func (l *Lease) run(last time.Time) {
	defer close(l.ended)
	var wake <-chan struct{}
	if l.opt.Wake != nil {
		ch, stop := l.opt.Wake()
		defer stop()
		wake = ch
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-timer.C:
			if l.opt.Known != nil && l.opt.Known() {
				timer.Reset(l.opt.Every)
				continue
			}
		case <-wake:
		}
		sent := time.Now()
		held, err := l.renew(last)
		switch {
		case l.ctx.Err() != nil:
			return
		case err == nil && held:
			last = sent
			timer.Reset(l.opt.Every)
		// Another's, possibly another's, or there will be no renewal any more.
		case err == nil, l.left(last) <= 0, errors.Is(err, madcrow.ErrClosed):
			if l.opt.Lost != nil {
				l.opt.Lost()
			}
			return
		default: // Redis is unavailable, and the lease still lives
			timer.Reset(max(time.Millisecond, min(l.opt.Every/4, l.left(last))))
		}
	}
}

// renew calls Renew with what is left of the lease.
func (l *Lease) renew(last time.Time) (held bool, err error) {
	if l.opt.TTL == 0 {
		return l.opt.Renew(l.ctx)
	}
	ctx, cancel := context.WithTimeout(l.ctx, min(l.opt.Every, l.left(last)))
	defer cancel()
	return l.opt.Renew(ctx)
}

// left is how long the lease lives without a further renewal.
func (l *Lease) left(last time.Time) time.Duration {
	if l.opt.TTL == 0 {
		return l.opt.Every
	}
	return time.Until(last.Add(l.opt.TTL))
}
