package semaphore

import (
	"context"
	"errors"
	"time"

	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// TryAcquire acquires a lease of subject if one is free. The lease is nil when
// the decision denies, or there is an error. Release it when the work is done.
// Until then it is renewed in the background. ctx bounds TryAcquire and the
// [Lease.Context].
//
// The error is a [*madcrow.Error]: the call could not be decided, and the policy
// is FailClosed or the caller cancelled.
func (s *Semaphore) TryAcquire(ctx context.Context, subject string) (*Lease, Decision, error) {
	return s.try(ctx, ctx, subject, nil)
}

// errWaited says that the wait of a call ended while Redis was asked.
var errWaited = errors.New("the wait ended")

// try is TryAcquire where the lease gets another context than the call. waits is the
// call in its queue, or nil.
func (s *Semaphore) try(ctx, whole context.Context, subject string, waits *waiter) (*Lease, Decision, error) {
	lease := &Lease{s: s, id: keys.Nonce(), key: s.key(subject)}
	sent := time.Now()
	reply, err := s.evaluate(ctx, limitscript.LeaseAcquire, lease.key, lease.id)
	var d Decision
	if err == nil {
		d = s.decide(reply)
	} else {
		if !operr.NotSent(err) { // Redis may hold a lease that no one has
			s.releaseLater(lease, true)
		}
		if waits != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && s.waiting.answers(lease.key, 2*s.pause(d)) {
			return nil, d, errWaited // Redis answers: it is no outage
		}
		d, err = s.fallBack(ctx, "acquire", subject, err)
		lease.degraded = true
	}
	s.record(ctx, d, err)
	if err != nil || !d.Allowed {
		return nil, d, err
	}
	lease.start(whole, sent)
	return lease, d, nil
}

// AcquireOption changes one call of [Semaphore.Acquire] or [Semaphore.Do].
type AcquireOption func(*acquireOptions)

type acquireOptions struct{ maxWait time.Duration }

// MaxWait bounds how long a call waits for a lease, and not the lease. Defaults to
// the deadline of the context.
func MaxWait(d time.Duration) AcquireOption { return func(o *acquireOptions) { o.maxWait = d } }

// Acquire waits until a lease of subject is free, and acquires it. ctx bounds the
// wait, and the [Lease.Context]; [MaxWait] bounds the wait alone. When the time is
// over the error is [ErrBusy].
//
// The calls of one process that wait for a subject are served in their order. A
// release in this process wakes the first of them at once, one in another process by
// a message of Redis. Where that does not arrive, it asks again at least every tenth
// of the LeaseTTL, and at least once a second. There is no order among processes,
// nor before TryAcquire.
func (s *Semaphore) Acquire(ctx context.Context, subject string, opts ...AcquireOption) (*Lease, error) {
	var o acquireOptions
	for _, set := range opts {
		set(&o)
	}
	limited := ctx
	if o.maxWait > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, o.maxWait)
		defer cancel()
	}
	key := s.key(subject)
	var d Decision
	busy, heard := s.waiting.busy(key)
	if !busy {
		var lease *Lease
		var err error
		if lease, d, err = s.try(limited, ctx, subject, nil); err != nil || lease != nil {
			return lease, err
		}
	}
	return s.await(limited, ctx, s.waiting.join(key, heard, !busy, s.pause(d)), subject, d)
}

// await waits for a lease in the queue of its subject. d is the last decision, or
// none.
func (s *Semaphore) await(ctx, whole context.Context, own *waiter, subject string, d Decision) (lease *Lease, err error) {
	more := false
	defer func() { s.waiting.leave(own, more) }()
	first := own.first
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, s.gaveUp(ctx, d)
		case <-first:
			first = nil
			timer.Reset(s.waiting.turn(own.key))
			continue
		case <-own.wake:
		case <-timer.C:
			if first != nil { // it is not the first, so it does not ask
				timer.Reset(time.Hour)
				continue
			}
		}
		before := d
		lease, d, err = s.try(ctx, whole, subject, own)
		switch {
		case errors.Is(err, errWaited):
			return nil, s.gaveUp(ctx, before)
		case err != nil:
			if !errors.Is(ctx.Err(), context.Canceled) {
				s.waiting.failed(own.key)
			}
			return nil, err
		case lease != nil:
			more = d.Remaining > 0
			if d.Degraded {
				s.waiting.failed(own.key)
			}
			return lease, nil
		}
		s.waiting.denied(own.key, s.pause(d))
		timer.Reset(s.pause(d))
	}
}

// pause is how long the first waiting call sleeps where nothing wakes it.
func (s *Semaphore) pause(d Decision) time.Duration {
	most := min(s.opt.LeaseTTL/10, time.Second)
	if d.RetryAfter > 0 {
		most = min(most, d.RetryAfter)
	}
	return max(most, time.Millisecond)
}

// gaveUp is the error of a call that waited until its context ended.
func (s *Semaphore) gaveUp(ctx context.Context, d Decision) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return s.failed("acquire", ctx.Err())
	}
	return s.failed("acquire", s.busy(d, ctx.Err()))
}

// Do acquires a lease of subject as [Semaphore.Acquire] does, calls fn with the
// [Lease.Context], and releases the lease. It returns the error of Acquire, or that of
// fn. Where the lease was lost while fn ran, the error is also [ErrLeaseLost]: another
// holder may have worked at the same time. A Release that fails is retried in the
// background and is no error.
func (s *Semaphore) Do(ctx context.Context, subject string, fn func(ctx context.Context) error, opts ...AcquireOption) error {
	lease, err := s.Acquire(ctx, subject, opts...)
	if err != nil {
		return err
	}
	defer lease.releaseAnyway(ctx)
	err = fn(lease.Context())
	if errors.Is(context.Cause(lease.Context()), ErrLeaseLost) && !errors.Is(err, ErrLeaseLost) {
		err = errors.Join(s.failed("do", ErrLeaseLost), err)
	}
	return err
}

// releaseAnyway releases a lease, also when ctx has ended. What fails is released
// in the background.
func (l *Lease) releaseAnyway(ctx context.Context) { _ = l.Release(context.WithoutCancel(ctx)) }

// noteHeld notes how long a lease was held: the mean of the last few.
func (s *Semaphore) noteHeld(d time.Duration) {
	if old := s.held.Load(); old > 0 {
		d = time.Duration(old) + (d-time.Duration(old))/8
	}
	s.held.Store(int64(max(d, 1)))
}

// comeBack is when a denied caller may ask again: after the time that a lease was
// held here of late, or a second where that is not known, and at the latest when
// the oldest lease ends.
func (s *Semaphore) comeBack(d Decision) time.Duration {
	after := time.Duration(s.held.Load())
	if after == 0 {
		after = time.Second
	}
	if d.RetryAfter > 0 {
		after = min(after, d.RetryAfter)
	}
	return max(after, time.Millisecond)
}
