package madcrow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/rueidis"
)

// Pauses between tries of a call that Redis refuses for the moment.
const (
	backoffFirst = 5 * time.Millisecond
	backoffMost  = 100 * time.Millisecond
	// maxTries bounds the tries over connections that break again and again.
	maxTries = 5
)

// Do sends one command and returns its reply. An absent value is msg.IsNil()
// and no error; every error is an [*Error].
//
// It returns by ctx's deadline or Config.CommandTimeout, whichever is sooner,
// and within 5 ms of a cancellation; when Redis is known to be away it fails
// in under a millisecond. build is called for each try: once, and again after
// a refusal that surely changed nothing (LOADING, BUSY, a connection that was
// not open) or, for reads and commands marked ToRetryable(), after a broken
// connection. It must give the same command each time, and must not keep it.
//
// A command of Config.BulkThreshold bytes or more travels on a connection of
// its own. One that blocks belongs to [Redis.DoBlocking], a subscription to
// [Redis.Receive].
func (r *Redis) Do(ctx context.Context, build func(Builder) Command) (Message, error) {
	start := mono()
	bounded, cc := r.deadlines.enter(ctx, start)
	msg, op, tries, err := r.do(bounded, build)
	r.deadlines.leave(cc)
	if r.rec != nil {
		r.record(op, 1, start, tries, err)
	}
	if err != nil {
		return msg, err
	}
	return msg, nil
}

func (r *Redis) do(ctx context.Context, build func(Builder) Command) (msg Message, op string, tries int, e *Error) {
	n := r.node
	for ; ; tries++ {
		l, err := n.enter(ctx)
		if err != nil {
			return msg, op, tries, notSent(err, build(n.lanes[0].client.B()))
		}
		cmd := build(l.client.B())
		op = cmd.Commands()[0]
		repeatable := cmd.IsReadOnly() || cmd.IsRetryable()
		size := commandSize(cmd)
		var res rueidis.RedisResult
		if size < n.cfg.BulkThreshold && !cmd.IsBlock() && !cmd.NoReply() {
			start := mono()
			res = l.client.Do(ctx, cmd)
			l.leave(start, ctx.Err() != nil && res.NonRedisError() != nil)
		} else {
			l.inflight.Add(-1)
			if e := r.refuse(cmd, op, size); e != nil {
				return msg, op, tries, e
			}
			res = r.borrowed(ctx, cmd)
		}
		var failed error
		if msg, failed = res.ToMessage(); failed == nil || failed == rueidis.Nil {
			return msg, op, tries, nil
		}
		f := n.failed(ctx, op, failed, repeatable)
		if !f.again || !n.pause(ctx, tries, f.backoff) {
			return Message{}, op, tries, f.Error
		}
	}
}

// enter passes the gate and takes a slot on a lane.
func (n *node) enter(ctx context.Context) (*lane, *Error) {
	if err := ctx.Err(); err != nil {
		return nil, &Error{Kind: contextKind(err), Outcome: OutcomeNotApplied, Err: err}
	}
	if n.gate.state.Load() != gateOpen {
		if err := n.gate.pass(ctx); err != nil {
			return nil, err
		}
	}
	l := n.lane()
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// notSent names the command in an error of the gate, which many calls share.
func notSent(e *Error, cmd Command) *Error {
	named := *e
	named.Op = cmd.Commands()[0]
	return &named
}

// refuse says why a command that is no ordinary one is not sent.
func (r *Redis) refuse(cmd Command, op string, size int) *Error {
	if cmd.NoReply() {
		return &Error{Op: op, Kind: KindServer, Outcome: OutcomeNotApplied, Err: errors.New("a subscription goes through Receive")}
	}
	if size > r.cfg.MaxValueSize {
		return tooLarge(op, size, r.cfg.MaxValueSize)
	}
	return nil
}

func tooLarge(op string, size, most int) *Error {
	return &Error{Op: op, Kind: KindTooLarge, Outcome: OutcomeNotApplied, Err: fmt.Errorf("%d bytes are more than Config.MaxValueSize, %d", size, most)}
}

// borrowed sends one command on a connection of its own.
func (r *Redis) borrowed(ctx context.Context, cmd Command) rueidis.RedisResult {
	results, err := r.borrow(ctx, cmd)
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	return results[0]
}

func (r *Redis) borrow(ctx context.Context, cmds ...Command) ([]rueidis.RedisResult, error) {
	p := r.node.pool
	r.calls.Add(1)
	defer r.calls.Add(-1)
	if err := p.take(ctx); err != nil {
		return nil, err
	}
	// The goroutine that serves a borrowed connection may outlive the call, so
	// it must not see a context that is used again.
	deadline, _ := ctx.Deadline()
	own, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	results, sent, err := p.do(own, cmds...)
	if !sent {
		return nil, &Error{Kind: contextKind(err), Outcome: OutcomeNotApplied, Err: err}
	}
	return results, err
}

// commandSize counts the bytes of all arguments.
func commandSize(cmd Command) (size int) {
	for _, s := range cmd.Commands() {
		size += len(s)
	}
	return size
}

// failed classifies the error of one try, and lets the node draw its lesson.
func (n *node) failed(ctx context.Context, op string, err error, repeatable bool) failure {
	f := classify(ctx, op, err, repeatable)
	switch f.Kind {
	case KindReadOnly:
		n.demoted(f.Err)
	case KindAuth:
		// The password changed while we were connected: connect anew, with
		// what Credentials says now.
		n.doubt(&Error{Op: "connect", Kind: KindAuth, Outcome: OutcomeNotApplied, Err: f.Err})
	}
	return f
}

// pause waits before the next try; after a broken connection the first one
// comes at once. It says false when that makes no sense: too many tries, or no
// time left, so that the caller learns the real reason and not of a deadline.
func (n *node) pause(ctx context.Context, tries int, backoff bool) bool {
	if !backoff && (tries == 0 || tries+1 >= maxTries) {
		return tries == 0 && ctx.Err() == nil
	}
	d := min(backoffFirst<<min(tries, 10), backoffMost)
	d = d/2 + rand.N(d/2)
	if t, ok := ctx.Deadline(); ok && time.Until(t) < d+backoffFirst {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Redis) record(op string, commands int, start int64, retries int, err *Error) {
	o := Operation{Name: op, Commands: commands, Duration: time.Duration(mono() - start), Retries: retries}
	if err != nil {
		o.Kind = err.Kind
	}
	r.rec.Operation(o)
}
