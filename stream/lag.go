package stream

import (
	"context"
	"math"
	"strconv"
	"strings"

	"github.com/madcrow-go/madcrow"
)

// Lag is how far a group is behind.
type Lag struct {
	// Length is how many messages the stream keeps: those that a group has not
	// done, those of the last second, and with KeepDone all.
	Length int64
	// Lost is how many messages the group never did because MaxLen removed them
	// before: from Redis 7 on; of older servers only those that a worker had. It is
	// never less than the truth but for a burst of MaxLen messages within one
	// round trip. A failover while messages are being lost can make it too large,
	// and one that a worker still has may count until it is done.
	Lost int64
	// Waiting have not been given to any worker; -1 where Redis does not know. A
	// failover can make Redis count too many, but not where it is 0; the workers
	// correct that when they have nothing to do.
	Waiting int64
	// Pending were given to a worker and are not done.
	Pending int64
	// Workers are those that Redis knows.
	Workers int64
	// Dead is how many dead letters the group has.
	Dead int64
	// Delayed is how many messages wait beside the stream for their time, for all
	// groups.
	Delayed int64
}

// Lag says how far a group is behind. A group that does not exist yet has
// everything waiting.
func (s *Stream[T]) Lag(ctx context.Context, group string) (Lag, error) {
	if err := s.checkGroupName("lag", group); err != nil {
		return Lag{}, err
	}
	res, err := s.r.DoMulti(ctx,
		s.r.B().Xlen().Key(s.logKey()).Build(), s.r.B().Xlen().Key(s.deadKey(group)).Build(), s.r.B().XinfoGroups().Key(s.logKey()).Build(),
		s.r.B().XinfoStream().Key(s.logKey()).Build(), s.r.B().Hget().Key(s.lostKey()).Field(group).Build(),
		s.r.B().Zcard().Key(s.delayedKey()).Build(),
	)
	var l Lag
	if err != nil && (len(res) != 6 || !isNoKey(res[2].Err())) {
		return l, s.failed("lag", err)
	}
	if l.Length, _, err = res[0].Int(); err == nil {
		l.Dead, _, err = res[1].Int()
	}
	if err != nil {
		return l, s.failed("lag", err)
	}
	l.Lost, _, _ = res[4].Int()
	l.Delayed, _, _ = res[5].Int()
	l.Waiting = l.Length
	groups, _ := res[2].Message()
	info := groupInfo(groups, group)
	if info == nil {
		return l, nil
	}
	pending, workers := info["pending"], info["consumers"]
	l.Pending, _ = pending.AsInt64()
	l.Workers, _ = workers.AsInt64()
	msg, _ := res[3].Message()
	if stream, err := msg.AsMap(); err == nil {
		s.setBacklog(&l, info, stream)
	}
	return l, nil
}

// setBacklog sets how many messages wait for a group, and adds those that it has
// lost and no worker has counted yet. Redis' own count of the losses is that of
// what was published.
func (s *Stream[T]) setBacklog(l *Lag, group, stream map[string]madcrow.Message) {
	text := func(m madcrow.Message) string { s, _ := m.ToString(); return s }
	id := text(group["last-delivered-id"])
	waiting, first, added, given := group["lag"], stream["first-entry"], stream["entries-added"], group["entries-read"]
	var err error
	if l.Waiting, err = waiting.AsInt64(); err != nil {
		l.Waiting = -1
	}
	oldest, _ := first.ToArray()
	switch {
	case len(oldest) == 0, !laterID(text(stream["last-generated-id"]), id):
		l.Waiting = 0 // whatever Redis counted
	case laterID(text(oldest[0]), id):
		l.Waiting = l.Length
		all, err1 := added.AsInt64()
		had, err2 := given.AsInt64()
		full := l.Length >= int64(s.opt.MaxLen) || s.opt.MaxLen == math.MaxInt // a tool does not know MaxLen
		if full && err1 == nil && err2 == nil && !laterID(text(stream["max-deleted-entry-id"]), id) {
			l.Lost += max(all-l.Length-had, 0)
		}
	}
}

// groupInfo returns the fields of a group in the reply of XINFO GROUPS; nil where
// the group does not exist.
func groupInfo(m madcrow.Message, group string) map[string]madcrow.Message {
	groups, _ := m.ToArray()
	for i := range groups {
		fields, err := groups[i].AsMap()
		if err != nil {
			continue
		}
		name := fields["name"]
		if text, _ := name.ToString(); text == group {
			return fields
		}
	}
	return nil
}

// laterID says whether the message with an id came after that with another.
func laterID(id, other string) bool {
	ms, seq := idParts(id)
	otherMs, otherSeq := idParts(other)
	return ms > otherMs || ms == otherMs && seq > otherSeq
}

func idParts(id string) (ms, seq uint64) {
	a, b, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(a, 10, 64)
	seq, _ = strconv.ParseUint(b, 10, 64)
	return ms, seq
}
