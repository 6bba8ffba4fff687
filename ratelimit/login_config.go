package ratelimit

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/envvalue"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// LoginOptions configure a [Login]: how many failed logins are too many.
// FailPolicy is required.
type LoginOptions struct {
	// MaxAttempts is how many failures one identifier may have in Window, up
	// to 1,000,000. -1 locks everyone out without a call to Redis. Defaults to 5.
	MaxAttempts int
	// Window is from 10 ms to 31 days, in whole microseconds. Defaults to 15
	// minutes.
	Window time.Duration
	// Blocks are how long an identifier is blocked when it reaches MaxAttempts:
	// the first time, the second, and so on; the last one holds for all further
	// times. Each is from 1 ms to 31 days, at most 32. When a block ends, all
	// attempts are free again. Defaults to none: an attempt is free again when
	// the oldest failure is a window old.
	Blocks []time.Duration
	// ForgetBlocks is how long after the end of its last block an identifier
	// starts with the first again, from 1 ms to 366 days. Defaults to 24 hours, or
	// the longest block if that is longer.
	ForgetBlocks time.Duration
	// FailPolicy is that of [Options]; madcrow.FailLocal counts without blocks.
	FailPolicy madcrow.FailPolicy
	// Disabled admits every attempt without a call to Redis.
	Disabled bool
	// FastAPILayout keeps the attempts where FastAPI Madcrow does, so that both may
	// serve one login: a sorted set under <prefix>login_attempts:<identifier>,
	// whatever the name is.
	FastAPILayout bool
	// Timeout, DeniedSubjects, LocalSubjects and Logger are those of [Options].
	Timeout        time.Duration
	DeniedSubjects int
	LocalSubjects  int
	Logger         *slog.Logger
}

const loginOptions = "LoginOptions"

const (
	defaultLoginAttempts = 5
	defaultLoginWindow   = 15 * time.Minute
	defaultForgetBlocks  = 24 * time.Hour
	maxForgetBlocks      = 366 * 24 * time.Hour
	maxBlocks            = 32
)

// The names of the settings, without a prefix.
const (
	envLoginEnabled  = "RATE_LIMIT_LOGIN_ENABLED"
	envLoginAttempts = "RATE_LIMIT_LOGIN_MAX_ATTEMPTS"
	envLoginWindow   = "RATE_LIMIT_LOGIN_TIME_WINDOW"
	envLoginBlocks   = "RATE_LIMIT_LOGIN_BLOCKS"
)

// LoginOptionsFromEnv reads the settings of FastAPI Madcrow, and one more; the
// zero [madcrow.Env] reads them from the environment of this process. The
// FailPolicy is not among them: set it.
//
//	RATE_LIMIT_LOGIN_ENABLED       true
//	RATE_LIMIT_LOGIN_MAX_ATTEMPTS  5    (0 locks everyone out)
//	RATE_LIMIT_LOGIN_TIME_WINDOW   900  (seconds, or a Go duration: 15m)
//	RATE_LIMIT_LOGIN_BLOCKS             (1m,15m,24h; see LoginConfig.Blocks)
//
// An empty variable counts as one that is not set. The error is
// [madcrow.ErrConfig]: a [*madcrow.ConfigError] with every problem.
func LoginOptionsFromEnv(env madcrow.Env) (LoginOptions, error) {
	r := loginEnv{prefix: env.Prefix, lookup: env.Lookup}
	if r.lookup == nil {
		r.lookup = os.LookupEnv
	}
	c := LoginOptions{MaxAttempts: defaultLoginAttempts, Window: defaultLoginWindow}
	r.read(envLoginEnabled, "set true or false", func(text string) error {
		on, err := envvalue.Bool(text)
		c.Disabled = !on
		return err
	})
	r.read(envLoginAttempts, "set a whole number "+boundAttempts, func(text string) (err error) {
		if c.MaxAttempts, err = envvalue.Int(text, 0, maxLogged); err == nil && c.MaxAttempts == 0 {
			c.MaxAttempts = -1
		}
		return err
	})
	r.read(envLoginWindow, "set seconds (900) or a duration (15m), "+windowBounds, func(text string) (err error) {
		c.Window, err = envvalue.Duration(text, MinWindow, MaxWindow)
		c.Window = c.Window.Truncate(time.Microsecond)
		return err
	})
	r.read(envLoginBlocks, "set durations with commas between them (1m,15m,24h), "+boundBlocks, func(text string) error {
		items := envvalue.List(text)
		if len(items) > maxBlocks {
			return envvalue.ErrRange
		}
		for _, item := range items {
			d, err := envvalue.Duration(item, time.Millisecond, MaxWindow)
			if err != nil {
				return err
			}
			c.Blocks = append(c.Blocks, d)
		}
		return nil
	})
	if len(r.problems) > 0 {
		return LoginOptions{}, &madcrow.ConfigError{Problems: r.problems}
	}
	return c, nil
}

var (
	boundAttempts = fmt.Sprintf("from 0 to %d", maxLogged)
	boundBlocks   = fmt.Sprintf("at most %d, each %s", maxBlocks, blockBounds)
)

// loginEnv is one reading of the environment.
type loginEnv struct {
	prefix   string
	lookup   func(string) (string, bool)
	problems []madcrow.ConfigProblem
}

func (r *loginEnv) read(name, fix string, parse func(string) error) {
	name = r.prefix + name
	text, _ := r.lookup(name)
	if text = strings.TrimSpace(text); text == "" {
		return
	}
	if err := parse(text); err != nil {
		r.problems = append(r.problems, madcrow.ConfigProblem{Setting: name, Value: clip(text), Reason: err.Error(), Fix: fix})
	}
}

// clip bounds what an error repeats of a value.
func clip(text string) string {
	const most = 120
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// check notes what is wrong with what only a login has.
func (o LoginOptions) check(wrong *operr.Arguments) {
	wrong.Check(o.MaxAttempts >= -1 && o.MaxAttempts <= maxLogged, loginOptions+".MaxAttempts", fmt.Sprintf("must be from 1 to %d, or -1, which locks everyone out", maxLogged))
	wrong.Check(o.Window >= MinWindow && o.Window <= MaxWindow && o.Window%time.Microsecond == 0,
		loginOptions+".Window", "must be whole microseconds "+windowBounds)
	odd := func(d time.Duration) bool { return d < time.Millisecond || d > MaxWindow }
	wrong.Check(len(o.Blocks) <= maxBlocks && !slices.ContainsFunc(o.Blocks, odd), loginOptions+".Blocks", "must be "+boundBlocks)
	wrong.Check(o.ForgetBlocks >= time.Millisecond && o.ForgetBlocks <= maxForgetBlocks,
		loginOptions+".ForgetBlocks", "must be from 1ms to 366 days")
}

// withDefaults also copies the list: the caller may change its own.
func (o LoginOptions) withDefaults() LoginOptions {
	o.Blocks = slices.Clone(o.Blocks)
	if o.MaxAttempts == 0 {
		o.MaxAttempts = defaultLoginAttempts
	}
	if o.Window == 0 {
		o.Window = defaultLoginWindow
	}
	if o.ForgetBlocks == 0 {
		o.ForgetBlocks = defaultForgetBlocks
		if len(o.Blocks) > 0 {
			o.ForgetBlocks = max(o.ForgetBlocks, slices.Max(o.Blocks))
		}
	}
	return o
}
