package session

import (
	"context"
	_ "embed"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
)

// The parts of the scripts.
var (
	//go:embed lua/clock.lua
	luaClock string
	//go:embed lua/begin.lua
	luaBegin string
	//go:embed lua/load.lua
	luaLoad string
	//go:embed lua/create.lua
	luaCreate string
	//go:embed lua/commit.lua
	luaCommit string
	//go:embed lua/rotate.lua
	luaRotate string
	//go:embed lua/destroy.lua
	luaDestroy string
	//go:embed lua/revoke.lua
	luaRevoke string
	//go:embed lua/list.lua
	luaList string
)

// scripts are the scripts of a redisStore.
type scripts struct{ load, create, commit, rotate, destroy, revoke, list script }

// serverScripts read the clock of the server.
var serverScripts = newScripts(luaClock)

// newScripts assembles the scripts with the given first part, which sets clock.
func newScripts(clock string) *scripts {
	// Each has only the functions that it needs: Redis runs their definitions in
	// each call.
	assemble := func(name string, oneKey bool, parts ...string) script {
		source := clock + strings.Join(parts, "")
		return script{madcrow.NewScript("session_"+name, source), source, oneKey}
	}
	const oneKey, allKeys = true, false
	return &scripts{
		load:    assemble("load", oneKey, luaBegin, luaLoad),
		create:  assemble("create", oneKey, luaCreate),
		commit:  assemble("commit", oneKey, luaBegin, luaCommit),
		destroy: assemble("destroy", oneKey, luaBegin, luaDestroy),
		rotate:  assemble("rotate", allKeys, luaBegin, luaRotate),
		revoke:  assemble("revoke", allKeys, luaBegin, luaRevoke),
		list:    assemble("list", allKeys, luaList),
	}
}

// script keeps its source: with WaitReplicas it is sent with each call, because
// a transaction cannot repeat an EVALSHA.
type script struct {
	*madcrow.Script
	source string
	// oneKey: the script also runs with the session's key alone, for a session
	// without user. Of one with a user it then changes nothing and replies
	// {0, 'whole'}.
	oneKey bool
}

// read runs a script on the shared connection. While a cluster moves a slot it
// refuses scripts with several keys, as long as one of them does not exist. The
// epoch and the index of a session without user never exist, so the script then
// runs with the session's key alone. The keys of a user move together, and soon;
// read waits for that.
func (s *redisStore) read(ctx context.Context, sc script, keys, args []string) (list []madcrow.Message, err error) {
	if !s.cluster || !sc.oneKey {
		return s.run(ctx, sc, keys, args)
	}
	err = s.r.Within(ctx, func(ctx context.Context) error {
		return s.r.SplitKeys(ctx, keys[0], func(ctx context.Context) error {
			list, err = s.run(ctx, sc, keys, args)
			return err
		}, func(split context.Context) error {
			list, err = s.run(split, sc, keys[:1], args)
			if err == nil && needsAllKeys(list) {
				list, err = s.run(ctx, sc, keys, args)
			}
			return err
		})
	})
	return list, err
}

// needsAllKeys reports that a script with one key met a session with a user.
func needsAllKeys(list []madcrow.Message) bool { return len(list) == 2 && textOf(list[1]) == "whole" }

func (s *redisStore) run(ctx context.Context, sc script, keys, args []string) ([]madcrow.Message, error) {
	msg, err := s.r.Eval(ctx, sc.Script, keys, args).Message()
	if err != nil {
		return nil, err
	}
	return listOf(msg)
}

// change runs a script that writes, and waits for Options.WaitReplicas.
// ErrNotReplicated comes with a valid reply.
func (s *redisStore) change(ctx context.Context, sc script, keys, args []string) (list []madcrow.Message, err error) {
	if s.opt.waitReplicas == 0 {
		list, err = s.read(ctx, sc, keys, args)
	} else {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		list, err = s.changeAndWait(ctx, sc, keys, args)
	}
	if errors.Is(err, errReply) {
		err = unknown(err)
	}
	return list, err
}

// changeAndWait runs a script and WAIT on one connection: a pipeline would be
// split over the nodes of a cluster, and a late WAIT would lose the script's
// reply.
func (s *redisStore) changeAndWait(ctx context.Context, sc script, keys, args []string) (list []madcrow.Message, err error) {
	var watch []string // chooses the node of a cluster
	if s.cluster {
		watch = keys[:1]
	}
	done := false // the script has run
	var short error
	_, err = s.r.Tx(ctx, watch, func(tx *madcrow.Tx) error {
		msg, err := tx.Do(tx.B().Eval().Script(sc.source).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()).Message()
		if err != nil {
			return err
		}
		done = true
		if list, short = listOf(msg); short == nil {
			short = s.wait(ctx, tx)
		}
		return nil
	})
	if done {
		return list, short
	}
	return nil, err
}

// wait returns ErrNotReplicated if too few replicas confirm the change in time.
func (s *redisStore) wait(ctx context.Context, tx *madcrow.Tx) error {
	msg, err := tx.Do(tx.B().Wait().Numreplicas(int64(s.opt.waitReplicas)).Timeout(s.waitMillis(ctx)).Build()).Message()
	n := int64(0)
	if err == nil {
		n, err = msg.AsInt64()
	}
	if err != nil || n < int64(s.opt.waitReplicas) {
		return errors.Join(ErrNotReplicated, applied(err))
	}
	return nil
}

// waitMillis returns the timeout of WAIT: the caller must get its reply before
// the deadline of ctx. It is not 0, which would be no timeout.
func (s *redisStore) waitMillis(ctx context.Context) int64 {
	wait := s.opt.waitTimeout
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end)-15*time.Millisecond)
	}
	return max(wait.Milliseconds(), 1)
}

func listOf(msg madcrow.Message) ([]madcrow.Message, error) {
	list, err := msg.ToArray()
	if err != nil || len(list) == 0 {
		return nil, errors.Join(errReply, err)
	}
	return list, nil
}

var errReply = errors.New("unexpected reply")

// parseReply reads {0, reason}, {1, a record} or {2, …} of a script.
func parseReply(list []madcrow.Message) (rep reply, err error) {
	n, err := list[0].AsInt64()
	if err != nil {
		return rep, errors.Join(errReply, err)
	}
	switch rep.status = status(n); {
	case rep.status == statusNone && len(list) == 2:
		var why string
		why, err = list[1].ToString()
		rep.reason = reason(why)
	case rep.status == statusRecord && len(list) == 10:
		rep.rec, err = parseRecord(list)
	case rep.status != statusDone:
		err = errReply
	}
	return rep, err
}

func parseRecord(list []madcrow.Message) (rec record, err error) {
	var text [10]string
	for _, i := range [...]int{1, 2, 3, 7, 9} {
		if text[i], err = list[i].ToString(); err != nil {
			return rec, errors.Join(errReply, err)
		}
	}
	var number [9]int64
	for _, i := range [...]int{4, 5, 6, 8} {
		if number[i], err = list[i].AsInt64(); err != nil {
			return rec, errors.Join(errReply, err)
		}
	}
	return record{
		version: text[1], user: text[2], data: text[3], frozen: number[4] == 1,
		ends: time.Duration(number[5]) * time.Microsecond, left: time.Duration(number[6]) * time.Millisecond,
		idle: time.Duration(number[8]) * time.Millisecond, remember: text[7] != "",
		end: text[9],
	}, nil
}

// textOf returns the text of a string reply, "" for any other.
func textOf(m madcrow.Message) string {
	s, _ := m.ToString()
	return s
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
