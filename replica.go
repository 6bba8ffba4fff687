package madcrow

import (
	"context"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// DoReplica is [Redis.Do] for a read that may be a little old: it asks a
// replica, and the master when there is none, when it is away, or when it
// fails. It is for caches; what was just written may not be there yet. It
// needs Config.ReadReplicas and Sentinel or Cluster, and is Do otherwise; so
// is a command that is no read.
func (r *Redis) DoReplica(ctx context.Context, build func(Builder) Command) (Message, error) {
	if !r.topology.HasReplicas() {
		return r.Do(ctx, build)
	}
	start := clock.Now()
	bounded, cc := r.deadlines.Enter(ctx, start)
	defer r.deadlines.Leave(cc)
	msg, op, ok := r.tryReplica(bounded, build)
	tries := 0
	var err *fault.Error
	if !ok {
		msg, op, tries, err = r.do(bounded, build)
	}
	if r.rec != nil {
		r.record(ctx, op, 1, start, tries, err)
	}
	if err != nil {
		return msg, publicError(err)
	}
	return msg, nil
}

func (r *Redis) tryReplica(ctx context.Context, build func(Builder) Command) (msg Message, op string, ok bool) {
	cmd := build(r.builder)
	args := cmd.Commands()
	if !cmd.IsReadOnly() || cmd.IsBlock() || topology.ClassOf(args) != topology.ClassPlain || topology.CommandSize(args) >= r.cfg.BulkThreshold {
		return msg, "", false
	}
	master, err := r.topology.Pick(ctx, cmd.Slot())
	if err != nil {
		return msg, "", false
	}
	n := r.topology.ReplicaOf(master)
	if n == nil {
		return msg, "", false
	}
	op = args[0]
	s, err := n.Enter(ctx)
	if err != nil {
		return msg, op, false
	}
	msg, failed := s.Do(ctx, cmd, false).ToMessage()
	return msg, op, failed == nil || failed == rueidis.Nil
}
