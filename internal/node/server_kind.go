package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// Servers that are not what the settings say, each with the setting that mends
// it: waiting does not.
var (
	errClusterNode = errors.New("this is a node of a cluster, which redirects keys: set REDIS_USE_CLUSTERS=true and REDIS_CLUSTERS to its nodes")
	errSentinel    = errors.New("this is a Sentinel, which holds no data: set REDIS_USE_SENTINEL=true, REDIS_SENTINELS and REDIS_SENTINEL_SERVICE_NAME, or name the Redis itself")
)

// hello asks whether the connection answers, and in the same round trip who
// does: one connection of a node is enough for that.
func (n *Node) hello(ctx context.Context, s *conn.Shared) error {
	b := s.Client.B()
	if n.config.Replica || s != n.shared[0] {
		return s.Client.Do(ctx, b.Ping().Build()).Error()
	}
	replies := s.Client.DoMulti(ctx, b.Ping().Build(), b.Arbitrary("HELLO").Build(), b.Evalsha().Sha1(noSuchScript).Numkeys(0).Build())
	n.helloReplies = replies[1:]
	return replies[0].Error()
}

// SlotCount is how many slots a cluster has.
const SlotCount = 1 << 14

// noSuchScript is the digest of no script: a server that runs scripts says so.
const noSuchScript = "0000000000000000000000000000000000000000"

// identify says whether the server is one for this configuration, by what it
// answered to a greeting. The error is of one that serves nothing; lesser
// faults are kept in misfit.
func (n *Node) identify(ctx context.Context) error {
	greeting := n.helloReplies
	n.helloReplies = nil
	if len(greeting) < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.probeTimeout(0))
	defer cancel()
	if err := greeting[1].Error(); err != nil {
		// A user who may run none may need none, and hears of it from a call.
		if f := fault.Classify(ctx, "EVALSHA", err, fault.NonIdempotent); f.Restricts == fault.NoScripts && f.Kind != fault.KindPermission {
			n.restrict(f)
		}
	}
	var mismatch error
	mode := n.mode(ctx, greeting[0])
	switch {
	case mode == "sentinel":
		return errSentinel
	case mode == "cluster" && !n.config.Clustered && !n.config.Replica && n.redirects(ctx):
		// One that was all of its cluster until now goes on with what it has.
		if mismatch = errClusterNode; !n.served.Load() {
			return mismatch
		}
	case mode != "standalone" && errors.Is(n.misfitCause(), errClusterNode):
		mismatch = errClusterNode // a call found out
	}
	n.setMisfit(mismatch)
	return nil
}

// mode is "standalone", "cluster" or "sentinel", or empty where the server
// does not say.
func (n *Node) mode(ctx context.Context, hello rueidis.RedisResult) string {
	if m, err := hello.AsMap(); err == nil {
		mode, ok := m["mode"]
		if text, err := mode.ToString(); ok && err == nil {
			return text
		}
	}
	text, err := n.shared[0].Client.Do(ctx, n.Builder.Info().Section("server").Build()).ToString()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(text) {
		for _, name := range [...]string{"redis_mode:", "server_mode:"} {
			if mode, ok := strings.CutPrefix(line, name); ok {
				return strings.TrimSpace(mode)
			}
		}
	}
	return ""
}

// redirects says whether the server sends callers elsewhere for some keys. A
// cluster of one node does not, nor does a proxy before a cluster. It asks for
// keys of slots that lie far apart.
func (n *Node) redirects(ctx context.Context) bool {
	const parts = 16
	var cmds []rueidis.Completed
	var asked [parts]bool
	for i := 0; len(cmds) < parts; i++ {
		cmd := n.Builder.Exists().Key(fmt.Sprint(n.Config.KeyPrefix, "madcrow:", i)).Build()
		if part := cmd.Slot() & (SlotCount - 1) / (SlotCount / parts); !asked[part] {
			asked[part] = true
			cmds = append(cmds, cmd)
		}
	}
	return slices.ContainsFunc(n.shared[0].Client.DoMulti(ctx, cmds...), func(r rueidis.RedisResult) bool {
		return r.Error() != nil && fault.IsRedirect(r.Error().Error())
	})
}

// connectError explains why no connection could be made.
func (n *Node) connectError(err error) *fault.Error {
	if errors.Is(err, errSentinel) || errors.Is(err, errClusterNode) {
		return fault.WrongServer("connect", fmt.Errorf("%s: %w", n.Addr(), err))
	}
	e := fault.Connect(n.Addr(), n.Config.TLS != nil, err)
	if reply, ok := rueidis.IsRedisErr(err); ok && n.Config.DB != 0 && refusesDB(reply.Error()) {
		// Nodes of a cluster are named too: those of Valkey 9 refuse a database
		// in the words of any other server.
		e.Err = fmt.Errorf("%w; this server has no database %d, or refuses SELECT: set REDIS_DB=0, and for a cluster REDIS_USE_CLUSTERS=true and REDIS_CLUSTERS to its nodes", e.Err, n.Config.DB)
	}
	return e
}

// refusesDB says whether a server that refused a new connection refused its
// database: what else it may refuse is a password, a name or a protocol.
func refusesDB(reply string) bool {
	switch kind, _ := fault.ClassifyReply(reply); kind {
	case fault.KindPermission:
		return strings.Contains(strings.ToLower(reply), "'select'")
	case fault.KindServer:
		return !slices.ContainsFunc([]string{"AUTH", "HELLO", "PROTO", "CLIENT", "PASSWORD"}, func(w string) bool {
			return strings.Contains(strings.ToUpper(reply), w)
		})
	}
	return false
}

// setMisfit keeps what is wrong with a server that serves all the same, and
// says it once.
func (n *Node) setMisfit(mismatch error) {
	var e *fault.Error
	if mismatch != nil {
		e = fault.WrongServer("connect", fmt.Errorf("%s: %w", n.Addr(), mismatch))
	}
	before := n.Misfit.Swap(e)
	switch {
	case e == nil && before == nil, e != nil && before != nil && e.Error() == before.Error():
		return
	case e == nil:
		n.log.Info("redis is what the settings say, again", "address", n.Addr())
	default:
		n.log.Warn("redis is not what the settings say", "reason", e.Err)
	}
	n.changed()
}

func (n *Node) misfitCause() error {
	if e := n.Misfit.Load(); e != nil {
		return e.Err
	}
	return nil
}

// explainReply names the setting in the error of a call that only another server, or
// another setting, can answer.
func (n *Node) explainReply(e *fault.Error) {
	reply, ok := rueidis.IsRedisErr(e.Err)
	if !ok {
		return
	}
	switch text := reply.Error(); {
	case !fault.IsRedirect(text) || n.config.Replica:
	case n.config.Clustered:
		// Those that name a node were followed.
		if strings.HasSuffix(text, ":0") {
			e.Err = fmt.Errorf("%w: %s", fault.ErrUncovered, text)
		}
	default:
		n.setMisfit(errClusterNode)
		*e = *fault.WrongServer(e.Op, fmt.Errorf("%w; %w", e.Err, errClusterNode))
	}
}
