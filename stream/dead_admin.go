package stream

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/codec"
)

// DeadLetter is a message that no worker could do.
type DeadLetter[T any] struct {
	// Group is the group of workers.
	Group string
	// ID is its id among the dead letters, Original its id in the stream.
	ID, Original string
	// Reason is the last error of a worker, Deliveries how often the message was
	// given to one.
	Reason     string
	Deliveries int64
	Message    T
	// Raw is the message as it is stored, or, of an entry that no Stream has
	// published, its fields and values in lines; Err says why it cannot be
	// decoded.
	Raw string
	Err error
}

// Dead returns up to n dead letters of a group, the oldest first, after the one
// with an id ("" for the first). A group that has none and does not exist is
// [ErrNoGroup].
func (s *Stream[T]) Dead(ctx context.Context, group, after string, n int) ([]DeadLetter[T], error) {
	err := s.checkGroupName("dead", group)
	from := "-"
	if after != "" {
		err = errors.Join(err, s.checkDeadID("dead", after))
		from = "(" + after
	}
	if err != nil {
		return nil, err
	}
	m, err := s.r.Do(ctx, s.r.B().Xrange().Key(s.deadKey(group)).Start(from).End("+").Count(int64(max(n, 1))).Build()).Message()
	if err != nil {
		return nil, s.failed("dead", err)
	}
	entries, err := entriesOf(m)
	if err != nil {
		return nil, s.failed("dead", err)
	}
	if len(entries) == 0 {
		return nil, s.checkGroup(ctx, "dead", group)
	}
	out := make([]DeadLetter[T], len(entries))
	for i, e := range entries {
		d := DeadLetter[T]{Group: group, ID: e.ID, Original: e.FieldValues["id"], Reason: e.FieldValues["why"], Raw: e.FieldValues["d"]}
		d.Deliveries, _ = strconv.ParseInt(e.FieldValues["n"], 10, 64)
		d.Message, d.Err = codec.Decode(s.opt.Codec, d.Raw)
		out[i] = d
	}
	return out, nil
}

// Replay sends a dead letter again, to all groups of the stream, and says
// whether there was one. A group that does not exist is [ErrNoGroup].
func (s *Stream[T]) Replay(ctx context.Context, group, id string) (bool, error) {
	if err := errors.Join(s.checkGroupName("replay", group), s.checkDeadID("replay", id)); err != nil {
		return false, err
	}
	m, err := s.r.Eval(ctx, scriptReplay, []string{s.logKey(), s.deadKey(group)}, []string{id, strconv.Itoa(s.opt.MaxLen)}).Message()
	if err != nil {
		return false, s.failed("replay", err)
	}
	if m.IsNil() {
		return false, s.checkGroup(ctx, "replay", group)
	}
	return true, nil
}

// Purge removes dead letters by id, all of them where no id is given, and returns
// how many there were. A group that has none and does not exist is [ErrNoGroup].
func (s *Stream[T]) Purge(ctx context.Context, group string, ids ...string) (int64, error) {
	err := s.checkGroupName("purge", group)
	for _, id := range ids {
		err = errors.Join(err, s.checkDeadID("purge", id))
	}
	if err != nil {
		return 0, err
	}
	var purge madcrow.Command
	if len(ids) == 0 {
		purge = s.r.B().Xtrim().Key(s.deadKey(group)).Maxlen().Exact().Threshold("0").Build()
	} else {
		purge = s.r.B().Xdel().Key(s.deadKey(group)).Id(ids...).Build()
	}
	n, _, err := s.r.Do(ctx, purge).Int()
	if err == nil && n == 0 {
		return 0, s.checkGroup(ctx, "purge", group)
	}
	return n, s.failed("purge", err)
}

// checkGroup returns ErrNoGroup for a group that does not exist. It is called
// where a group has none of the dead letters that were asked for.
func (s *Stream[T]) checkGroup(ctx context.Context, op, group string) error {
	m, err := s.r.Do(ctx, s.r.B().XinfoGroups().Key(s.logKey()).Build()).Message()
	switch {
	case err != nil && !isNoKey(err):
		return s.failed(op, err)
	case err != nil || groupInfo(m, group) == nil:
		return s.failed(op, ErrNoGroup)
	}
	return nil
}

// checkDeadID refuses anything but a whole id: of the first part alone, Redis
// makes several messages in one command and another one in the next.
func (s *Stream[T]) checkDeadID(op, id string) error {
	ms, seq, ok := strings.Cut(id, "-")
	for _, part := range []string{ms, seq} {
		if _, err := strconv.ParseUint(part, 10, 64); err != nil || part[0] == '+' {
			ok = false
		}
	}
	if !ok {
		return fail.Argument(op, s.name, "id", "must be the whole id of a dead letter, like 1764000000000-0")
	}
	return nil
}
