package semaphore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/internal/fallback"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/internal/pending"
)

// Semaphore admits a number of holders of each subject at a time: users,
// accounts, or anything else that a text names. It is safe for concurrent use.
// Make it with [New].
type Semaphore struct {
	r         *madcrow.Redis
	events    events.Source
	name      string
	keyPrefix string // of every key, up to the subject
	clustered bool   // the slot of a subject may move
	opt       Options

	local    *fallback.Counter // nil unless the policy is FailLocal
	monitor  *fallback.Monitor
	releases *pending.Queue[*unreleased]
	waiting  *waiting
	held     atomic.Int64 // how long leases were held of late, nanoseconds
}

// Options configure a [Semaphore]. Limit and FailPolicy are required.
type Options struct {
	// Limit is how many may hold a lease of one subject at a time, from 1 to
	// 1,000,000.
	Limit int64
	// FailPolicy says what happens while Redis is unavailable: madcrow.FailOpen
	// gives a lease that Redis does not know, with Degraded true and the Cause;
	// madcrow.FailClosed returns the error; madcrow.FailLocal(n) gives, in each
	// LeaseTTL, at most 1/n of the limit, at least 1, counted in this process from 0.
	FailPolicy madcrow.FailPolicy
	// LeaseTTL is how long a lease lives without a renewal, from 100 ms to 31 days.
	// It is renewed every third of it. All processes that share a semaphore need
	// the same one: one with a shorter one cuts the leases of others to it.
	// Defaults to 30 seconds.
	LeaseTTL time.Duration
	// Timeout bounds each call to Redis, after which the FailPolicy decides.
	// Defaults to Config.CommandTimeout.
	Timeout time.Duration
	// LocalSubjects bounds how many subjects [madcrow.FailLocal] counts in this
	// process. Beyond that the least recently used one is dropped. Defaults to
	// 16,384, about 3 MB when full.
	LocalSubjects int
	// DeniedStatus is the status of requests that are refused because all leases are
	// taken: 429 where a subject is one client, which asks for too much, or 503 where
	// all share one, which is overload. Defaults to 429.
	DeniedStatus int
	// Logger is for outages in which the FailPolicy decides, for foreign values
	// under the keys, and for the requests that [Middleware] refuses. Defaults to
	// the logger of the Redis.
	Logger *slog.Logger
}

const (
	maxLimit             = 1_000_000
	minTTL               = 100 * time.Millisecond
	maxTTL               = 31 * 24 * time.Hour
	defaultTTL           = 30 * time.Second
	defaultLocalSubjects = 16384
)

// New makes a semaphore. Its name (1 to 64 letters, digits, '-', '_', '.') is part
// of its keys: two semaphores with one name share their leases. The error is a
// [*madcrow.ArgumentError] that lists every problem. New does not call Redis.
//
// When the clock of Redis jumps ahead, leases end early. When it is put back, the
// lease of a holder that died lives for at most one more LeaseTTL.
func New(r *madcrow.Redis, name string, o Options) (*Semaphore, error) {
	if o.LeaseTTL == 0 {
		o.LeaseTTL = defaultTTL
	}
	if o.LocalSubjects == 0 {
		o.LocalSubjects = defaultLocalSubjects
	}
	if o.DeniedStatus == 0 {
		o.DeniedStatus = http.StatusTooManyRequests
	}
	if o.Logger == nil {
		o.Logger = r.Logger()
	}
	var wrong operr.Arguments
	policy := fallback.Problem(o.FailPolicy)
	wrong.Check(keys.ValidName(name), "name", keys.NameRule)
	wrong.Check(o.Limit >= 1 && o.Limit <= maxLimit, "Options.Limit", "must be from 1 to "+strconv.Itoa(maxLimit))
	wrong.Check(policy == "", "Options.FailPolicy", policy)
	wrong.Check(o.LeaseTTL >= minTTL && o.LeaseTTL <= maxTTL, "Options.LeaseTTL", "must be from 100ms to 31 days")
	wrong.Check(o.Timeout >= 0, "Options.Timeout", "must not be negative")
	wrong.Check(o.LocalSubjects >= 1, "Options.LocalSubjects", "must not be negative")
	wrong.Check(o.DeniedStatus == http.StatusTooManyRequests || o.DeniedStatus == http.StatusServiceUnavailable, "Options.DeniedStatus", "must be 429 or 503")
	if err := fail.Arguments("new", name, wrong); err != nil {
		return nil, err
	}
	o.LeaseTTL = o.LeaseTTL.Truncate(time.Microsecond)
	s := &Semaphore{
		r: r, events: events.Of(r, name), name: name, opt: o,
		clustered: r.Config().Cluster.Enabled,
		keyPrefix: r.Config().KeyPrefix + "m1:limit:" + name + ":c:{",
		monitor:   fallback.NewMonitor(o.Logger, "semaphore", name),
	}
	if o.FailPolicy.IsLocal() {
		s.local = fallback.NewCounter(o.LocalSubjects, o.LeaseTTL)
	}
	s.releases, s.waiting = newReleases(s), newWaiting(s)
	return s, nil
}

// Close ends what the semaphore does in the background. It waits until the leases
// whose release is retried are released, Redis is away, or ctx ends; an error says how
// many are left, which end after their LeaseTTL. Leases that are held stay so until
// their Release, and calls that wait go on. The end of the Redis closes a semaphore,
// too.
func (s *Semaphore) Close(ctx context.Context) error {
	left := s.releases.Drain(ctx)
	s.releases.Close()
	s.waiting.listener.Stop()
	if left > 0 {
		return s.failed("close", fmt.Errorf("%d leases were not released: they end after %v", left, s.opt.LeaseTTL))
	}
	return nil
}

// Name returns the name given to New.
func (s *Semaphore) Name() string { return s.name }

// Decision is a semaphore's decision about one call.
type Decision struct {
	// Allowed is true when a lease was acquired.
	Allowed bool
	// Limit is how many may hold a lease of a subject.
	Limit int64
	// Remaining is how many more leases are free now, 0 while the subject is
	// blocked.
	Remaining int64
	// RetryAfter is the time until a lease is free at the latest, 0 when this
	// one was acquired: a holder may release it sooner.
	RetryAfter time.Duration
	// ResetAfter is the time until all leases are free at the latest.
	ResetAfter time.Duration
	// Degraded is true when Redis was unavailable and the [madcrow.FailPolicy] decided
	// instead. Cause is the error of Redis.
	Degraded bool
	Cause    error

	of *Semaphore // that decided; nil in a Decision that no semaphore made
}

// Err is nil when a lease was acquired. Otherwise it is [ErrBusy], which knows its
// response: [problem.Write] answers [Options].DeniedStatus with Retry-After, after the
// time for which leases were held in this process of late.
func (d Decision) Err() error {
	switch {
	case d.Allowed:
		return nil
	case d.of == nil:
		return errNoDecision
	case d.Cause != nil && d.RetryAfter <= 0:
		return d.Cause
	}
	return d.of.failed("acquire", d.of.busy(d, nil))
}

// Peek returns the decision that TryAcquire would return, and acquires nothing.
func (s *Semaphore) Peek(ctx context.Context, subject string) (Decision, error) {
	reply, err := s.evaluate(ctx, limitscript.LeasePeek, s.key(subject), "")
	if err != nil {
		return Decision{}, s.failed("peek", err)
	}
	return s.decide(reply), nil
}

// Reset ends all leases of subject, and a block. The holders are notified within
// a third of the TTL.
func (s *Semaphore) Reset(ctx context.Context, subject string) error {
	key := s.key(subject)
	_, err := s.r.DoMulti(ctx, s.r.B().Del().Key(key).Build(), s.r.B().Del().Key(key+limitscript.BlockSuffix).Build())
	if s.local != nil {
		s.local.Remove(subject)
	}
	s.waiting.released(key)
	return s.failed("reset", err)
}

// Block denies every new lease of subject for d, from 1 ms to 31 days. A later
// Block replaces an earlier one, also by a shorter one.
func (s *Semaphore) Block(ctx context.Context, subject string, d time.Duration) error {
	if d < time.Millisecond || d > maxTTL {
		return fail.Argument("block", s.name, "d", "must be from 1ms to 31 days")
	}
	err := s.r.Eval(ctx, limitscript.Block, []string{s.key(subject) + limitscript.BlockSuffix}, []string{limitscript.Micros(d)}).Err()
	return s.failed("block", err)
}

func (s *Semaphore) key(subject string) string {
	return s.keyPrefix + keys.Subject.Encode(subject) + "}"
}

// evaluate peeks or acquires: the script reads the leases and the block.
func (s *Semaphore) evaluate(ctx context.Context, verb limitscript.LeaseVerb, key, id string) (rep limitscript.Reply, err error) {
	ctx, cancel := s.withTimeout(ctx)
	defer cancel()
	if !s.clustered {
		return s.eval(ctx, verb, id, key, key+limitscript.BlockSuffix)
	}
	err = s.r.SplitKeys(ctx, key,
		func(ctx context.Context) (err error) {
			rep, err = s.eval(ctx, verb, id, key, key+limitscript.BlockSuffix)
			return err
		},
		func(ctx context.Context) (err error) { rep, err = s.evalSplitKeys(ctx, verb, id, key); return err })
	return rep, err
}

// update renews or releases a lease: the script needs the key of the leases alone.
func (s *Semaphore) update(ctx context.Context, verb limitscript.LeaseVerb, key, id string) (limitscript.Reply, error) {
	ctx, cancel := s.withTimeout(ctx)
	defer cancel()
	return s.eval(ctx, verb, id, key)
}

// withTimeout bounds a call; with 0 the connection's own time-out holds.
func (s *Semaphore) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.opt.Timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.opt.Timeout)
}

// evalSplitKeys reads the block, and then the leases, while a cluster moves their
// slot. A block that starts between the two is not seen; an earlier one is.
func (s *Semaphore) evalSplitKeys(ctx context.Context, verb limitscript.LeaseVerb, id, key string) (limitscript.Reply, error) {
	m, err := s.run(ctx, limitscript.Blocked, []string{key + limitscript.BlockSuffix}, nil)
	if err != nil {
		return limitscript.Reply{}, err
	}
	block, err := m.AsInt64()
	switch {
	case err != nil:
		return limitscript.Reply{}, errors.Join(limitscript.ErrReply, err)
	case block > 0:
		return limitscript.Reply{Retry: block, Used: -1, Reset: block}, nil
	}
	return s.eval(ctx, verb, id, key)
}

// eval runs the script of leases.
func (s *Semaphore) eval(ctx context.Context, verb limitscript.LeaseVerb, id string, stored ...string) (limitscript.Reply, error) {
	args := append(make([]string, 0, 5), string(verb), strconv.FormatInt(s.opt.Limit, 10), limitscript.Micros(s.opt.LeaseTTL), id)
	if verb == limitscript.LeaseRelease {
		args = append(args, s.waiting.channel)
	}
	m, err := s.run(ctx, limitscript.Lease, stored, args)
	if err != nil {
		return limitscript.Reply{}, err
	}
	s.monitor.Succeeded()
	return limitscript.ReadReply(m)
}

func (s *Semaphore) run(ctx context.Context, script *madcrow.Script, stored, args []string) (madcrow.Message, error) {
	return limitscript.Eval(ctx, s.r, script, stored, args, func(f limitscript.Foreign) {
		s.monitor.ForeignValue(f)
		s.events.Count(ctx, madcrow.EventSemaphoreReplaced)
	})
}

func (s *Semaphore) decide(r limitscript.Reply) Decision {
	d := Decision{
		Allowed: r.Retry == 0, Limit: s.opt.Limit, of: s,
		RetryAfter: time.Duration(r.Retry) * time.Microsecond,
		ResetAfter: time.Duration(r.Reset) * time.Microsecond,
	}
	if r.Used >= 0 {
		d.Remaining = max(0, s.opt.Limit-r.Used)
	}
	return d
}

// record reports a decision to the recorder.
func (s *Semaphore) record(ctx context.Context, d Decision, err error) {
	event := madcrow.EventSemaphoreDenied
	switch {
	case err != nil:
		event = madcrow.EventSemaphoreError
	case d.Degraded:
		event = madcrow.EventSemaphoreDegraded
	case d.Allowed:
		event = madcrow.EventSemaphoreAllowed
	}
	s.events.Count(ctx, event)
}
