package madcrow

import (
	"context"
	"strings"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/scriptsha"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// Script is a Lua script with a name for logs and metrics. Make it once, with
// [NewScript], and keep it.
type Script struct {
	name, source, sha string
	// sends says that it may publish, which Redis does also where it refuses
	// the write after it.
	sends bool
}

// NewScript names a Lua script. Redis is not asked before it runs.
func NewScript(name, source string) *Script {
	return &Script{name: name, source: source, sha: scriptsha.Name(source), sends: strings.Contains(strings.ToUpper(source), "PUBLISH")}
}

// Name returns the name given to NewScript.
func (s *Script) Name() string { return s.name }

// Eval runs a script in one round trip, or in two when Redis does not know it:
// after a restart, a failover or SCRIPT FLUSH. Every key it touches is in
// keys. It is not retried after a broken connection: it may have run
// ([OutcomeUnknown]). Deadlines are those of [Redis.Do].
//
// A refusal before the script's first write (READONLY, NOREPLICAS, MISCONF,
// OOM) is one as of a single command: no key was changed
// ([OutcomeNotApplied]), and too few replicas are waited for within the
// deadline, unless the script publishes: a message may have gone out before
// the refused write. Any other error in the middle leaves the outcome unknown.
// A script that returns Redis' own words for a refusal, by redis.error_reply
// or after redis.pcall, says thereby that it changed nothing.
func (r *Redis) Eval(ctx context.Context, s *Script, keys, args []string) Reply {
	start := clock.Now()
	bounded, cc := r.deadlines.Enter(ctx, start)
	defer r.deadlines.Leave(cc)
	msg, tries, err := r.eval(bounded, s, keys, args)
	if r.rec != nil {
		r.record(ctx, s.name, 1, start, tries, err)
	}
	if err != nil {
		err.Op = s.name
	}
	return replyOf(msg, err)
}

func (r *Redis) eval(ctx context.Context, s *Script, keys, args []string) (Message, int, *fault.Error) {
	c := topology.Route{Topology: r.topology, Repeats: !s.sends}
	known := true
	for {
		var cmd Command
		if known {
			cmd = r.builder.Evalsha().Sha1(s.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
		} else {
			cmd = r.builder.Eval().Script(s.source).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
		}
		msg, _, again, err := r.try(ctx, &c, requestOf(cmd), false)
		switch {
		case again:
		case err != nil && known && fault.IsUnknownScript(err):
			known = false
			c.Tries++
		default:
			return msg, c.Tries, err
		}
	}
}
