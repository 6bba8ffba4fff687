package operr

import (
	"iter"
	"strings"
)

// Arguments collects everything that is wrong with the arguments of a
// constructor, so that one error lists all of it.
type Arguments struct{ names, reasons []string }

// Check notes an argument that is not ok, and what is expected of it.
func (a *Arguments) Check(ok bool, argument, reason string) {
	if ok {
		return
	}
	a.names, a.reasons = append(a.names, argument), append(a.reasons, reason)
}

// Empty is true where nothing is wrong.
func (a *Arguments) Empty() bool { return len(a.names) == 0 }

// Arguments returns the error of a call with these arguments, and nil where
// nothing is wrong. A single one is as with Argument.
func (m Maker) Arguments(op, name string, a Arguments) error {
	switch len(a.names) {
	case 0:
		return nil
	case 1:
		return m.Argument(op, name, a.names[0], a.reasons[0])
	}
	all := make([]string, len(a.names))
	for i := range all {
		all[i] = a.names[i] + " " + a.reasons[i]
	}
	return m.Argument(op, name, strings.Join(a.names, ", "), strings.Join(all, "; "))
}

// All are the arguments that are not ok, each with what is expected of it.
func (a *Arguments) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := range a.names {
			if !yield(a.names[i], a.reasons[i]) {
				return
			}
		}
	}
}
