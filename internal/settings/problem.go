package settings

import (
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a configuration. It never holds a
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

	// Err is the cause, for errors.Is; its text may not be shown.
	Err error
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
func (p Problem) Unwrap() error { return p.Err }

// Problems are everything that is wrong with a configuration, the settings of
// one topic together.
type Problems []Problem

// Error returns one line with every problem.
func (ps Problems) Error() string {
	if len(ps) == 1 {
		return ps[0].Error()
	}
	var b strings.Builder
	b.WriteString(strconv.Itoa(len(ps)))
	b.WriteString(" problems")
	for i, p := range ps {
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

// Unwrap returns the problems.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// orNil is the error of a list of problems, nil of an empty list.
func (ps Problems) orNil() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}
