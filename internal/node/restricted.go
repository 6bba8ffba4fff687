package node

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// quotaQuiet is how long no call must have been refused before a quota counts
// as filled up again: some providers do not count INFO.
const quotaQuiet = 2 * time.Second

// restriction is one of them as it holds now.
type restriction struct {
	why  atomic.Pointer[fault.Error] // nil: it does not hold
	last atomic.Int64                // when a call was refused last
}

var restrictionLines = [fault.Restrictions]struct{ begins, ends string }{
	fault.NoQuota:   {"redis refuses calls: its quota is used up", "redis takes calls again: its quota is filled up"},
	fault.NoScripts: {"redis refuses scripts: limits, sessions, caches and numbered messages fail, and limits that fail open admit all", "redis runs scripts again"},
}

// restrict notes what a failed call says of the node, and says so once.
func (n *Node) restrict(f fault.Failure) {
	if f.Restricts == fault.Unrestricted {
		return
	}
	r := &n.restrictions[f.Restricts]
	r.last.Store(clock.Now())
	why := &fault.Error{Op: "connect", Kind: f.Kind, Outcome: fault.OutcomeNotApplied, Err: f.Err}
	if r.why.CompareAndSwap(nil, why) {
		n.log.Warn(restrictionLines[f.Restricts].begins, "address", n.Addr(), "reason", f.Err)
		n.changed()
	}
}

// lift notes that a restriction is over.
func (n *Node) lift(which fault.Restriction) {
	if n.restrictions[which].why.Swap(nil) != nil {
		n.log.Info(restrictionLines[which].ends, "address", n.Addr())
		n.changed()
	}
}

// Restriction is why the node refuses calls now, or nil.
func (n *Node) Restriction() *fault.Error {
	for i := range n.restrictions {
		if why := n.restrictions[i].why.Load(); why != nil {
			return why
		}
	}
	return nil
}

// recheck looks whether what was refused would be taken now. It comes after a
// reply to a command that any user may run; one that was refused for the quota
// has been noted.
func (n *Node) recheck(ctx context.Context) {
	s := n.shared[0]
	quota := &n.restrictions[fault.NoQuota]
	if quota.why.Load() != nil && clock.Now()-quota.last.Load() > int64(quotaQuiet) && s.Enter(ctx) == nil {
		err := s.Do(ctx, n.Builder.Time().Build(), false).Error() // one that is counted, unlike INFO
		if _, answered := rueidis.IsRedisErr(err); err == nil || answered && fault.Classify(ctx, "TIME", err, fault.NonIdempotent).Restricts != fault.NoQuota {
			n.lift(fault.NoQuota)
		}
	}
	if n.restrictions[fault.NoScripts].why.Load() == nil || s.Enter(ctx) != nil {
		return
	}
	// Both: they may be two rights, or one of them renamed away.
	results := s.DoMulti(ctx, []rueidis.Completed{
		n.Builder.Evalsha().Sha1(noSuchScript).Numkeys(0).Build(), n.Builder.Eval().Script("return 1").Numkeys(0).Build(),
	})
	if err := results[0].Error(); err != nil && fault.IsUnknownScript(fault.Classify(ctx, "EVALSHA", err, fault.NonIdempotent).Error) && results[1].Error() == nil {
		n.lift(fault.NoScripts)
	}
}
