package semaphore

import (
	"context"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/lease"
	"github.com/madcrow-go/madcrow/internal/limitscript"
)

// Lease is the right to work that one holder has. It is safe for concurrent use.
type Lease struct {
	s        *Semaphore
	id, key  string
	degraded bool

	ctx     context.Context
	end     context.CancelCauseFunc
	began   time.Time
	renewal *lease.Lease // nil for a degraded lease
	release sync.Once
}

// start makes the context of a lease that was acquired, and renews it from then
// on. sent is when the call that acquired it was sent.
func (l *Lease) start(ctx context.Context, sent time.Time) {
	l.began = sent
	l.ctx, l.end = context.WithCancelCause(ctx)
	if l.degraded {
		return
	}
	// It is renewed until Release: the holder of a request that has ended may still
	// be working.
	l.renewal = lease.Keep(context.WithoutCancel(ctx), sent, lease.Options{
		TTL: l.s.opt.LeaseTTL,
		Lost: func() {
			l.s.events.Count(context.WithoutCancel(ctx), madcrow.EventSemaphoreLost)
			l.end(ErrLeaseLost)
		},
		Renew: func(ctx context.Context) (held bool, err error) {
			reply, err := l.s.update(ctx, limitscript.LeaseRenew, l.key, l.id)
			return reply.Retry == 1, err
		},
	})
}

// Context is the context that was given to Acquire, and ends when the lease does,
// too: context.Cause is then [ErrLeaseLost], or context.Canceled after Release. Do
// the work under it.
func (l *Lease) Context() context.Context { return l.ctx }

// Degraded is true for a lease that the [madcrow.FailPolicy] gave without Redis.
func (l *Lease) Degraded() bool { return l.degraded }

// Release ends the lease. It is safe to call twice. An error
// means that Redis may still hold the lease: it is released in the background, as
// soon as Redis is available, and ends after its TTL at the latest.
func (l *Lease) Release(ctx context.Context) (err error) {
	l.release.Do(func() {
		l.end(nil)
		if l.degraded {
			return
		}
		l.renewal.Stop()
		held := time.Since(l.began)
		_, err = l.s.update(ctx, limitscript.LeaseRelease, l.key, l.id)
		if err != nil {
			l.s.releaseLater(l, false)
		} else {
			l.s.noteHeld(held)
			l.s.waiting.released(l.key)
		}
		l.s.events.Send(ctx, madcrow.Event{Type: madcrow.EventSemaphoreReleased, Duration: held, Err: err})
		err = l.s.failed("release", err)
	})
	return err
}
