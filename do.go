package madcrow

import (
	"context"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// B returns a builder of commands: r.B().Get().Key("k").Build(). It is that of
// rueidis, and knows every command of Redis; b.Arbitrary makes any other.
func (r *Redis) B() Builder { return r.builder }

// Do sends one command and returns its reply, which also holds the error: an
// [*Error].
//
//	name, found, err := r.Do(ctx, r.B().Get().Key("name").Build()).Text()
//
// It returns by ctx's deadline or Config.CommandTimeout, whichever is sooner,
// and within 5 ms of a cancellation; when Redis is known to be away it fails
// in under a millisecond. The command is sent again after a refusal that surely
// changed nothing (LOADING, BUSY, a connection that was not open) or, for reads
// and commands marked ToRetryable(), after a broken connection.
//
// A command belongs to Do from the call on: it must not be used again, also not
// after an error.
//
// A command of Config.BulkThreshold bytes or more, or one that blocks, travels
// on a connection of its own. Commands that change the connection, such as
// SELECT, WATCH, MULTI or MONITOR, are refused: others share it.
func (r *Redis) Do(ctx context.Context, cmd Command, opts ...DoOption) Reply {
	start := clock.Now()
	if len(opts) != 0 {
		return r.doWith(ctx, start, cmd, opts)
	}
	bounded, cc := r.deadlines.Enter(ctx, start)
	defer r.deadlines.Leave(cc)
	msg, op, tries, err := r.do(bounded, cmd, DoOption{})
	if r.rec != nil {
		r.record(ctx, op, 1, start, tries, err)
	}
	return replyOf(msg, err)
}

// DoOption is how one call of [Redis.Do] travels.
type DoOption struct {
	replica, dedicated bool
	block, timeout     time.Duration
}

var (
	// Replica is for a read that may be a little old: it asks a replica, and the
	// master when there is none, when it is away, or when it fails. It is for
	// caches; what was just written may not be there yet. It needs
	// Config.ReadReplicas and Sentinel or Cluster, and does nothing otherwise, and
	// nothing for a command that is no read.
	Replica = DoOption{replica: true}
	// Dedicated sends the command on a connection of its own whatever its size: for
	// replies that are known to be large, so that small calls do not wait behind
	// them.
	Dedicated = DoOption{dedicated: true}
)

// Blocking is for a command that waits in Redis, such as XREADGROUP with BLOCK or
// BLPOP. d is the time it may wait there, the same as in the command, at least
// 1 ms; the call returns by d and Config.CommandTimeout together, by ctx's
// deadline, or at once when ctx is cancelled: the connection is given up then, and
// what the command would have taken may be taken and lost ([OutcomeUnknown]). A
// wait that ends without a value is a reply that is nil. It is not sent again after
// a broken connection.
func Blocking(d time.Duration) DoOption {
	return DoOption{dedicated: true, block: max(d, time.Millisecond)}
}

// Timeout stands for Config.CommandTimeout in one call, where it is sooner and more
// than 0. Unlike context.WithTimeout it needs no timer.
func Timeout(d time.Duration) DoOption { return DoOption{timeout: max(d, 0)} }

// together are options as one.
func together(opts []DoOption) (all DoOption) {
	for _, o := range opts {
		all.replica = all.replica || o.replica
		all.dedicated = all.dedicated || o.dedicated
		all.block = max(all.block, o.block)
		if o.timeout > 0 && (all.timeout == 0 || o.timeout < all.timeout) {
			all.timeout = o.timeout
		}
	}
	return all
}

// within is a call's time-out.
func (o DoOption) within(most int64) int64 {
	if o.timeout > 0 {
		return min(most, int64(o.timeout))
	}
	return most
}

// doWith is Do with options.
func (r *Redis) doWith(ctx context.Context, start int64, cmd Command, opts []DoOption) Reply {
	o := together(opts)
	bounded := ctx
	if o.block > 0 { // it may be long, and the sweeper of deadlines should rest
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, o.block+time.Duration(o.within(r.deadlines.Timeout)))
		defer cancel()
	} else {
		within, cc := r.deadlines.Within(ctx, start, o.within(r.deadlines.Timeout))
		defer r.deadlines.Leave(cc)
		bounded = within
	}
	msg, op, tries, err := r.do(bounded, cmd, o)
	if r.rec != nil {
		r.record(ctx, op, 1, start, tries, err)
	}
	return replyOf(msg, err)
}

func (r *Redis) do(ctx context.Context, cmd Command, o DoOption) (msg Message, op string, tries int, e *fault.Error) {
	if cmd.IsEmpty() {
		return msg, "DO", 0, topology.NotAllowed("DO", errEmpty)
	}
	c := topology.Route{Topology: r.topology}
	q := requestOf(cmd)
	var k kept
	k.keep(cmd.Commands())
	if o.replica && !o.dedicated && r.topology.HasReplicas() {
		op = cmd.Commands()[0]
		msg, sent, ok := r.tryReplica(ctx, q)
		if ok {
			k.release()
			return msg, op, 0, nil
		}
		if sent {
			q.cmd = k.build(r.builder)
		}
	}
	for {
		var again bool
		msg, op, again, e = r.try(ctx, &c, q, o.dedicated)
		if !again {
			break
		}
		q.cmd = k.build(r.builder)
	}
	k.release()
	return msg, op, c.Tries, e
}

// try sends one command once. again says to build it again and to try it again.
// dedicated gives it a connection of its own; then a command that waits in Redis is
// not repeated after a broken connection.
func (r *Redis) try(ctx context.Context, c *topology.Route, q request, dedicated bool) (msg Message, op string, again bool, e *fault.Error) {
	args := q.cmd.Commands()
	op = args[0]
	size := topology.CommandSize(args)
	kind := topology.ClassOf(args)
	switch {
	case kind > topology.ClassBlocks:
		return msg, op, false, topology.NotAllowed(op, topology.ErrState)
	case size > r.cfg.MaxValueSize:
		return msg, op, false, topology.TooLarge(op, size, r.cfg.MaxValueSize)
	}
	to, e := c.Pick(ctx, q.slot)
	if e != nil {
		return msg, op, false, e.For(op)
	}
	blocks := kind != topology.ClassPlain || q.blocks
	var failed error
	if dedicated || blocks || size >= r.cfg.BulkThreshold {
		if dedicated && blocks {
			q.idem = fault.NonIdempotent
		}
		msg, failed = to.Node.DoDedicated(ctx, q.cmd, to.Asking).ToMessage()
	} else if s, err := to.Node.Enter(ctx); err != nil {
		again, e = c.RetryUnsent(ctx, to.Node, op, err)
		return msg, op, again, e
	} else {
		msg, failed = s.Do(ctx, q.cmd, to.Asking).ToMessage()
	}
	if failed == nil || failed == rueidis.Nil { //nolint:errorlint // the client's own value
		return msg, op, false, nil
	}
	again, e = c.Retry(ctx, to.Node, op, failed, q.idem)
	return Message{}, op, again, e
}

func (r *Redis) tryReplica(ctx context.Context, q request) (msg Message, sent, ok bool) {
	args := q.cmd.Commands()
	if q.idem != fault.ReadOnly || q.blocks || topology.ClassOf(args) != topology.ClassPlain || topology.CommandSize(args) >= r.cfg.BulkThreshold {
		return msg, false, false
	}
	master, err := r.topology.Pick(ctx, q.slot)
	if err != nil {
		return msg, false, false
	}
	n := r.topology.ReplicaOf(master)
	if n == nil {
		return msg, false, false
	}
	s, err := n.Enter(ctx)
	if err != nil {
		return msg, false, false
	}
	msg, failed := s.Do(ctx, q.cmd, false).ToMessage()
	return msg, true, failed == nil || failed == rueidis.Nil //nolint:errorlint // the client's own value
}

func (r *Redis) record(ctx context.Context, op string, commands int, start int64, retries int, err *fault.Error) {
	kind := Kind(0)
	if err != nil {
		kind = Kind(err.Kind)
	}
	r.recordKind(ctx, op, commands, start, retries, kind)
}

func (r *Redis) recordKind(ctx context.Context, op string, commands int, start int64, retries int, kind Kind) {
	r.rec.Operation(ctx, Operation{Name: op, Commands: commands, Duration: time.Duration(clock.Now() - start), Retries: retries, Kind: kind})
}
