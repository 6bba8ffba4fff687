package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/limitscript"
)

// Login limits failed logins. It shares its attempts with the Python original:
// the same sorted set under <prefix>login_attempts:<identifier>, so that both
// may serve one login. Make it with [NewLogin].
//
// [Login.Attempt] before the password is checked, and [Login.Reset] when it was
// right, is all that a login needs. The original's verbs do the same in more
// steps: [Login.IsRateLimited] before, [Login.Increment] after a failure. What
// happens between the two is not counted, so parallel guesses pass together:
// prefer Attempt.
//
// An identifier is whatever failures are counted by: the account, or the
// account and the address together ([LoginKey]). By the account alone a
// stranger can lock its owner out; by the address alone Reset would free who
// logs in to an account of his own. Identifiers above 255 bytes, with braces or
// with a '~' in front are hashed, and so not shared with Python.
//
// Without Redis, Attempt, IsRateLimited and Increment follow the [FailPolicy]:
// FailOpen admits and counts nothing, FailClosed returns the error, FailLocal
// counts in this process, without blocks. The other verbs return the error,
// whatever the policy. Health and the recorder tell of it.
//
// It is safe for concurrent use.
type Login struct {
	l      *Limiter // for names, policy, health, memory and the recorder
	cfg    LoginConfig
	blocks string // what keys of blocks begin with
	// blockArgs are the last arguments of the script.
	blockArgs []string
}

// loginPolicy is the name in decisions and errors.
const loginPolicy = "login"

const (
	loginKeyPrefix = "login_attempts:"
	maxIdentifier  = 255
)

// NewLogin makes the limit of a login, called "login" in decisions and errors.
// fail says what happens when Redis cannot be asked. The error is
// [madcrow.ErrConfig] and lists every problem; that of an option is a
// [*ValidationError]. Redis is not asked. Of the options, those about memory
// and [WithTimeout] apply.
func NewLogin(r *madcrow.Redis, cfg LoginConfig, fail FailPolicy, opts ...Option) (*Login, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(fail); err != nil {
		return nil, err
	}
	// A limit of 0 is decided before the script is asked, which knows none.
	rate := Per(cfg.Window, int64(max(cfg.MaxAttempts, 1)))
	l, err := New(r, loginPolicy, rate, fail, append(append([]Option(nil), opts...), WithAlgorithm(SortedSetLog()))...)
	if err != nil {
		return nil, err
	}
	prefix := r.Config().KeyPrefix
	l.before = prefix + loginKeyPrefix
	login := &Login{l: l, cfg: cfg, blocks: prefix + "m1:login:{" + l.before}
	if len(cfg.Blocks) > 0 {
		login.blockArgs = []string{micros(cfg.ForgetBlocks), strconv.Itoa(len(cfg.Blocks))}
		for _, d := range cfg.Blocks {
			login.blockArgs = append(login.blockArgs, micros(d))
		}
	}
	return login, nil
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }

// LoginKey names an account and an address together, for an identifier that
// locks out one guesser and not the owner of the account. No two pairs share
// one. The user's name is put in lower case, and nothing else is done to it:
// where a login finds an account by several spellings, pass the one that the
// database has. An IPv6 address counts as its /64, within which a client has
// all addresses; IPv4-mapped ones count as IPv4.
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

// Attempt counts an attempt and says whether it is admitted, in one step: of
// any number of parallel ones no more than MaxAttempts pass. A denied one is
// not counted and prolongs nothing. Check the password only when it is
// admitted, and call Reset when it was right.
func (l *Login) Attempt(ctx context.Context, identifier string) (Decision, error) {
	return l.decide(ctx, verbTake, "attempt", identifier)
}

// IsRateLimited says whether an attempt would be denied now, and counts
// nothing. With an error it is true.
func (l *Login) IsRateLimited(ctx context.Context, identifier string) (bool, error) {
	d, err := l.decide(ctx, verbLook, "is rate limited", identifier)
	return !d.Allowed, err
}

// Increment counts a failed attempt, whatever is free; during a block it counts
// nothing. The decision is that of a further attempt: Allowed says whether it
// would be admitted, Remaining how many are left. Do not call it after Attempt,
// which has counted already, nor for an attempt that was denied: that would
// prolong the wait for as long as somebody tries.
func (l *Login) Increment(ctx context.Context, identifier string) (Decision, error) {
	return l.decide(ctx, verbForce, "increment", identifier)
}

// Reset forgets the failures and blocks of identifier: after a success. Other
// processes see it within a second, this one at once. When it fails the user
// may still be let in: the failures leave by age. Where the limit is disabled
// or locks everyone out, nothing is sent. A success in the Python original
// forgets the failures and, since it knows none, no block.
func (l *Login) Reset(ctx context.Context, identifier string) error {
	if _, ok := l.settled(); ok {
		return nil
	}
	id, keys := l.keys(identifier)
	_, err := l.l.r.Do(ctx, func(b madcrow.Builder) madcrow.Command { return b.Del().Key(keys[:]...).Build() })
	l.l.forget(id)
	if l.l.spare != nil {
		l.l.spare.forget(id)
	}
	return l.l.failed("reset", err)
}

// RemainingAttempts is how many attempts identifier has left, 0 during a
// block. Where the limit is disabled it is MaxAttempts.
func (l *Login) RemainingAttempts(ctx context.Context, identifier string) (int, error) {
	if d, ok := l.settled(); ok {
		return int(d.Remaining), nil
	}
	_, keys := l.keys(identifier)
	r, err := l.ask(ctx, verbLook, keys)
	if err != nil {
		return 0, l.l.failed("remaining attempts", err)
	}
	return int(l.l.plan.decide(loginPolicy, r).Remaining), nil
}

// TimeUntilReset is how long until identifier has one attempt more than now; of
// a limited one, until it may try again. It is 0 where no failure is counted,
// and [Never] where everyone is locked out.
func (l *Login) TimeUntilReset(ctx context.Context, identifier string) (time.Duration, error) {
	if d, ok := l.settled(); ok {
		return d.RetryAfter, nil
	}
	_, keys := l.keys(identifier)
	r, err := l.ask(ctx, verbLook, keys)
	if err != nil {
		return 0, l.l.failed("time until reset", err)
	}
	return time.Duration(r.extra) * time.Microsecond, nil
}

// Health is [Limiter.Health].
func (l *Login) Health() Health { return l.l.Health() }

// settled is what needs no question.
func (l *Login) settled() (d Decision, ok bool) {
	d = Decision{Policy: loginPolicy, Limit: int64(l.cfg.MaxAttempts), Window: l.cfg.Window, Source: SourceBypass}
	switch {
	case l.cfg.Disabled:
		d.Allowed, d.Remaining = true, d.Limit
	case l.cfg.MaxAttempts == 0:
		d.RetryAfter, d.ResetAfter = Never, Never
	default:
		return Decision{}, false
	}
	return d, true
}

func (l *Login) decide(ctx context.Context, verb, op, identifier string) (Decision, error) {
	d, err := l.judge(ctx, verb, op, identifier)
	if verb != verbForce || err != nil || d.Degraded { // a failure is no decision
		l.l.count(d, err)
	}
	return d, err
}

func (l *Login) judge(ctx context.Context, verb, op, identifier string) (Decision, error) {
	if d, ok := l.settled(); ok {
		return d, nil
	}
	id, keys := l.keys(identifier)
	asked := mono()
	if l.l.denied != nil && verb != verbForce {
		if d, ok := l.l.remembered(id, 1, asked); ok {
			return d, nil
		}
	}
	r, err := l.ask(ctx, verb, keys)
	if err != nil {
		return l.fallBack(ctx, verb, op, id, err)
	}
	d := l.l.plan.decide(loginPolicy, r)
	if !d.Allowed && l.l.denied != nil {
		l.l.denied.add(id, 1, asked, d.RetryAfter, d.ResetAfter)
	}
	return d, nil
}

// fallBack decides without Redis.
func (l *Login) fallBack(ctx context.Context, verb, op, id string, cause error) (Decision, error) {
	n := int64(1)
	if verb == verbLook {
		n = 0
	}
	d, err := l.l.fallBack(ctx, op, id, n, cause)
	if err == nil && l.l.fail.mode == failLocal && verb != verbTake && d.Remaining == 0 {
		// These two say what comes of a further attempt: it is denied here, and
		// so not counted.
		l.l.spare.take(&d, id, 1, d.Limit)
	}
	return d, err
}

func (l *Login) ask(ctx context.Context, verb string, keys [2]string) (reply, error) {
	ctx, cancel := within(ctx, l.l.opt.timeout)
	defer cancel()
	used := keys[:1]
	if len(l.cfg.Blocks) > 0 {
		used = keys[:]
	}
	args := append(make([]string, 0, 8), verb, l.l.plan.args[0], l.l.plan.args[1], newNonce())
	m, err := l.l.run(ctx, limitscript.Login, used, append(args, l.blockArgs...))
	if err != nil {
		return reply{}, err
	}
	r, err := readReply(m)
	if err == nil {
		l.l.health.good()
	}
	return r, err
}

// keys returns the identifier as keys have it, and the keys of its attempts and
// of its blocks. The latter's hash tag is all of the former, so that a cluster
// has both in one slot although the original's key has no tag.
func (l *Login) keys(identifier string) (id string, keys [2]string) {
	id = identifier
	if len(id) > maxIdentifier || strings.ContainsAny(id, "{}") || strings.HasPrefix(id, "~") {
		sum := sha256.Sum256([]byte(id))
		id = "~" + base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return id, [2]string{l.l.before + id, l.blocks + id + "}"}
}
