// Package operr makes the errors of the packages that are built on the core:
// each returns [*madcrow.Error] for an operation that failed and
// [*madcrow.ArgumentError] for a mistake of the program, and has no error types
// of its own.
//
// A package declares one Maker and calls it wherever an error leaves it:
//
//	var fail = operr.Maker{Package: "cache", Problem: problemOf}
//
//	func problemOf(op, name string, err error) problem.Problem {
//		switch {
//		case errors.Is(err, ErrNotFound):
//			return problem.Problem{Status: 404, …}
//		…
//	}
//
//	return fail.Wrap("get", c.name, err)                        // nil stays nil
//	return fail.Argument("set", c.name, "TTL", "must be at least 1 ms")
//
// Sentinels of a package (ErrNotFound, …) stay plain errors.New values, found
// with errors.Is.
package operr

import (
	"context"
	"errors"
	"net/http"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

// Maker makes the errors of one package.
type Maker struct {
	// Package is the package's name. It stands before the operation in
	// Error.Op: "cache.get".
	Package string
	// Problem returns the HTTP response of a failed operation. err is the cause
	// as Wrap got it. nil leaves that to the cause, as for a call of the core.
	Problem func(op, name string, err error) problem.Problem
}

// Wrap returns err as a *madcrow.Error of op ("get") on the instance name. Kind
// and Outcome are those of the *madcrow.Error in err. Where there is none, a
// deadline or a cancellation has its kind, and any other cause (a loader's
// error, a sentinel) has none; nothing was applied then: use WrapAs where that
// is not so. nil, an argument error and what was wrapped already by the same
// package for the same instance come back as they are.
func (m Maker) Wrap(op, name string, err error) error {
	var e *madcrow.Error
	switch {
	case errors.As(err, &e):
		return m.wrap(op, name, e.Kind, e.Outcome, err)
	case errors.Is(err, context.DeadlineExceeded):
		return m.wrap(op, name, madcrow.KindTimeout, madcrow.OutcomeNotApplied, err)
	case errors.Is(err, context.Canceled):
		return m.wrap(op, name, madcrow.KindCanceled, madcrow.OutcomeNotApplied, err)
	}
	return m.wrap(op, name, 0, madcrow.OutcomeNotApplied, err)
}

// WrapForeign is Wrap for an error of the caller's own function. It has no kind,
// whatever it is: this package did not fail.
func (m Maker) WrapForeign(op, name string, err error) error {
	return m.wrap(op, name, 0, madcrow.OutcomeNotApplied, err)
}

// WrapAs is Wrap with an outcome that the cause does not know: a login was made
// (OutcomeApplied) though the old session could not be ended, say.
func (m Maker) WrapAs(op, name string, outcome madcrow.Outcome, err error) error {
	var kind madcrow.Kind
	if e := (*madcrow.Error)(nil); errors.As(err, &e) {
		kind = e.Kind
	}
	return m.wrap(op, name, kind, outcome, err)
}

func (m Maker) wrap(op, name string, kind madcrow.Kind, outcome madcrow.Outcome, err error) error {
	if err == nil || IsArgument(err) {
		return err
	}
	if c := (*cause)(nil); errors.As(err, &c) && c.maker == m.Package && c.name == name {
		return err
	}
	return &madcrow.Error{
		Op: m.Package + "." + op, Name: name, Kind: kind, Outcome: outcome,
		Err: &cause{maker: m.Package, op: op, name: name, err: err, problem: m.Problem},
	}
}

// Argument returns the error of an argument that cannot be used. reason says
// what is expected, and does not hold the argument.
func (m Maker) Argument(op, name, argument, reason string) error {
	return &madcrow.ArgumentError{Op: m.Package + "." + op, Name: name, Argument: argument, Reason: reason}
}

// cause is the cause of a wrapped error, which knows the package's response.
type cause struct {
	maker, op, name string
	err             error
	problem         func(op, name string, err error) problem.Problem
}

func (c *cause) Error() string { return c.err.Error() }

func (c *cause) Unwrap() error { return c.err }

// Transparent lets [madcrow.Error] see that nothing but a response was added.
func (c *cause) Transparent() error { return c.err }

// Problem implements [problem.Describer].
func (c *cause) Problem() problem.Problem {
	if c.problem != nil {
		return c.problem(c.op, c.name, c.err)
	}
	if own := problem.Describer(nil); errors.As(c.err, &own) {
		return own.Problem()
	}
	return problem.Problem{Status: http.StatusInternalServerError}
}

// IsArgument reports a mistake of the program, as Argument makes it.
func IsArgument(err error) bool {
	var a *madcrow.ArgumentError
	return errors.As(err, &a)
}

// NotSent is [madcrow.Error.NotSent] of the error in err, and false where there
// is none.
func NotSent(err error) bool {
	var e *madcrow.Error
	return errors.As(err, &e) && e.NotSent()
}

// Retryable is [madcrow.Error.Retryable] of the error in err, and false where
// there is none.
func Retryable(err error) bool {
	var e *madcrow.Error
	return errors.As(err, &e) && e.Retryable()
}

// Temporary is [madcrow.Error.Temporary] of the error in err, and false where
// there is none.
func Temporary(err error) bool {
	var e *madcrow.Error
	return errors.As(err, &e) && e.Temporary()
}

// Permanent says that waiting does not mend an error: Redis is closed, the user may
// not, the configuration is wrong, or the key holds another type.
func Permanent(err error) bool {
	for _, target := range [...]error{madcrow.ErrClosed, madcrow.ErrPermission, madcrow.ErrConfig, madcrow.ErrWrongType} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// Unprocessable is for an HTTP boundary that hands data of the client on as an
// argument: it makes an argument error in err a 422 that names member ("key",
// "body.key") and what is expected of it. The argument error stays its cause.
// Any other error comes back as it is.
func Unprocessable(member string, err error) error {
	var a *madcrow.ArgumentError
	if !errors.As(err, &a) {
		return err
	}
	return &unprocessable{member: member, err: a}
}

type unprocessable struct {
	member string
	err    *madcrow.ArgumentError
}

func (u *unprocessable) Error() string { return u.err.Error() }

func (u *unprocessable) Unwrap() error { return u.err }

func (u *unprocessable) Problem() problem.Problem {
	return problem.Problem{
		Status: http.StatusUnprocessableEntity, Code: problem.CodeValidation, Message: "The request is not valid",
		Errors: []problem.FieldError{{Field: u.member, Message: u.err.Reason}},
	}
}
