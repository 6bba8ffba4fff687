package madcrow

import (
	"context"
	"crypto/sha1" //nolint:gosec // Redis names scripts by SHA-1
	"encoding/hex"
	"strings"
)

// Script is a Lua script with a name for logs and metrics. Make it once, with
// [NewScript], and keep it.
type Script struct {
	name, source, sha string
}

// NewScript names a Lua script. Redis is not asked before it runs.
func NewScript(name, source string) *Script {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // as above
	return &Script{name: name, source: source, sha: hex.EncodeToString(sum[:])}
}

// Name returns the name given to NewScript.
func (s *Script) Name() string { return s.name }

// Eval runs a script in one round trip, or in two when Redis does not know it:
// after a restart, a failover or SCRIPT FLUSH. Every key it touches is in
// keys. It is not retried after a broken connection: it may have run
// ([OutcomeUnknown]). Deadlines are those of [Redis.Do].
func (r *Redis) Eval(ctx context.Context, s *Script, keys, args []string) (Message, error) {
	start := mono()
	bounded, cc := r.deadlines.enter(ctx, start)
	defer r.deadlines.leave(cc)
	msg, _, tries, err := r.do(bounded, func(b Builder) Command {
		return b.Evalsha().Sha1(s.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	})
	if err != nil && unknownScript(err) {
		msg, _, tries, err = r.do(bounded, func(b Builder) Command {
			return b.Eval().Script(s.source).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
		})
		tries++
	}
	if r.rec != nil {
		r.record(s.name, 1, start, tries, err)
	}
	if err != nil {
		err.Op = s.name
		return msg, err
	}
	return msg, nil
}

// unknownScript recognises NOSCRIPT, in the words of the server.
func unknownScript(e *Error) bool {
	return e.Outcome == OutcomeNotApplied && e.Err != nil && strings.HasPrefix(e.Err.Error(), "NOSCRIPT ")
}
