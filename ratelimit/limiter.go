package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/limitscript"
)

// DefaultDeniedKeys is how many denied subjects a limiter remembers.
const DefaultDeniedKeys = 16384

// Limiter is one limit for many subjects: users, addresses, whatever a text can
// name. It is safe for concurrent use. Make it with [New].
type Limiter struct {
	r      *madcrow.Redis
	rec    madcrow.Recorder
	name   string
	before string // of every key, up to the subject
	plan   plan
	opt    options
	fail   FailPolicy

	denied *denials // nil: none are remembered
	apart  *apart   // nil: there is no cluster
	spare  *spare   // the state of FailLocal; nil otherwise
	health *health
}

type options struct {
	algorithm  Algorithm
	deniedKeys int
	timeout    time.Duration
	spareKeys  int
	wait       time.Duration
}

// Option changes what [New] and its like make.
type Option func(*options)

// WithAlgorithm chooses the algorithm. Defaults to [SlidingLog].
func WithAlgorithm(a Algorithm) Option { return func(o *options) { o.algorithm = a } }

// WithDeniedKeys sets how many denied subjects are remembered in this process,
// at most; 0 asks Redis each time. Defaults to [DefaultDeniedKeys], about 2 MB
// when full. A remembered denial holds for at most a second, so that a reset
// made elsewhere is seen.
func WithDeniedKeys(n int) Option { return func(o *options) { o.deniedKeys = n } }

// WithTimeout bounds each question to Redis, after which the [FailPolicy]
// decides. Defaults to Config.CommandTimeout, and costs a few allocations where
// it is set.
func WithTimeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// WithLocalKeys bounds how many subjects [FailLocal] counts in this process;
// beyond that the least recent one is forgotten, and starts anew. Defaults to
// 16,384, about 3 MB when full.
func WithLocalKeys(n int) Option { return func(o *options) { o.spareKeys = n } }

// New makes a limit. Its name (1 to 64 letters, digits, '-', '_', '.') is part
// of its keys and of its headers; two limits with one name and algorithm share
// their state. fail says what happens when Redis cannot be asked. The error is
// a [*ValidationError]; Redis is not asked.
func New(r *madcrow.Redis, name string, rate Rate, fail FailPolicy, opts ...Option) (*Limiter, error) {
	o := options{deniedKeys: DefaultDeniedKeys, spareKeys: DefaultDeniedKeys}
	for _, set := range opts {
		set(&o)
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := fail.validate(); err != nil {
		return nil, err
	}
	if o.deniedKeys < 0 || o.spareKeys < 1 || o.timeout < 0 || o.wait < 0 {
		return nil, &ValidationError{Field: "options", Message: "numbers of keys and times must not be negative"}
	}
	p, err := o.algorithm.plan(rate, o.wait)
	if err != nil {
		return nil, err
	}
	l := &Limiter{
		r: r, rec: r.Recorder(), name: name, plan: p, opt: o, health: newHealth(r, name),
		before: r.Config().KeyPrefix + "m1:limit:" + name + ":" + p.kind.letter() + ":{",
	}
	if r.Config().Cluster.Enabled {
		l.apart = &apart{}
	}
	if o.deniedKeys > 0 {
		l.denied = newDenials(o.deniedKeys)
	}
	l.choose(fail)
	return l, nil
}

// choose sets the policy, with the state that it needs.
func (l *Limiter) choose(fail FailPolicy) {
	l.fail = fail
	if fail.mode == failLocal && l.spare == nil {
		l.spare = newSpare(l.opt.spareKeys, l.plan)
	}
}

// OnFailure returns the same limit, with the same state, under another policy:
// for the calls that must not do as the others when Redis cannot be asked.
// Keep what it returns. It panics on the zero policy.
func (l *Limiter) OnFailure(fail FailPolicy) *Limiter {
	if err := fail.validate(); err != nil {
		panic(err)
	}
	other := *l
	other.choose(fail)
	return &other
}

// Name returns the name given to New.
func (l *Limiter) Name() string { return l.name }

// Allow asks for one request of subject, and counts it when it is admitted.
// The error is an [*Error]: the limit could not be decided, and the policy is
// FailClosed or the caller cancelled.
func (l *Limiter) Allow(ctx context.Context, subject string) (Decision, error) {
	return l.AllowN(ctx, subject, 1)
}

// AllowN asks for a request that costs n, at least 1: all of it is admitted, or
// nothing is counted. A cost above the limit is denied with [Never] without
// asking Redis.
func (l *Limiter) AllowN(ctx context.Context, subject string, n int64) (Decision, error) {
	d, err := l.allow(ctx, subject, n)
	l.count(d, err)
	return d, err
}

func (l *Limiter) allow(ctx context.Context, subject string, n int64) (Decision, error) {
	switch {
	case n < 1:
		return Decision{}, errCost
	case n > l.plan.limit:
		return l.never(), nil
	}
	asked := mono()
	if l.denied != nil {
		if d, ok := l.remembered(subject, n, asked); ok {
			return d, nil
		}
	}
	reply, err := l.ask(ctx, question{verb: verbTake, subject: subject, cost: n})
	if err != nil {
		return l.fallBack(ctx, "allow", subject, n, err)
	}
	d := l.plan.decide(l.name, reply)
	if !d.Allowed && l.denied != nil {
		l.denied.add(subject, n, asked, d.RetryAfter, d.ResetAfter)
	}
	return d, nil
}

var errCost = &ValidationError{Field: "cost", Message: "must be at least 1"}

func (l *Limiter) never() Decision {
	return Decision{Policy: l.name, Limit: l.plan.limit, Window: l.plan.rate.Window, RetryAfter: Never, Source: SourceLocal}
}

// remembered is a denial that still holds.
func (l *Limiter) remembered(subject string, n, now int64) (Decision, bool) {
	retry, reset, ok := l.denied.find(subject, n, now)
	if !ok {
		return Decision{}, false
	}
	return Decision{
		Policy: l.name, Limit: l.plan.limit, Window: l.plan.rate.Window,
		RetryAfter: retry, ResetAfter: reset, Source: SourceLocal,
	}, true
}

// question is what the script of a limit is asked.
type question struct {
	verb, subject string
	cost          int64
	how           string        // of the GCRA alone; empty is takeAll
	wait          time.Duration // of verbBook alone
}

const (
	verbLook  = "0"
	verbTake  = "1"
	verbForce = "2"
	verbBook  = "3"
)

// within bounds a question; 0 leaves that to the connection.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// ask runs the script of this limit.
func (l *Limiter) ask(ctx context.Context, q question) (reply, error) {
	ctx, cancel := within(ctx, l.opt.timeout)
	defer cancel()
	key := subjectKey(l.before, q.subject)
	args := append(make([]string, 0, 8), q.verb, strconv.FormatInt(q.cost, 10))
	switch l.plan.kind {
	case kindSet:
		args = append(append(args, l.plan.args[:2]...), newNonce())
	case kindGCRA:
		how := q.how
		if how == "" {
			how = takeAll
		}
		args = append(append(args, l.plan.args[:]...), how)
		if q.verb == verbBook {
			args = append(args, strconv.FormatInt(q.wait.Microseconds(), 10))
		}
	default:
		args = append(args, l.plan.args[:3]...)
	}
	rep, err := l.eval(ctx, q.verb, key, args)
	if err == nil {
		l.health.good()
	}
	return rep, err
}

// eval runs the script of this limit, once for its two keys together. While
// their slot of a cluster is being moved that is refused.
func (l *Limiter) eval(ctx context.Context, verb, key string, args []string) (reply, error) {
	apart := l.apart != nil && (verb == verbTake || verb == verbLook)
	var start time.Time
	if apart {
		if l.apart.now() {
			return l.evalApart(ctx, key, args)
		}
		start = time.Now()
	}
	m, err := l.run(ctx, l.plan.script, []string{key, key + blockSuffix}, args)
	if err == nil {
		return readReply(m)
	}
	if !apart || !slotMoves(err) {
		return reply{}, err
	}
	l.apart.begin()
	// The refusals have taken most of the time. What ctx allows is never passed.
	most := l.r.Config().CommandTimeout
	ctx, cancel := context.WithTimeout(ctx, max(most-time.Since(start), most/4))
	defer cancel()
	return l.evalApart(ctx, key, args)
}

// run runs a script of limits. What it cannot read in its keys is replaced: it
// would fail for ever, and a limit that fails open admit everything.
func (l *Limiter) run(ctx context.Context, s *madcrow.Script, keys, args []string) (madcrow.Message, error) {
	m, err := l.r.Eval(ctx, s, keys, args)
	if err == nil || !limitscript.MayBeForeign(err) {
		return m, err
	}
	found, bad := limitscript.Replace(ctx, l.r, s, keys, args)
	if e := (*madcrow.Error)(nil); bad != nil && errors.As(err, &e) && e.Kind == madcrow.KindWrongType {
		// Each script reads before it counts.
		err = &madcrow.Error{Op: e.Op, Kind: e.Kind, Outcome: madcrow.OutcomeNotApplied, Err: fmt.Errorf("%w: %s is no limit's, and cannot be deleted: %w", e.Err, keys[0], bad)}
	}
	if bad != nil || len(found) == 0 {
		return m, err
	}
	for _, f := range found {
		l.health.foreign(f)
		l.rec.Event("ratelimit", "replaced", 1)
	}
	return l.r.Eval(ctx, s, keys, args)
}

const blockSuffix = ":block"

var errReply = errors.New("the limit script returned an unexpected reply")

func readReply(m madcrow.Message) (reply, error) {
	list, err := m.ToArray()
	if err != nil || len(list) < 4 {
		return reply{}, errors.Join(errReply, err)
	}
	return readNumbers(list)
}

func readNumbers(list []madcrow.Message) (r reply, err error) {
	for i, to := range [...]*int64{&r.retry, &r.used, &r.reset, &r.extra} {
		if *to, err = list[i].AsInt64(); err != nil {
			return r, errors.Join(errReply, err)
		}
	}
	return r, nil
}

// Peek says what Allow would say, and counts nothing.
func (l *Limiter) Peek(ctx context.Context, subject string) (Decision, error) {
	reply, err := l.ask(ctx, question{verb: verbLook, subject: subject, cost: 1})
	if err != nil {
		return Decision{}, l.failed("peek", err)
	}
	return l.plan.decide(l.name, reply), nil
}

// Reset forgets everything about subject, a block included. Other processes
// see it within a second, this one at once.
func (l *Limiter) Reset(ctx context.Context, subject string) error {
	key := subjectKey(l.before, subject)
	_, err := l.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command { // one key each: their slot may be moving
		return []madcrow.Command{b.Del().Key(key).Build(), b.Del().Key(key + blockSuffix).Build()}
	})
	// Whatever came of it: what is remembered may be wrong now.
	l.forget(subject)
	if l.spare != nil {
		l.spare.forget(subject)
	}
	return l.failed("reset", err)
}

// Block denies subject everything for d, from 1 ms to 31 days, whatever is
// free. A later Block replaces an earlier one, also by a shorter one.
func (l *Limiter) Block(ctx context.Context, subject string, d time.Duration) error {
	if d < time.Millisecond || d > MaxWindow {
		return &ValidationError{Field: "block", Message: fmt.Sprintf("must be from 1ms to %v", MaxWindow)}
	}
	key := subjectKey(l.before, subject)
	_, err := l.r.Eval(ctx, limitscript.Block, []string{key + blockSuffix}, []string{strconv.FormatInt(d.Microseconds(), 10)})
	l.forget(subject)
	return l.failed("block", err)
}

func (l *Limiter) forget(subject string) {
	if l.denied != nil {
		l.denied.remove(subject)
	}
}

// Wait waits until a request of subject is admitted. It returns at once with
// [ErrTooLate] when ctx ends before that could be, and does not stand in line:
// others may be admitted in between, then it waits again. It asks again after a
// second at the latest, and so sees a Reset.
func (l *Limiter) Wait(ctx context.Context, subject string) (Decision, error) {
	return l.WaitN(ctx, subject, 1)
}

// WaitN is Wait for a request that costs n; for one above the limit it returns
// [ErrNever]. Without Redis, one above this process's share under [FailLocal] is
// the error of Redis.
func (l *Limiter) WaitN(ctx context.Context, subject string, n int64) (Decision, error) {
	for {
		d, err := l.AllowN(ctx, subject, n)
		if err != nil || d.Allowed {
			return d, err
		}
		if d.RetryAfter == Never && d.Degraded {
			return d, d.Err // above what this process may admit alone
		}
		if d.RetryAfter == Never {
			return d, &Error{Policy: l.name, Op: "wait", Err: ErrNever}
		}
		if err := sleep(ctx, d.RetryAfter); err != nil {
			return d, &Error{Policy: l.name, Op: "wait", Err: err}
		}
	}
}

// longestSleep is when one who waits asks again: what was to come may be free
// already, after a Reset.
const longestSleep = time.Second

// sleep waits for d or longestSleep, or says why d makes no sense.
func sleep(ctx context.Context, d time.Duration) error {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < d {
		return ErrTooLate
	}
	return pause(ctx, min(d, longestSleep))
}

func (l *Limiter) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Policy: l.name, Op: op, Err: err}
}

// count reports a decision to the recorder.
func (l *Limiter) count(d Decision, err error) {
	if _, nobody := l.rec.(madcrow.NopRecorder); nobody {
		return
	}
	name := "denied"
	switch {
	case err != nil:
		name = "error"
	case d.Degraded:
		name = "degraded"
	case d.Allowed:
		name = "allowed"
	case d.Source == SourceLocal:
		name = "denied_locally"
	}
	l.rec.Event("ratelimit", name, 1)
}

func (k kind) letter() string { return [...]string{"", "l", "s", "w", "g"}[k] }

// start is what monotonic times are counted from.
var start = time.Now()

func mono() int64 { return int64(time.Since(start)) }
