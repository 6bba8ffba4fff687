package problem

import (
	"errors"
	"log/slog"
)

// Writer writes errors as HTTP responses. Its rules cover errors that do not
// describe themselves. The zero value has no rules. It is safe for concurrent use.
//
//	problems := problem.Writer{Logger: logger, Rules: []problem.Rule{
//		problem.Is(sql.ErrNoRows, problem.Problem{Status: 404, Code: "NOT_FOUND", Message: "There is no such data"}),
//		problem.As(func(e *pq.Error) problem.Problem { … }),
//	}}
type Writer struct {
	// Logger gets the cause of each problem, under its error_id. Give it one, such as
	// madcrow.Redis.Logger. Without one, Write uses the logger of a middleware
	// outside, if there is one: that of [Writer.Recover], or that of a session
	// manager. Otherwise the error_id is in no log.
	Logger *slog.Logger
	// Rules are applied in turn, before the error's own description
	// ([Describer]); the first match decides. They are for errors of other
	// packages, and to override the answers of Madcrow.
	Rules []Rule
	// Debug puts the text of the error into the member detail. The text may name
	// addresses, keys and user input: never enable it in production. Defaults to
	// false.
	Debug bool
}

// Rule returns the problem of an error; ok is false where the rule does not match.
// It must be safe for concurrent use.
type Rule func(err error) (p Problem, ok bool)

// Is returns the rule that answers p for an error that matches target by
// [errors.Is].
func Is(target error, p Problem) Rule {
	return func(err error) (Problem, bool) {
		if !errors.Is(err, target) {
			return Problem{}, false
		}
		return p, true
	}
}

// As returns the rule that answers describe(e) for an error of type E, found by
// [errors.As].
func As[E error](describe func(E) Problem) Rule {
	return func(err error) (Problem, bool) {
		var e E
		if !errors.As(err, &e) {
			return Problem{}, false
		}
		return describe(e), true
	}
}

// ByItself is the rule that answers the problem of a [Describer]. Rules behind it
// apply only to errors that do not describe themselves.
func ByItself(err error) (p Problem, ok bool) {
	var d Describer
	if errors.As(err, &d) {
		return d.Problem(), true
	}
	return p, false
}

// From returns the problem of err, complete and with an id of its own. An
// error that neither a rule nor itself describes is a 500 with a fixed text.
func (f Writer) From(err error) Problem {
	p := f.describe(err)
	if f.Debug && err != nil {
		p.Detail = err.Error()
	}
	return p.complete()
}

func (f Writer) describe(err error) Problem {
	for _, rule := range f.Rules {
		if p, ok := rule(err); ok {
			return p
		}
	}
	p, _ := ByItself(err)
	return p
}
