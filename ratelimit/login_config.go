package ratelimit

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/envvalue"
	"github.com/madcrow-go/madcrow/internal/fallback"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// LoginConfig says how many failed logins are too many.
type LoginConfig struct {
	// Disabled admits every attempt without a call to Redis.
	Disabled bool
	// MaxAttempts is how many failures one identifier may have in Window, up
	// to 1,000,000. 0 locks everyone out without a call to Redis.
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
	// starts with the first again, up to 366 days. Defaults to 24 hours, or
	// the longest block if that is longer.
	ForgetBlocks time.Duration
}

const (
	defaultLoginWindow  = 15 * time.Minute
	defaultForgetBlocks = 24 * time.Hour
	maxForgetBlocks     = 366 * 24 * time.Hour
	maxBlocks           = 32
)

// The names of the settings, without a prefix.
const (
	envLoginEnabled  = "RATE_LIMIT_LOGIN_ENABLED"
	envLoginAttempts = "RATE_LIMIT_LOGIN_MAX_ATTEMPTS"
	envLoginWindow   = "RATE_LIMIT_LOGIN_TIME_WINDOW"
	envLoginBlocks   = "RATE_LIMIT_LOGIN_BLOCKS"
)

// LoginConfigFromEnv reads the settings of FastAPI Madcrow, and one more;
// the zero [madcrow.Env] reads them from the environment of this process.
//
//	RATE_LIMIT_LOGIN_ENABLED       true
//	RATE_LIMIT_LOGIN_MAX_ATTEMPTS  5    (0 locks everyone out)
//	RATE_LIMIT_LOGIN_TIME_WINDOW   900  (seconds, or a Go duration: 15m)
//	RATE_LIMIT_LOGIN_BLOCKS             (1m,15m,24h; see LoginConfig.Blocks)
//
// An empty variable counts as one that is not set. The error is
// [madcrow.ErrConfig]: a [*madcrow.ConfigError] with every problem.
func LoginConfigFromEnv(env madcrow.Env) (LoginConfig, error) {
	r := loginEnv{prefix: env.Prefix, lookup: env.Lookup}
	if r.lookup == nil {
		r.lookup = os.LookupEnv
	}
	c := LoginConfig{MaxAttempts: 5, Window: defaultLoginWindow}
	r.read(envLoginEnabled, "set true or false", func(text string) error {
		on, err := envvalue.Bool(text)
		c.Disabled = !on
		return err
	})
	r.read(envLoginAttempts, fixAttempts, func(text string) (err error) {
		c.MaxAttempts, err = envvalue.Int(text, 0, maxLogged)
		return err
	})
	r.read(envLoginWindow, "set seconds (900) or a duration (15m), "+fixWindow, func(text string) (err error) {
		c.Window, err = envvalue.Duration(text, MinWindow, MaxWindow)
		c.Window = c.Window.Truncate(time.Microsecond)
		return err
	})
	r.read(envLoginBlocks, "set durations with commas between them (1m,15m,24h), "+fixBlocks, func(text string) error {
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
		return LoginConfig{}, &madcrow.ConfigError{Problems: r.problems}
	}
	return c, nil
}

var (
	fixAttempts = fmt.Sprintf("set a whole number from 0 to %d", maxLogged)
	fixWindow   = fmt.Sprintf("from %v to %v", MinWindow, MaxWindow)
	fixBlocks   = fmt.Sprintf("at most %d, each from 1ms to %v", maxBlocks, MaxWindow)
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

// check returns every problem in one error.
func (c LoginConfig) check(policy madcrow.FailPolicy, o *options) error {
	var problems []madcrow.ConfigProblem
	bad := func(field, value, reason, fix string) {
		problems = append(problems, madcrow.ConfigProblem{Setting: "LoginConfig." + field, Value: value, Reason: reason, Fix: fix})
	}
	const outOfRange = "it is out of range"
	if c.MaxAttempts < 0 || c.MaxAttempts > maxLogged {
		bad("MaxAttempts", strconv.Itoa(c.MaxAttempts), outOfRange, fixAttempts)
	}
	if c.Window < MinWindow || c.Window > MaxWindow || c.Window%time.Microsecond != 0 {
		bad("Window", c.Window.String(), outOfRange, "set whole microseconds, "+fixWindow)
	}
	if len(c.Blocks) > maxBlocks || slices.ContainsFunc(c.Blocks, func(d time.Duration) bool { return d < time.Millisecond || d > MaxWindow }) {
		bad("Blocks", clip(fmt.Sprint(c.Blocks)), outOfRange, "set "+fixBlocks)
	}
	if c.ForgetBlocks < time.Millisecond || c.ForgetBlocks > maxForgetBlocks {
		bad("ForgetBlocks", c.ForgetBlocks.String(), outOfRange, fmt.Sprintf("set from 1ms to %v", maxForgetBlocks))
	}
	if fallback.Problem(policy) != "" {
		problems = append(problems, madcrow.ConfigProblem{Setting: "policy", Value: policy.String(), Reason: "it is no policy", Fix: "choose FailOpen, FailClosed or FailLocal(processes)"})
	}
	var wrong operr.Arguments
	o.check(&wrong)
	for name, reason := range wrong.All() {
		problems = append(problems, madcrow.ConfigProblem{Setting: name, Reason: outOfRange, Fix: reason})
	}
	if len(problems) > 0 {
		return &madcrow.ConfigError{Problems: problems}
	}
	return nil
}

// withDefaults also copies the list: the caller may change its own.
func (c LoginConfig) withDefaults() LoginConfig {
	c.Blocks = slices.Clone(c.Blocks)
	if c.Window == 0 {
		c.Window = defaultLoginWindow
	}
	if c.ForgetBlocks == 0 {
		c.ForgetBlocks = defaultForgetBlocks
		if len(c.Blocks) > 0 {
			c.ForgetBlocks = max(c.ForgetBlocks, slices.Max(c.Blocks))
		}
	}
	return c
}
