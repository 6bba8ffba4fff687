package madcrow

import (
	"errors"
	"strconv"
	"strings"
)

// ConfigError lists everything that is wrong with a configuration. It comes
// inside an [*Error] of [KindConfig] and is [ErrConfig].
type ConfigError struct {
	// Problems has at least one entry, the settings of one topic together.
	Problems []Problem
}

// Problem is one thing that is wrong with a configuration. It is an error, so
// that errors.As finds the first one of a [ConfigError]. It never holds a
// secret.
type Problem struct {
	// Setting is its name as its author wrote it: that of the environment
	// ("ORDERS_REDIS_PORT"), or the field ("Config.Port").
	Setting string
	// Value is what it was set to, secrets replaced by "***". Empty when it is
	// not set.
	Value string
	// Reason says what is wrong.
	Reason string
	// Fix says what to do about it.
	Fix string

	err error // the cause, for errors.Is; its text may not be shown
}

// Error returns one line with the setting, its value, the reason and the fix.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Setting)
	if p.Value != "" {
		b.WriteString("=")
		b.WriteString(strconv.Quote(p.Value))
	}
	b.WriteString(": ")
	b.WriteString(p.Reason)
	if p.Fix != "" {
		b.WriteString(" (fix: ")
		b.WriteString(p.Fix)
		b.WriteString(")")
	}
	return b.String()
}

// Unwrap returns the cause, such as fs.ErrNotExist; nil when there is none.
func (p Problem) Unwrap() error { return p.err }

// Error returns one line with every problem.
func (e *ConfigError) Error() string {
	if len(e.Problems) == 1 {
		return e.Problems[0].Error()
	}
	var b strings.Builder
	b.WriteString(strconv.Itoa(len(e.Problems)))
	b.WriteString(" problems")
	for i, p := range e.Problems {
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		b.WriteString("[" + strconv.Itoa(i+1) + "] ")
		b.WriteString(p.Error())
	}
	return b.String()
}

// Unwrap returns the problems, each a [Problem].
func (e *ConfigError) Unwrap() []error {
	errs := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		errs[i] = p
	}
	return errs
}

// Is reports whether target is [ErrConfig].
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

// configError makes the one error of a list of problems, nil of an empty list.
func configError(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return &Error{
		Op: "config", Kind: KindConfig, Outcome: OutcomeNotApplied,
		Err: &ConfigError{Problems: problems},
	}
}

// problemsOf returns the problems inside err.
func problemsOf(err error) []Problem {
	var ce *ConfigError
	if errors.As(err, &ce) {
		return ce.Problems
	}
	return nil
}

// maxShown bounds, in bytes, what an error repeats of a value.
const maxShown = 120

// shown returns what an error or a log may repeat of a value that is not a
// secret, but may hold one that went to the wrong place: a whole URL as the
// host, or credentials before a host.
func shown(v string) string {
	if strings.Contains(v, "://") {
		return shownURL(v)
	}
	if at := strings.LastIndexByte(v, '@'); at >= 0 {
		v = hidden + v[at:]
	}
	return clip(v)
}

// clip shortens v to maxShown bytes, and never inside a character.
func clip(v string) string {
	if len(v) <= maxShown {
		return v
	}
	return strings.ToValidUTF8(v[:maxShown], "") + "…"
}
