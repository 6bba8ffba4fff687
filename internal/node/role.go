package node

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// checkRole makes sure that what the Sentinels named is a master: for a moment
// of a failover it is not.
func (n *Node) checkRole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.probeTimeout(0))
	defer cancel()
	c := n.shared[0].Client
	reply, err := c.Do(ctx, c.B().Role().Build()).ToArray()
	role := ""
	switch {
	case fault.CommandUnavailable(err): // denied, or renamed
		var info string
		if info, err = c.Do(ctx, c.B().Info().Section("replication").Build()).ToString(); fault.CommandUnavailable(err) {
			return nil // then READONLY tells
		}
		role = parseInfo(info).Role
	case err == nil && len(reply) > 0:
		role, err = reply[0].ToString()
	}
	if err == nil && role != "master" && role != "" {
		return fmt.Errorf("%w: the Sentinels name it, and it is a %s", fault.ErrReadOnly, role)
	}
	return err
}

// infoTimeout is short: no call waits for it, and the connection may be lost.
const infoTimeout = time.Second

// readInfo keeps what health pages show. A user who may not run INFO is fine.
func (n *Node) readInfo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	s := n.shared[0]
	if err := s.Enter(ctx); err != nil {
		return
	}
	text, err := s.Do(ctx, n.Builder.Info().Build(), false).ToString()
	if _, reply := rueidis.IsRedisErr(err); reply {
		n.restrict(fault.Classify(ctx, "INFO", err, fault.ReadOnly))
	} else if err != nil {
		return
	}
	n.recheck(ctx)
	if err != nil {
		return
	}
	info := parseInfo(text)
	info.At = time.Now()
	n.Info.Store(&info)
	n.setReadOnly(info.Role == "slave")
	if n.config.ByName && info.Role == "slave" {
		n.checkName(ctx)
	} else {
		n.nameCheckNext, n.nameCheckPause = 0, 0
	}
}

// checkName asks the server that the name leads to by now whether it is a
// master, and moves there. Reads alone are not refused by a node that was
// demoted, and would stay with its old data. Nothing is cut off before another
// master is found: the node may be a replica on purpose. The pauses are those
// of [Node.noteDemoted].
func (n *Node) checkName(ctx context.Context) {
	now := clock.Now()
	if now < n.nameCheckNext {
		return
	}
	n.nameCheckPause = min(max(2*n.nameCheckPause, int64(time.Second)), int64(30*time.Second))
	n.nameCheckNext = now + n.nameCheckPause
	if n.Dedicated.AcquirePermit(ctx) != nil {
		return
	}
	c, err := n.Dedicated.Open(ctx)
	if err != nil {
		return
	}
	c.Dirty = true // it is not kept
	defer c.Release()
	text, failed := c.Do(ctx, n.Builder.Info().Section("replication").Build())[0].ToString()
	if failed == nil && parseInfo(text).Role == "master" {
		n.redial.Store(true)
		n.Availability.Suspect(&fault.Error{Op: "connect", Kind: fault.KindReadOnly, Outcome: fault.OutcomeNotApplied, Err: fault.ErrMoved})
	}
}

func (n *Node) setReadOnly(v bool) {
	if n.ReadOnly.CompareAndSwap(!v, v) {
		n.EndTracking()
		n.logReadOnly(v)
		n.changed()
	}
	if !v {
		n.redialPause.Store(0)
	}
}

func (n *Node) logReadOnly(v bool) {
	switch {
	case n.config.Reader: // as it should be
	case v:
		n.log.Warn("redis takes no writes: it is a replica", "address", n.Addr())
	default:
		n.log.Info("redis takes writes again", "address", n.Addr())
	}
}

// noteDemoted notes that the node refuses writes. Behind a name or a balancer
// there may be another master by now, which only a new connection finds: it is
// made after 1 s at the soonest and ever more rarely, up to 30 s, because the
// node may also be a replica on purpose.
func (n *Node) noteDemoted(cause error) {
	n.setReadOnly(true)
	now := clock.Now()
	next, pause := n.redialNext.Load(), n.redialPause.Load()
	if now < next || n.Config.Embedded {
		return
	}
	pause = min(max(2*pause, int64(time.Second)), int64(30*time.Second))
	if !n.redialNext.CompareAndSwap(next, now+pause) {
		return
	}
	n.redialPause.Store(pause)
	n.redial.Store(true)
	n.Availability.Suspect(&fault.Error{Op: "connect", Kind: fault.KindReadOnly, Outcome: fault.OutcomeNotApplied, Err: cause})
}
