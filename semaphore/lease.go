package semaphore

import (
	"context"
	"sync"
	"time"

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
	renewal *lease.Lease // nil for a degraded lease
	release sync.Once
}

// start makes the context of a lease that was acquired, and renews it from then
// on. sent is when the call that acquired it was sent.
func (l *Lease) start(ctx context.Context, sent time.Time) {
	l.ctx, l.end = context.WithCancelCause(context.WithoutCancel(ctx))
	if l.degraded {
		return
	}
	l.renewal = lease.Keep(l.ctx, sent, lease.Options{
		TTL:  l.s.opt.LeaseTTL,
		Lost: func() { l.end(ErrLeaseLost) },
		Renew: func(ctx context.Context) (held bool, err error) {
			reply, err := l.s.update(ctx, limitscript.LeaseRenew, l.key, l.id)
			return reply.Retry == 1, err
		},
	})
}

// Context ends when the lease does: context.Cause is then [ErrLeaseLost], or
// context.Canceled after Release. Do the work under it. It has the values of the
// context given to Acquire, and not its end.
func (l *Lease) Context() context.Context { return l.ctx }

// Degraded is true for a lease that the [madcrow.FailPolicy] gave without Redis.
func (l *Lease) Degraded() bool { return l.degraded }

// Release ends the lease. It is safe to call twice. An error means that Redis may
// still hold the lease: it is released in the background, as soon as Redis is
// available, and ends after its TTL at the latest.
func (l *Lease) Release(ctx context.Context) (err error) {
	l.release.Do(func() {
		l.end(nil)
		if l.degraded {
			return
		}
		l.renewal.Stop()
		if _, err = l.s.update(ctx, limitscript.LeaseRelease, l.key, l.id); err != nil {
			l.s.releaseLater(l, false)
		}
		err = l.s.failed("release", err)
	})
	return err
}
