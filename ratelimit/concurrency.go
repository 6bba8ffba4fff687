package ratelimit

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/problem"
)

// Concurrency limits how many may do something at the same time. Each holds a
// [Lease] that ends by itself when its process dies.
type Concurrency struct {
	l      *Limiter // for names, policy, health and the recorder
	length time.Duration
	args   [2]string

	returns returns
}

// ErrLeaseLost is why a lease ended although nobody released it: it was not
// prolonged in time, or Redis lost it.
var ErrLeaseLost error = leaseLost{}

type leaseLost struct{}

func (leaseLost) Error() string { return "the lease was lost" }

// Problem returns a 503.
func (leaseLost) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusServiceUnavailable, Code: "LEASE_LOST", Message: "The request lost its turn", RetryAfter: time.Second}
}

// NewConcurrency admits at most limit (1 to 1,000,000) holders of each subject
// at a time. length (100 ms to 31 days) is how long a lease lives unless it is
// prolonged, which happens by itself every third of it. Without Redis,
// FailLocal admits what is asked for up to its share in each length.
//
// A jump of Redis' clock ahead ends leases early; one back keeps a dead
// holder's lease for at most one more length. Whoever asks with a shorter length
// cuts the leases of others to it: for another length choose another name.
func NewConcurrency(r *madcrow.Redis, name string, limit int64, length time.Duration, fail FailPolicy, opts ...Option) (*Concurrency, error) {
	if length < 100*time.Millisecond || length > MaxWindow {
		return nil, &ValidationError{Field: "length", Message: "a lease lives from 100ms to 744h"}
	}
	if limit < 1 || limit > maxLogged {
		return nil, &ValidationError{Field: "limit", Message: "must be from 1 to 1000000"}
	}
	length = length.Truncate(time.Microsecond)
	// What is denied now may be free at any moment: nothing is remembered.
	l, err := New(r, name, Per(length, limit), fail, append(append([]Option(nil), opts...), WithAlgorithm(SlidingLog()), WithDeniedKeys(0))...)
	if err != nil {
		return nil, err
	}
	l.keyPrefix = r.Config().KeyPrefix + "m1:limit:" + name + ":c:{"
	return &Concurrency{l: l, length: length, args: [2]string{strconv.FormatInt(limit, 10), strconv.FormatInt(length.Microseconds(), 10)}}, nil
}

// Lease is a place that is held. It is safe for concurrent use.
type Lease struct {
	c        *Concurrency
	id       string
	key      string
	degraded bool
	done     context.Context
	end      context.CancelCauseFunc
	stopped  chan struct{}
	once     sync.Once
}

// Acquire takes a place of subject, if one is free: the lease is nil when the
// decision denies. RetryAfter is then when a place is free at the latest; it
// may be sooner. Release it when the work is done. The lease is prolonged in
// the background until then; ctx bounds Acquire alone.
func (c *Concurrency) Acquire(ctx context.Context, subject string) (*Lease, Decision, error) {
	lease := &Lease{c: c, id: keys.Nonce(), key: subjectKey(c.l.keyPrefix, subject), stopped: make(chan struct{})}
	asked := time.Now()
	r, err := c.ask(ctx, "1", lease)
	var d Decision
	if err != nil {
		if mayHold(err) { // nobody shall wait in vain for a place of nobody
			c.giveBack(lease, true)
		}
		d, err = c.l.fallBack(ctx, "acquire", subject, 1, err)
		d.Window = 0
		lease.degraded = true
	} else {
		d = c.decide(r)
	}
	c.l.record(d, err)
	if err != nil || !d.Allowed {
		return nil, d, err
	}
	lease.done, lease.end = context.WithCancelCause(context.WithoutCancel(ctx))
	if lease.degraded {
		close(lease.stopped)
	} else {
		go lease.keep(asked)
	}
	return lease, d, nil
}

func mayHold(err error) bool {
	var e *madcrow.Error
	return errors.As(err, &e) && e.Outcome != madcrow.OutcomeNotApplied
}

func (c *Concurrency) decide(r reply) Decision {
	d := c.l.plan.decide(c.l.name, r)
	d.Window = 0
	return d
}

func (c *Concurrency) ask(ctx context.Context, verb string, lease *Lease) (reply, error) {
	ctx, cancel := withTimeout(ctx, c.l.opt.timeout)
	defer cancel()
	m, err := c.l.eval(ctx, limitscript.Lease, []string{lease.key, lease.key + blockSuffix}, []string{verb, c.args[0], c.args[1], lease.id})
	if err != nil {
		return reply{}, err
	}
	c.l.health.succeeded()
	return readReply(m)
}

// keep prolongs the lease until it is released, and ends it when it is lost.
func (l *Lease) keep(last time.Time) {
	defer close(l.stopped)
	every := l.c.length / 3
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-l.done.Done():
			return
		case <-timer.C:
		}
		// Not beyond its end: somebody else may have the place then.
		ctx, cancel := context.WithTimeout(l.done, min(every, l.c.length-time.Since(last)))
		asked := time.Now()
		r, err := l.c.ask(ctx, "2", l)
		cancel()
		switch {
		case err == nil && r.retry == 1:
			last = asked
			timer.Reset(every)
		case err == nil:
			l.end(ErrLeaseLost)
			return
		case time.Since(last) >= l.c.length:
			l.end(ErrLeaseLost) // nobody can say any more that it is held
			return
		default: // Redis is away; the lease still has some life
			timer.Reset(max(time.Millisecond, min(every/4, l.c.length-time.Since(last))))
		}
	}
}

// Context ends when the lease does: context.Cause is then [ErrLeaseLost], or
// context.Canceled after Release. Do the work under it. It keeps the values of
// Acquire's context, and not its end.
func (l *Lease) Context() context.Context { return l.done }

// Degraded is true for a lease that the [FailPolicy] gave without Redis.
func (l *Lease) Degraded() bool { return l.degraded }

// Release gives the place back. It is safe to call twice. An error means that
// the place may still be taken: it is given back in the background, as soon as
// Redis can be asked, and ends with its length at the latest.
func (l *Lease) Release(ctx context.Context) (err error) {
	l.once.Do(func() {
		l.end(nil)
		<-l.stopped
		if !l.degraded {
			if _, err = l.c.ask(ctx, "3", l); err != nil {
				l.c.giveBack(l, false)
			}
			err = l.c.l.failed("release", err)
		}
	})
	return err
}

// Peek says whether a place of subject is free, and takes none.
func (c *Concurrency) Peek(ctx context.Context, subject string) (Decision, error) {
	r, err := c.ask(ctx, "0", &Lease{key: subjectKey(c.l.keyPrefix, subject)})
	if err != nil {
		return Decision{}, c.l.failed("peek", err)
	}
	return c.decide(r), nil
}

// Reset takes all places of subject away from their holders, who learn it
// within a third of the length, and ends a block.
func (c *Concurrency) Reset(ctx context.Context, subject string) error {
	return c.l.Reset(ctx, subject)
}

// Block denies subject every new place for d.
func (c *Concurrency) Block(ctx context.Context, subject string, d time.Duration) error {
	return c.l.Block(ctx, subject, d)
}

// Wait waits until a place of subject is free and takes it. It looks again at
// least every tenth of the length, and at least once a second.
func (c *Concurrency) Wait(ctx context.Context, subject string) (*Lease, Decision, error) {
	for {
		lease, d, err := c.Acquire(ctx, subject)
		if err != nil || lease != nil {
			return lease, d, err
		}
		if err := pause(ctx, min(d.RetryAfter, c.length/10, time.Second)); err != nil {
			return nil, d, c.l.failed("wait", err)
		}
	}
}

// Health is [Limiter.Health].
func (c *Concurrency) Health() Health { return c.l.Health() }

// pause is sleep to the end of ctx, since a place may be free before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(d, time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
