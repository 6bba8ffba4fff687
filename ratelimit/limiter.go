package ratelimit

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/internal/fallback"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// Limiter is one limit for many subjects: users, addresses, or anything else
// that a text names. It is safe for concurrent use. Make it with [New].
type Limiter struct {
	r         *madcrow.Redis
	events    events.Source
	name      string
	keyPrefix string // of every key, up to the subject
	clustered bool   // the slot of a subject may move
	plan      plan
	opt       settings
	fail      madcrow.FailPolicy

	denials *denialCache      // nil: denials are not remembered
	local   *fallback.Counter // nil unless the policy is FailLocal
	monitor *fallback.Monitor
}

// New makes a limit. Its name (1 to 64 letters, digits, '-', '_', '.') is part
// of its keys and of its headers; two limits with one name and algorithm share
// their state. The error is a [*madcrow.ArgumentError] that lists every problem.
// New does not call Redis.
func New(r *madcrow.Redis, name string, o Options) (*Limiter, error) {
	var wrong operr.Arguments
	l := newLimiter(r, name, "Options", settings{Options: o}, &wrong)
	if err := fail.Arguments("new", name, wrong); err != nil {
		return nil, err
	}
	return l, nil
}

// newLimiter makes a limiter, and notes what is wrong; where is the name of the
// options' type.
func newLimiter(r *madcrow.Redis, name, where string, o settings, wrong *operr.Arguments) *Limiter {
	o = o.withDefaults(r)
	wrong.Check(keys.ValidName(name), "name", keys.NameRule)
	p := o.Algorithm.plan(where, o.Rate, o.wait, wrong)
	o.check(where, wrong)
	if !wrong.Empty() {
		return nil
	}
	l := &Limiter{
		r: r, events: events.Of(r, name), name: name, plan: p, opt: o, monitor: fallback.NewMonitor(o.Logger, "rate limit", name),
		clustered: r.Config().Cluster.Enabled,
		keyPrefix: r.Config().KeyPrefix + "m1:limit:" + name + ":" + p.kind.code() + ":{",
	}
	if o.DeniedSubjects > 0 {
		l.denials = newDenialCache(o.DeniedSubjects)
	}
	l.setPolicy(o.FailPolicy)
	return l
}

// setPolicy sets the policy and the state that it needs.
func (l *Limiter) setPolicy(policy madcrow.FailPolicy) {
	l.fail = policy
	if policy.IsLocal() && l.local == nil {
		l.local = fallback.NewCounter(l.opt.LocalSubjects, l.plan.localWindow())
	}
}

// OnFailure returns the same limit, with the same state, under another policy:
// for calls that must behave differently while Redis is unavailable. Keep the
// returned limiter and use it again. It panics on the zero policy.
func (l *Limiter) OnFailure(policy madcrow.FailPolicy) *Limiter {
	if text := fallback.Problem(policy); text != "" {
		panic(fail.Argument("on failure", l.name, "policy", text))
	}
	other := *l
	other.setPolicy(policy)
	return &other
}

// Name returns the name given to New.
func (l *Limiter) Name() string { return l.name }

// Allow admits one request of subject and counts it, or denies it. The error is
// a [*madcrow.Error]: the limit could not be decided, and the policy is FailClosed or
// the caller cancelled.
func (l *Limiter) Allow(ctx context.Context, subject string) (Decision, error) {
	return l.AllowN(ctx, subject, 1)
}

// AllowN is Allow for a request that costs n, at least 1: all of it is admitted,
// or nothing is counted. A cost above the limit is denied with [Never] without a
// call to Redis.
func (l *Limiter) AllowN(ctx context.Context, subject string, n int64) (Decision, error) {
	d, err := l.allow(ctx, subject, n)
	l.record(ctx, d, err)
	return d, err
}

func (l *Limiter) allow(ctx context.Context, subject string, n int64) (Decision, error) {
	switch {
	case n < 1:
		return Decision{}, l.costTooSmall("allow")
	case n > l.plan.limit:
		return l.costAboveLimit(n), nil
	}
	asked := clock.Now()
	if d, ok := l.cachedDenial(subject, n, asked); ok {
		return d, nil
	}
	reply, err := l.evaluate(ctx, evaluation{verb: limitscript.VerbAllow, subject: subject, cost: n})
	if err != nil {
		return l.fallBack(ctx, "allow", subject, n, err)
	}
	d := l.decide(reply, n)
	l.rememberDenial(subject, n, asked, d)
	return d, nil
}

func (l *Limiter) costTooSmall(op string) error {
	return fail.Argument(op, l.name, "cost", "must be at least 1")
}

func (l *Limiter) costAboveLimit(cost int64) Decision {
	d := l.decision(SourceLocal, cost)
	d.RetryAfter = Never
	return d
}

// decision is a decision with the numbers of the limit.
func (l *Limiter) decision(source Source, cost int64) Decision {
	return Decision{Limiter: l.name, Limit: l.plan.limit, Window: l.plan.rate.Window, Source: source, of: l, cost: cost}
}

// decide turns a reply about a cost into a decision.
func (l *Limiter) decide(r limitscript.Reply, cost int64) Decision {
	d := l.plan.decide(l.name, r)
	d.of, d.cost = l, cost
	return d
}

// cachedDenial returns a remembered denial that still holds.
func (l *Limiter) cachedDenial(subject string, n, now int64) (Decision, bool) {
	if l.denials == nil {
		return Decision{}, false
	}
	retry, reset, ok := l.denials.lookup(subject, n, now)
	if !ok {
		return Decision{}, false
	}
	d := l.decision(SourceLocal, n)
	d.RetryAfter, d.ResetAfter = retry, reset
	return d, true
}

// rememberDenial keeps a decision of Redis that denies; asked is when the call
// was sent.
func (l *Limiter) rememberDenial(subject string, n, asked int64, d Decision) {
	if !d.Allowed && l.denials != nil {
		l.denials.add(subject, n, asked, d.RetryAfter, d.ResetAfter)
	}
}

// forgetDenial drops what is remembered of subject, before its state changes.
func (l *Limiter) forgetDenial(subject string) {
	if l.denials != nil {
		l.denials.remove(subject)
	}
}

// evaluation is one call of a limit's script.
type evaluation struct {
	verb    limitscript.Verb
	subject string
	cost    int64
	mode    limitscript.Mode // for GCRA only; empty is ModeAllOrNone
	maxWait time.Duration    // for VerbReserve only
}

// withTimeout bounds a call; with 0 the connection's own time-out holds.
func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// evaluate runs the script of this limit.
func (l *Limiter) evaluate(ctx context.Context, e evaluation) (limitscript.Reply, error) {
	ctx, cancel := withTimeout(ctx, l.opt.Timeout)
	defer cancel()
	key := subjectKey(l.keyPrefix, e.subject)
	var space [8]string
	args := l.appendArgs(space[:0], e)
	var rep limitscript.Reply
	var err error
	if l.clustered {
		rep, err = l.evaluateInCluster(ctx, e, key, slices.Clone(args))
	} else {
		rep, err = l.evalKeys(ctx, key, args)
	}
	if err == nil {
		l.monitor.Succeeded()
	}
	return rep, err
}

// evaluateInCluster is apart, as what its functions share is allocated.
func (l *Limiter) evaluateInCluster(ctx context.Context, e evaluation, key string, args []string) (rep limitscript.Reply, err error) {
	err = l.r.SplitKeys(ctx, key,
		func(ctx context.Context) (err error) { rep, err = l.evalKeys(ctx, key, args); return err },
		func(ctx context.Context) (err error) { rep, err = l.evalSplitKeys(ctx, e, key, args); return err })
	return rep, err
}

// appendArgs appends the arguments of this limit's script.
func (l *Limiter) appendArgs(args []string, e evaluation) []string {
	args = append(args, string(e.verb), strconv.FormatInt(e.cost, 10))
	switch l.plan.kind {
	case kindSet:
		return append(args, l.plan.args[0], l.plan.args[1], keys.Nonce())
	case kindGCRA:
		mode := e.mode
		if mode == "" {
			mode = limitscript.ModeAllOrNone
		}
		args = append(append(args, l.plan.args[:]...), string(mode))
		if e.verb == limitscript.VerbReserve {
			args = append(args, limitscript.Micros(e.maxWait))
		}
		return args
	}
	return append(args, l.plan.args[:3]...)
}

// evalKeys runs the script on both keys of a subject, its state and its block.
func (l *Limiter) evalKeys(ctx context.Context, key string, args []string) (limitscript.Reply, error) {
	m, err := l.eval(ctx, l.plan.script, []string{key, key + limitscript.BlockSuffix}, args)
	if err != nil {
		return limitscript.Reply{}, err
	}
	return limitscript.ReadReply(m)
}

// eval runs a script of limits.
func (l *Limiter) eval(ctx context.Context, s *madcrow.Script, stored, args []string) (madcrow.Message, error) {
	return limitscript.Eval(ctx, l.r, s, stored, args, func(f limitscript.Foreign) {
		l.monitor.ForeignValue(f)
		l.events.Count(ctx, madcrow.EventLimitReplaced)
	})
}

// Peek returns the decision that Allow would return, and counts nothing.
func (l *Limiter) Peek(ctx context.Context, subject string) (Decision, error) {
	reply, err := l.evaluate(ctx, evaluation{verb: limitscript.VerbPeek, subject: subject, cost: 1})
	if err != nil {
		return Decision{}, l.failed("peek", err)
	}
	return l.decide(reply, 1), nil
}

// Reset deletes the state of subject, its block included. This process sees it
// at once, others within a second.
func (l *Limiter) Reset(ctx context.Context, subject string) error {
	key := subjectKey(l.keyPrefix, subject)
	_, err := l.r.DoMulti(ctx, l.r.B().Del().Key(key).Build(), l.r.B().Del().Key(key+limitscript.BlockSuffix).Build())
	// Also after an error: the keys may be deleted.
	l.forgetDenial(subject)
	if l.local != nil {
		l.local.Remove(subject)
	}
	return l.failed("reset", err)
}

// Block denies every request of subject for d, from 1 ms to 31 days. A later
// Block replaces an earlier one, also by a shorter one.
func (l *Limiter) Block(ctx context.Context, subject string, d time.Duration) error {
	if d < time.Millisecond || d > MaxWindow {
		return fail.Argument("block", l.name, "d", "must be "+blockBounds)
	}
	key := subjectKey(l.keyPrefix, subject)
	err := l.r.Eval(ctx, limitscript.Block, []string{key + limitscript.BlockSuffix}, []string{limitscript.Micros(d)}).Err()
	l.forgetDenial(subject)
	if err == nil {
		l.events.Count(ctx, madcrow.EventLimitBlocked)
	}
	return l.failed("block", err)
}

// Wait waits until a request of subject is admitted. It returns [ErrTooLate] at
// once when ctx ends before that. Waiting callers do not queue: another request
// may be admitted first, then Wait waits again. It retries at least once a
// second, so a Reset takes effect.
func (l *Limiter) Wait(ctx context.Context, subject string) (Decision, error) {
	return l.WaitN(ctx, subject, 1)
}

// WaitN is Wait for a request that costs n. It returns [ErrNever] for a cost
// above the limit. While Redis is unavailable, a cost above this process's share
// under [madcrow.FailLocal] returns the error of Redis.
func (l *Limiter) WaitN(ctx context.Context, subject string, n int64) (Decision, error) {
	for {
		d, err := l.AllowN(ctx, subject, n)
		if err != nil || d.Allowed {
			return d, err
		}
		if d.RetryAfter == Never && d.Degraded {
			return d, d.Cause // above this process's share
		}
		if d.RetryAfter == Never {
			return d, l.failed("wait", ErrNever)
		}
		if err := sleepUntilFree(ctx, d.RetryAfter); err != nil {
			return d, l.failed("wait", err)
		}
	}
}

// maxSleep is the longest time between two tries of Wait: a Reset may have freed
// the limit.
const maxSleep = time.Second

// sleepUntilFree waits for d, at most maxSleep. It returns ErrTooLate if ctx
// ends before d has passed.
func sleepUntilFree(ctx context.Context, d time.Duration) error {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < d {
		return ErrTooLate
	}
	return clock.Sleep(ctx, max(min(d, maxSleep), time.Millisecond))
}

func (l *Limiter) failed(op string, err error) error { return fail.Wrap(op, l.name, err) }

// record reports a decision to the recorder.
func (l *Limiter) record(ctx context.Context, d Decision, err error) {
	event := madcrow.EventLimitDenied
	switch {
	case err != nil:
		event = madcrow.EventLimitError
	case d.Degraded:
		event = madcrow.EventLimitDegraded
	case d.Allowed:
		event = madcrow.EventLimitAllowed
	case d.Source == SourceLocal:
		event = madcrow.EventLimitDeniedLocally
	}
	l.events.Count(ctx, event)
}
