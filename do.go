package madcrow

import (
	"context"
	"errors"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// retryBackoff gives the pauses between the tries of a call that Redis refuses for
// the moment.
var retryBackoff = clock.Backoff{First: 5 * time.Millisecond, Most: 100 * time.Millisecond}

// maxTries bounds the tries over connections that break again and again.
const maxTries = 5

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
// A command of Config.BulkThreshold bytes or more, or one that blocks, travels
// on a connection of its own. Commands that change the connection, such as
// SELECT, WATCH, MULTI or MONITOR, are refused: others share it.
func (r *Redis) Do(ctx context.Context, build func(Builder) Command) (Message, error) {
	start := clock.Now()
	bounded, cc := r.deadlines.enter(ctx, start)
	defer r.deadlines.leave(cc)
	msg, op, tries, err := r.do(bounded, build)
	if r.rec != nil {
		r.record(op, 1, start, tries, err)
	}
	if err != nil {
		return msg, publicError(err)
	}
	return msg, nil
}

func (r *Redis) do(ctx context.Context, build func(Builder) Command) (msg Message, op string, tries int, e *fault.Error) {
	var next redirect
	for redirects := 0; ; tries++ {
		cmd := build(r.builder)
		args := cmd.Commands()
		op = args[0]
		again := fault.IdempotencyOf(cmd)
		size := commandSize(args)
		kind := classOf(args)
		switch {
		case kind > classBlocks:
			return msg, op, tries, refused(op, errState)
		case size > r.cfg.MaxValueSize:
			return msg, op, tries, tooLarge(op, size, r.cfg.MaxValueSize)
		}
		n, e := next.node, (*fault.Error)(nil)
		if n == nil {
			if n, e = r.topology.pick(ctx, cmd.Slot()); e != nil {
				return msg, op, tries, e.For(op)
			}
		}
		var failed error
		if kind == classPlain && size < r.cfg.BulkThreshold && !cmd.IsBlock() {
			s, err := n.enter(ctx)
			if err != nil {
				if redirects++; errors.Is(err, fault.ErrMoved) && redirects <= maxRedirects {
					next = redirect{} // the node has left the cluster
					continue
				}
				return msg, op, tries, err.For(op)
			}
			msg, failed = s.do(ctx, cmd, next.asking).ToMessage()
		} else {
			msg, failed = n.doDedicated(ctx, cmd, next.asking).ToMessage()
		}
		if failed == nil || failed == rueidis.Nil {
			return msg, op, tries, nil
		}
		var moved bool
		if next, moved = r.topology.follow(n, failed); moved {
			if redirects++; redirects <= maxRedirects {
				continue
			}
			failed = fault.ErrTooManyRedirects
		}
		f := n.noteFailure(ctx, op, failed, again)
		if !f.Retry || !pause(ctx, tries, f.Backoff) {
			return Message{}, op, tries, f.Error
		}
	}
}

// enter passes the gate and takes a slot on a lane.
func (n *node) enter(ctx context.Context) (*sharedConn, *fault.Error) {
	if err := ctx.Err(); err != nil {
		return nil, &fault.Error{Kind: fault.ContextKind(err), Outcome: fault.OutcomeNotApplied, Err: err}
	}
	if !n.availability.IsUp() {
		if err := n.availability.Wait(ctx); err != nil {
			return nil, err
		}
	}
	s := n.nextShared()
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// alone sends one command on a borrowed connection.
func (n *node) doDedicated(ctx context.Context, cmd Command, asking bool) rueidis.RedisResult {
	cmds := []Command{cmd}
	if asking {
		cmds = []Command{n.builder.Asking().Build(), cmd}
	}
	results, err := n.doMultiDedicated(ctx, cmds)
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	return results[len(results)-1]
}

// borrow sends commands on a borrowed connection.
func (n *node) doMultiDedicated(ctx context.Context, cmds []Command) ([]rueidis.RedisResult, *fault.Error) {
	n.dedicated.calls.Add(1)
	defer n.dedicated.calls.Add(-1)
	c, err := n.dedicated.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer c.release()
	return c.do(ctx, cmds...), nil
}

// failed classifies the error of one try, and lets the node draw its lesson.
func (n *node) noteFailure(ctx context.Context, op string, err error, idem fault.Idempotency) fault.Failure {
	f := fault.Classify(ctx, op, err, idem)
	n.explainReply(f.Error)
	switch f.NodeFault {
	case fault.KindReadOnly:
		n.noteDemoted(f.Err)
	case fault.KindAuth:
		// The password changed while we were connected: connect anew, with
		// what Credentials says now.
		n.availability.Suspect(&fault.Error{Op: "connect", Kind: fault.KindAuth, Outcome: fault.OutcomeNotApplied, Err: f.Err})
	}
	n.restrict(f)
	return f
}

// pause waits before the next try; after a broken connection the first one
// comes at once. It says false when that makes no sense: too many tries, or no
// time left, so that the caller learns the real reason and not of a deadline.
func pause(ctx context.Context, tries int, wait bool) bool {
	if !wait && (tries == 0 || tries+1 >= maxTries) {
		return tries == 0 && ctx.Err() == nil
	}
	return retryBackoff.Pause(ctx, tries)
}

func (r *Redis) record(op string, commands int, start int64, retries int, err *fault.Error) {
	kind := Kind(0)
	if err != nil {
		kind = Kind(err.Kind)
	}
	r.recordKind(op, commands, start, retries, kind)
}

func (r *Redis) recordKind(op string, commands int, start int64, retries int, kind Kind) {
	r.rec.Operation(Operation{Name: op, Commands: commands, Duration: time.Duration(clock.Now() - start), Retries: retries, Kind: kind})
}
