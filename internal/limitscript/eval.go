package limitscript

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
)

// BlockSuffix follows a limit's key in the key of the subject's block.
const BlockSuffix = ":block"

// ErrReply is returned for a reply that is none of these scripts'.
var ErrReply = errors.New("the limit script returned an unexpected reply")

// Reply is a script's reply for one limit. Times are microseconds.
type Reply struct {
	Retry int64 // 0: admitted; otherwise how long until the request would be
	Used  int64 // how much of the limit is taken; -1 while the subject is blocked
	Reset int64 // how long until nothing is taken
	Extra int64 // one more number, see the scripts
}

// ReadReply reads the reply of a script that decides one limit.
func ReadReply(m madcrow.Message) (Reply, error) {
	list, err := m.ToArray()
	if err != nil || len(list) < 4 {
		return Reply{}, errors.Join(ErrReply, err)
	}
	return ReadNumbers(list)
}

// ReadNumbers reads the first four numbers of a list.
func ReadNumbers(list []madcrow.Message) (r Reply, err error) {
	for i, to := range [...]*int64{&r.Retry, &r.Used, &r.Reset, &r.Extra} {
		if *to, err = list[i].AsInt64(); err != nil {
			return r, errors.Join(ErrReply, err)
		}
	}
	return r, nil
}

// Micros is a duration as the scripts take it.
func Micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }

// Eval runs a script. A value in its keys that it cannot read is deleted, and
// the script runs again: otherwise it would fail for ever, and a limit that fails
// open would admit everything. foreign is called for each such value.
func Eval(ctx context.Context, r *madcrow.Redis, s *madcrow.Script, keys, args []string, foreign func(Foreign)) (madcrow.Message, error) {
	m, err := r.Eval(ctx, s, keys, args).Message()
	if err == nil || !mayBeForeign(err) {
		return m, err
	}
	found, bad := deleteForeign(ctx, r, s, keys, args)
	if e := (*madcrow.Error)(nil); bad != nil && errors.As(err, &e) && e.Kind == madcrow.KindWrongType {
		// Each script reads before it counts.
		err = &madcrow.Error{Op: e.Op, Kind: e.Kind, Outcome: madcrow.OutcomeNotApplied, Err: fmt.Errorf("%w: %s holds no state of a limit, and cannot be deleted: %w", e.Err, keys[0], bad)}
	}
	if bad != nil || len(found) == 0 {
		return m, err
	}
	for _, f := range found {
		foreign(f)
	}
	return r.Eval(ctx, s, keys, args).Message()
}
