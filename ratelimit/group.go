package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// maxGroup is how many limits one script may decide together.
const maxGroup = 8

// Group is several limits of the same subject that are decided together, in
// one round trip: all admit and count, or none does. Make it with [Join].
type Group struct {
	limits []*Limiter
	names  string
	lead   *Limiter

	timeout time.Duration // the shortest of the limits', 0 for none
}

// Joint is a group's decision about one request.
type Joint struct {
	// Decision is that of the strictest limit: of those that deny the one with
	// the longest wait, otherwise the one with the least left.
	Decision
	// Limits are the decisions of each limit, in the order of Join. From
	// SourceLocal it holds only the limit that is known to deny. A limit that
	// would have admitted has Allowed true, although nothing was counted when
	// another one denied.
	Limits []Decision
	// Violated names the limits that denied.
	Violated []string
}

// Join makes a group of 2 to 8 limits on one Redis, each of another name or
// algorithm. While Redis is unavailable the policy of the first decides for all;
// under FailLocal each limit counts its own share.
func Join(limits ...*Limiter) (*Group, error) {
	if len(limits) < 2 || len(limits) > maxGroup {
		return nil, fail.Argument("join", "", "limits", fmt.Sprintf("a group has 2 to %d limits", maxGroup))
	}
	g := &Group{limits: slices.Clone(limits), lead: limits[0]}
	names := make([]string, len(limits))
	var wrong operr.Arguments
	for i, l := range limits {
		names[i] = l.name
		if t := l.opt.Timeout; t > 0 && (g.timeout == 0 || t < g.timeout) {
			g.timeout = t
		}
		wrong.Check(l.r == g.lead.r, "limits", "all limits of a group must be on one Redis")
		for _, other := range limits[:i] {
			wrong.Check(other.keyPrefix != l.keyPrefix, "limits", "two limits of a group share their state: give them different names")
		}
		if l.local == nil && g.lead.fail.IsLocal() {
			g.limits[i] = l.OnFailure(g.lead.fail)
		}
	}
	g.names = strings.Join(names, "+")
	if err := fail.Arguments("join", g.names, wrong); err != nil {
		return nil, err
	}
	return g, nil
}

// Allow admits one request if every limit admits it.
func (g *Group) Allow(ctx context.Context, subject string) (Joint, error) {
	costs := [maxGroup]int64{1, 1, 1, 1, 1, 1, 1, 1}
	return g.AllowN(ctx, subject, costs[:len(g.limits)]...)
}

// AllowN is Allow with a cost for each limit, in the order of [Join]: one
// request, and its bytes. A cost of 0 leaves that limit out of the count; a
// blocked subject is still denied.
func (g *Group) AllowN(ctx context.Context, subject string, costs ...int64) (Joint, error) {
	j, err := g.allow(ctx, subject, costs)
	g.lead.record(ctx, j.Decision, err)
	return j, err
}

func (g *Group) allow(ctx context.Context, subject string, costs []int64) (Joint, error) {
	if len(costs) != len(g.limits) || slices.Min(costs) < 0 || slices.Max(costs) == 0 {
		return Joint{}, fail.Argument("allow", g.names, "costs", fmt.Sprintf("needs %d costs, none negative and not all 0", len(g.limits)))
	}
	asked := clock.Now()
	if j, ok := g.cachedDenial(subject, costs, asked); ok {
		return j, nil
	}
	var space [maxGroup]limitscript.Reply
	replies, err := g.evaluate(ctx, subject, costs, space[:0])
	if err != nil {
		return g.fallBack(ctx, subject, costs, err)
	}
	j := Joint{Limits: make([]Decision, len(g.limits))}
	for i, l := range g.limits {
		l.monitor.Succeeded()
		d := l.decide(replies[i], costs[i])
		j.Limits[i] = d
		if costs[i] > 0 {
			l.rememberDenial(subject, costs[i], asked, d)
		}
	}
	j.combine()
	return j, nil
}

// evaluate runs the script of groups, and appends the reply of each limit.
func (g *Group) evaluate(ctx context.Context, subject string, costs []int64, replies []limitscript.Reply) ([]limitscript.Reply, error) {
	ctx, cancel := withTimeout(ctx, g.timeout)
	defer cancel()
	if !g.lead.clustered {
		return g.evalKeys(ctx, subject, costs, replies)
	}
	return g.evaluateInCluster(ctx, subject, slices.Clone(costs))
}

// evaluateInCluster is apart, as what its functions share is allocated.
func (g *Group) evaluateInCluster(ctx context.Context, subject string, costs []int64) (replies []limitscript.Reply, err error) {
	err = g.lead.r.SplitKeys(ctx, subjectKey(g.lead.keyPrefix, subject),
		func(ctx context.Context) (err error) { replies, err = g.evalKeys(ctx, subject, costs, nil); return err },
		func(ctx context.Context) (err error) { replies, err = g.evalSplitKeys(ctx, subject, costs); return err })
	return replies, err
}

func (g *Group) evalKeys(ctx context.Context, subject string, costs []int64, replies []limitscript.Reply) ([]limitscript.Reply, error) {
	stored := make([]string, 0, 2*len(g.limits))
	args := append(make([]string, 0, 2+6*len(g.limits)), string(limitscript.VerbAllow), keys.Nonce())
	for i, l := range g.limits {
		key := subjectKey(l.keyPrefix, subject)
		stored = append(stored, key, key+limitscript.BlockSuffix)
		args = append(args, strconv.Itoa(int(l.plan.kind)), strconv.FormatInt(costs[i], 10))
		args = append(args, l.plan.args[:]...)
	}
	m, err := g.lead.eval(ctx, limitscript.Group, stored, args)
	if err != nil {
		return nil, err
	}
	list, err := m.ToArray()
	if err != nil || len(list) != 4*len(g.limits) {
		return nil, errors.Join(limitscript.ErrReply, err)
	}
	for i := range g.limits {
		r, err := limitscript.ReadNumbers(list[4*i:])
		if err != nil {
			return nil, err
		}
		replies = append(replies, r)
	}
	return replies, nil
}

// cachedDenial decides without Redis if one limit is known to deny.
func (g *Group) cachedDenial(subject string, costs []int64, now int64) (j Joint, ok bool) {
	for i, l := range g.limits {
		var d Decision
		denied := false
		if costs[i] > l.plan.limit {
			d, denied = l.costAboveLimit(costs[i]), true
		} else if costs[i] > 0 {
			d, denied = l.cachedDenial(subject, costs[i], now)
		}
		if denied {
			return Joint{Decision: d, Limits: []Decision{d}, Violated: []string{l.name}}, true
		}
	}
	return j, false
}

func (g *Group) fallBack(ctx context.Context, subject string, costs []int64, cause error) (Joint, error) {
	j := Joint{Limits: make([]Decision, len(g.limits))}
	for i, l := range g.limits {
		d, err := l.OnFailure(g.lead.fail).fallBack(ctx, "allow", subject, costs[i], cause)
		if err != nil {
			return Joint{}, err
		}
		j.Limits[i] = d
	}
	j.combine()
	return j, nil
}

// combine sets the group's decision: that of the strictest limit.
func (j *Joint) combine() {
	at := -1
	for i, d := range j.Limits {
		if !d.Allowed {
			j.Violated = append(j.Violated, d.Limiter)
		}
		if at < 0 || stricter(d, j.Limits[at]) {
			at = i
		}
	}
	j.Decision = j.Limits[at]
}

// stricter reports whether a is stricter than b.
func stricter(a, b Decision) bool {
	if a.Allowed != b.Allowed {
		return !a.Allowed
	}
	if !a.Allowed {
		return a.RetryAfter == Never || b.RetryAfter != Never && a.RetryAfter > b.RetryAfter
	}
	return float64(a.Remaining)*float64(b.Limit) < float64(b.Remaining)*float64(a.Limit)
}

// Peek returns the decision that each limit's Allow would return, in their
// order, and counts nothing. It takes a round trip for each.
func (g *Group) Peek(ctx context.Context, subject string) (Joint, error) {
	j := Joint{Limits: make([]Decision, len(g.limits))}
	for i, l := range g.limits {
		d, err := l.Peek(ctx, subject)
		if err != nil {
			return Joint{}, err
		}
		j.Limits[i] = d
	}
	j.combine()
	return j, nil
}

// Reset deletes the state of subject in all limits.
func (g *Group) Reset(ctx context.Context, subject string) error {
	for _, l := range g.limits {
		if err := l.Reset(ctx, subject); err != nil {
			return err
		}
	}
	return nil
}
