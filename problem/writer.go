package problem

import (
	"errors"
	"log/slog"
)

// Writer makes answers of errors, by rules for those that do not describe
// themselves. The zero value has no rules. It is safe for concurrent use.
//
//	problems := problem.Writer{Logger: logger, Rules: []problem.Rule{
//		problem.Is(sql.ErrNoRows, problem.Problem{Status: 404, Code: "NOT_FOUND", Message: "There is no such data"}),
//		problem.As(func(e *pq.Error) problem.Problem { … }),
//	}}
type Writer struct {
	// Logger gets the cause of each problem. Defaults to none.
	Logger *slog.Logger
	// Rules are asked in turn, before the error itself ([Describer]): the first
	// that knows it decides. They are for errors of other packages, and to
	// answer otherwise than Madcrow does.
	Rules []Rule
	// Debug puts the text of the error into the member detail. It may name
	// addresses, keys and what others sent: never where strangers can ask.
	// Defaults to false.
	Debug bool
}

// Rule says the problem of an error; ok is false where it does not know it. It
// must be safe for concurrent use.
type Rule func(err error) (p Problem, ok bool)

// Is is the rule that an error which is target, by [errors.Is], is p.
func Is(target error, p Problem) Rule {
	return func(err error) (Problem, bool) {
		if !errors.Is(err, target) {
			return Problem{}, false
		}
		return p, true
	}
}

// As is the rule that an error of type E, by [errors.As], is what describe says
// of it.
func As[E error](describe func(E) Problem) Rule {
	return func(err error) (Problem, bool) {
		var e E
		if !errors.As(err, &e) {
			return Problem{}, false
		}
		return describe(e), true
	}
}

// ByItself is the rule that an error that describes itself is what it says. It
// is for in front of rules that shall not come before that.
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
