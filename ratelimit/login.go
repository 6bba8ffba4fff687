package ratelimit

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// Login limits failed logins. Make it with [NewLogin].
//
// A login needs two calls: [Login.Attempt] before the password is checked, and
// [Login.Reset] when it was right. The verbs of FastAPI Madcrow do the same in
// more steps: [Login.IsRateLimited] before, [Login.Increment] after a failure.
// Attempts between those two steps are not counted, so parallel guesses pass
// together: prefer Attempt.
//
// Failures are counted by an identifier: the account, or the account and the
// address together ([LoginKey]). By the account alone a stranger can lock its
// owner out; by the address alone an attacker can log in to an account of his
// own to have it reset.
//
// While Redis is unavailable, Attempt, IsRateLimited and Increment follow
// [LoginOptions].FailPolicy: madcrow.FailOpen admits and counts nothing,
// madcrow.FailClosed returns the error, madcrow.FailLocal counts in this process,
// without blocks. The other methods return the error, whatever the policy. Health
// and the recorder report it.
//
// Identifiers above 255 bytes, with braces or beginning with '~' are hashed, and so
// not shared with Python under LoginOptions.FastAPILayout.
//
// It is safe for concurrent use.
type Login struct {
	l      *Limiter // for names, policy, health, memory and the recorder
	opt    LoginOptions
	blocks [2]string // what stands around the identifier in the keys of blocks
	// blockArgs are the last arguments of the script.
	blockArgs []string
}

// fastAPIPrefix begins the keys of FastAPI Madcrow.
const fastAPIPrefix = "login_attempts:"

// NewLogin makes the limit of a login. Its name is as with [New]: two logins with
// one name share their attempts. The error is a [*madcrow.ArgumentError] that lists
// every problem. NewLogin does not call Redis.
func NewLogin(r *madcrow.Redis, name string, o LoginOptions) (*Login, error) {
	o = o.withDefaults()
	var own, wrong operr.Arguments
	o.check(&own)
	// The script needs a limit of at least 1; staticDecision decides for none.
	rate := Per(o.Window, int64(max(o.MaxAttempts, 1)))
	if !own.Empty() {
		rate = PerMinute(1) // so that no problem is named twice
	}
	l := newLimiter(r, name, loginOptions, settings{Options: Options{
		Rate: rate, FailPolicy: o.FailPolicy, Algorithm: SortedSetLog(), Timeout: o.Timeout,
		DeniedSubjects: o.DeniedSubjects, LocalSubjects: o.LocalSubjects, Logger: o.Logger,
	}}, &wrong)
	for argument, reason := range own.All() {
		wrong.Check(false, argument, reason)
	}
	if err := fail.Arguments("new login", name, wrong); err != nil {
		return nil, err
	}
	login := &Login{l: l, opt: o}
	login.setKeys(r.Config().KeyPrefix)
	if len(o.Blocks) > 0 {
		login.blockArgs = []string{limitscript.Micros(o.ForgetBlocks), strconv.Itoa(len(o.Blocks))}
		for _, d := range o.Blocks {
			login.blockArgs = append(login.blockArgs, limitscript.Micros(d))
		}
	}
	return login, nil
}

// LoginKey names an account and an address together, for an identifier that
// locks out one guesser and not the owner of the account. No two pairs share
// one. The user's name is put in lower case, and nothing else is done to it:
// where a login finds an account by several spellings, pass the one that the
// database has. An IPv6 address counts as its /64, within which a client has
// all addresses; IPv4-mapped addresses count as IPv4.
func LoginKey(user string, addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	where := "unknown"
	switch {
	case addr.Is4():
		where = addr.String()
	case addr.Is6():
		where = netip.PrefixFrom(addr, 64).Masked().String()
	}
	return where + "|" + strings.ToLower(user)
}

// Attempt counts an attempt and decides whether it is admitted, in one step: of
// any number of parallel attempts no more than MaxAttempts pass. A denied
// attempt is not counted and prolongs nothing. Check the password only when the
// attempt is admitted, and call Reset when the password was right.
func (l *Login) Attempt(ctx context.Context, identifier string) (Decision, error) {
	return l.decide(ctx, limitscript.VerbAllow, "attempt", identifier)
}

// IsRateLimited reports whether an attempt would be denied now, and counts
// nothing. With an error it is true.
func (l *Login) IsRateLimited(ctx context.Context, identifier string) (bool, error) {
	d, err := l.decide(ctx, limitscript.VerbPeek, "is rate limited", identifier)
	return !d.Allowed, err
}

// Increment counts a failed attempt, whatever is free; during a block it counts
// nothing. The decision is that of a further attempt: Allowed says whether it
// would be admitted, Remaining how many are left. Do not call it after Attempt,
// which has counted already. Do not call it for an attempt that was denied: the
// wait would grow with every attempt.
func (l *Login) Increment(ctx context.Context, identifier string) (Decision, error) {
	return l.decide(ctx, limitscript.VerbForce, "increment", identifier)
}

// Reset deletes the failures and blocks of identifier, after a successful login.
// This process sees it at once, others within a second. When it fails the user
// may still be let in: the failures expire. If the limit is disabled or locks
// everyone out, nothing is sent. A successful login in FastAPI Madcrow deletes
// the failures and no block: it has none.
func (l *Login) Reset(ctx context.Context, identifier string) error {
	if _, ok := l.staticDecision(); ok {
		return nil
	}
	id, stored := l.keys(identifier)
	_, err := l.l.r.DoMulti(ctx, l.l.r.B().Del().Key(stored[0]).Build(), l.l.r.B().Del().Key(stored[1]).Build())
	l.l.forgetDenial(id)
	if l.l.local != nil {
		l.l.local.Remove(id)
	}
	return l.l.failed("reset", err)
}

// RemainingAttempts returns how many attempts identifier has left, 0 during a
// block. If the limit is disabled it is MaxAttempts.
func (l *Login) RemainingAttempts(ctx context.Context, identifier string) (int, error) {
	if d, ok := l.staticDecision(); ok {
		return int(d.Remaining), nil
	}
	_, stored := l.keys(identifier)
	r, err := l.evaluate(ctx, limitscript.VerbPeek, stored)
	if err != nil {
		return 0, l.l.failed("remaining attempts", err)
	}
	return int(l.l.decide(r, 1).Remaining), nil
}

// TimeUntilReset returns the time until identifier has one attempt more than
// now: for a denied identifier, until it may try again. It is 0 when no failure
// is counted, and [Never] when everyone is locked out.
func (l *Login) TimeUntilReset(ctx context.Context, identifier string) (time.Duration, error) {
	if d, ok := l.staticDecision(); ok {
		return d.RetryAfter, nil
	}
	_, stored := l.keys(identifier)
	r, err := l.evaluate(ctx, limitscript.VerbPeek, stored)
	if err != nil {
		return 0, l.l.failed("time until reset", err)
	}
	return time.Duration(r.Extra) * time.Microsecond, nil
}

// Health is [Limiter.Health].
func (l *Login) Health() Health { return l.l.Health() }

// staticDecision decides by the configuration alone, if that is enough.
func (l *Login) staticDecision() (d Decision, ok bool) {
	d = Decision{Limiter: l.l.name, Limit: int64(max(l.opt.MaxAttempts, 0)), Window: l.opt.Window, Source: SourceBypass, of: l.l, cost: 1}
	switch {
	case l.opt.Disabled:
		d.Allowed, d.Remaining = true, d.Limit
	case l.opt.MaxAttempts < 0:
		d.RetryAfter, d.ResetAfter = Never, Never
	default:
		return Decision{}, false
	}
	return d, true
}

func (l *Login) decide(ctx context.Context, verb limitscript.Verb, op, identifier string) (Decision, error) {
	d, err := l.allow(ctx, verb, op, identifier)
	if verb != limitscript.VerbForce || err != nil || d.Degraded { // a failure is no decision
		l.l.record(ctx, d, err)
	}
	return d, err
}

func (l *Login) allow(ctx context.Context, verb limitscript.Verb, op, identifier string) (Decision, error) {
	if d, ok := l.staticDecision(); ok {
		return d, nil
	}
	id, stored := l.keys(identifier)
	asked := clock.Now()
	if verb != limitscript.VerbForce {
		if d, ok := l.l.cachedDenial(id, 1, asked); ok {
			return d, nil
		}
	}
	r, err := l.evaluate(ctx, verb, stored)
	if err != nil {
		return l.fallBack(ctx, verb, op, id, err)
	}
	d := l.l.decide(r, 1)
	l.l.rememberDenial(id, 1, asked, d)
	return d, nil
}

// fallBack decides without Redis.
func (l *Login) fallBack(ctx context.Context, verb limitscript.Verb, op, id string, cause error) (Decision, error) {
	n := int64(1)
	if verb == limitscript.VerbPeek {
		n = 0
	}
	d, err := l.l.fallBack(ctx, op, id, n, cause)
	if err == nil && l.l.fail.IsLocal() && verb != limitscript.VerbAllow && d.Remaining == 0 {
		// IsRateLimited and Increment return the decision about a further attempt:
		// here it is denied, and so not counted.
		l.l.countLocally(&d, id, 1)
	}
	return d, err
}

func (l *Login) evaluate(ctx context.Context, verb limitscript.Verb, stored [2]string) (rep limitscript.Reply, err error) {
	ctx, cancel := withTimeout(ctx, l.l.opt.Timeout)
	defer cancel()
	args := append(make([]string, 0, 8), string(verb), l.l.plan.args[0], l.l.plan.args[1], keys.Nonce())
	switch {
	case len(l.opt.Blocks) == 0:
		rep, err = l.evalKeys(ctx, stored[:1], args)
	case !l.l.clustered:
		rep, err = l.evalKeys(ctx, stored[:], append(args, l.blockArgs...))
	default:
		rep, err = l.evaluateInCluster(ctx, stored, slices.Clone(args))
	}
	if err == nil {
		l.l.monitor.Succeeded()
	}
	return rep, err
}

// evaluateInCluster is apart, as what its functions share is allocated.
func (l *Login) evaluateInCluster(ctx context.Context, stored [2]string, args []string) (rep limitscript.Reply, err error) {
	err = l.l.r.SplitKeys(ctx, stored[0],
		func(ctx context.Context) (err error) {
			rep, err = l.evalKeys(ctx, stored[:], append(args, l.blockArgs...))
			return err
		},
		func(ctx context.Context) (err error) { rep, err = l.evalSplitKeys(ctx, stored, args); return err })
	return rep, err
}

func (l *Login) evalKeys(ctx context.Context, stored, args []string) (limitscript.Reply, error) {
	m, err := l.l.eval(ctx, limitscript.Login, stored, args)
	if err != nil {
		return limitscript.Reply{}, err
	}
	return limitscript.ReadReply(m)
}

// evalSplitKeys reads the block, and then evaluates the attempts. An attempt that
// completes the limit begins no block meanwhile: the window alone denies the next.
func (l *Login) evalSplitKeys(ctx context.Context, stored [2]string, args []string) (limitscript.Reply, error) {
	block, err := l.l.evalBlock(ctx, limitscript.LoginBlocked, stored[1])
	switch {
	case err != nil:
		return limitscript.Reply{}, err
	case block > 0:
		return limitscript.Reply{Retry: block, Used: int64(l.opt.MaxAttempts), Reset: block, Extra: block}, nil
	}
	return l.evalKeys(ctx, stored[:1], args)
}

// setKeys sets how keys are made. In a cluster the keys of an identifier are in
// one slot: by the identifier as their hash tag, or, as the key of the FastAPI
// layout has no tag, by that whole key as the tag of the other.
func (l *Login) setKeys(prefix string) {
	if l.opt.FastAPILayout {
		l.l.keyPrefix = prefix + fastAPIPrefix
		l.blocks = [2]string{prefix + "m1:login:{" + l.l.keyPrefix, "}"}
		return
	}
	l.l.keyPrefix = prefix + "m1:login:" + l.l.name + ":{"
	l.blocks = [2]string{l.l.keyPrefix, "}" + limitscript.BlockSuffix}
}

// keys returns the identifier as it stands in keys, and the keys of its attempts
// and of its blocks.
func (l *Login) keys(identifier string) (id string, both [2]string) {
	id = keys.Login.Encode(identifier)
	if l.opt.FastAPILayout {
		return id, [2]string{l.l.keyPrefix + id, l.blocks[0] + id + l.blocks[1]}
	}
	if id == "" {
		id = "~" // an empty hash tag is none; no identifier is encoded like this
	}
	attempts := l.l.keyPrefix + id + "}"
	return id, [2]string{attempts, l.blocks[0] + id + l.blocks[1]}
}
