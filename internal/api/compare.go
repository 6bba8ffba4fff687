package main

import (
	"fmt"
	"slices"
	"strings"
)

// change is one difference between the snapshot and the code.
type change struct {
	file     string
	line     string
	added    bool
	breaking bool
}

func (c change) String() string {
	sign, mark := "-", ""
	if c.added {
		sign = "+"
	}
	if c.breaking {
		mark = "  BREAKING"
	}
	return fmt.Sprintf("%s %s: %s%s", sign, c.file, c.line, mark)
}

// compare says what the code has that the snapshot lacks, and the other way round.
// What is gone or changed breaks users; so does a method more in an interface that
// they may implement.
func compare(stored, packages map[string][]string) (changes []change) {
	current := map[string][]string{}
	for pkg, lines := range packages {
		current[file(pkg)] = lines
	}
	for name, lines := range stored {
		for _, line := range lines {
			if !slices.Contains(current[name], line) {
				changes = append(changes, change{file: name, line: line, breaking: true})
			}
		}
	}
	for name, lines := range current {
		for _, line := range lines {
			if !slices.Contains(stored[name], line) {
				changes = append(changes, change{file: name, line: line, added: true, breaking: implemented(stored[name], line)})
			}
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		return strings.Compare(a.file+a.line+a.String(), b.file+b.line+b.String())
	})
	return changes
}

// implemented says whether a line is a method of an interface that is stored, and
// that other packages may implement.
func implemented(stored []string, line string) bool {
	owner, _, _ := strings.Cut(strings.TrimPrefix(line, "method "), ".")
	if !strings.HasPrefix(line, "method ") || strings.HasPrefix(owner, "(") {
		return false
	}
	return slices.ContainsFunc(stored, func(s string) bool {
		rest, is := strings.CutPrefix(s, "type "+owner)
		return is && (rest == " interface" || strings.HasPrefix(rest, "[") && strings.HasSuffix(rest, "] interface"))
	})
}
