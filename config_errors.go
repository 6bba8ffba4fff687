package madcrow

import (
	"errors"

	"github.com/madcrow-go/madcrow/internal/settings"
)

// ConfigError lists everything that is wrong with a configuration. It comes
// inside an [*Error] of [KindConfig] and is [ErrConfig].
type ConfigError struct {
	// Problems has at least one entry, the settings of one topic together.
	Problems []ConfigProblem
}

// ConfigProblem is one thing that is wrong with a configuration. It is an
// error, so that errors.As finds the first one of a [ConfigError]. It never
// holds a secret.
type ConfigProblem struct {
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
func (p ConfigProblem) Error() string { return p.settings().Error() }

func (p ConfigProblem) settings() settings.Problem {
	return settings.Problem{Setting: p.Setting, Value: p.Value, Reason: p.Reason, Fix: p.Fix, Err: p.err}
}

// Unwrap returns the cause, such as fs.ErrNotExist; nil when there is none.
func (p ConfigProblem) Unwrap() error { return p.err }

// Error returns one line with every problem.
func (e *ConfigError) Error() string {
	all := make(settings.Problems, len(e.Problems))
	for i, p := range e.Problems {
		all[i] = p.settings()
	}
	return all.Error()
}

// Unwrap returns the problems, each a [ConfigProblem].
func (e *ConfigError) Unwrap() []error {
	errs := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		errs[i] = p
	}
	return errs
}

// Is reports whether target is [ErrConfig].
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

// configError makes the one error of a configuration from the problems that
// package settings found; nil of nil.
func configError(err error) error {
	var problems settings.Problems
	if !errors.As(err, &problems) {
		return err
	}
	all := make([]ConfigProblem, len(problems))
	for i, p := range problems {
		all[i] = ConfigProblem{Setting: p.Setting, Value: p.Value, Reason: p.Reason, Fix: p.Fix, err: p.Err}
	}
	return &Error{Op: "config", Kind: KindConfig, Outcome: OutcomeNotApplied, Err: &ConfigError{Problems: all}}
}
