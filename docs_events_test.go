package madcrow_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
)

// The table of events has each type once, with its constant and its text.
func TestEvents_AreTheTableOfTheDocumentation(t *testing.T) {
	page, err := os.ReadFile("docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("events.go")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{} // by constant
	for _, m := range regexp.MustCompile(`(?m)^\s+(Event\w+):\s+"([a-z]+\.[a-z_]+)"`).FindAllStringSubmatch(string(code), -1) {
		texts[m[1]] = m[2]
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		m := regexp.MustCompile("^\\| `([a-z_.]+)` \\| `(\\w+)` \\| (.*?) \\|").FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if texts[m[2]] != m[1] {
			t.Errorf("%s is %q, and not %q", m[2], texts[m[2]], m[1])
		}
		if listed[m[2]] || m[3] == "" {
			t.Errorf("%s is listed twice, or without a word", m[2])
		}
		listed[m[2]] = true
	}
	for constant, text := range texts {
		if !listed[constant] {
			t.Errorf("%s (%s) is not in docs/events.md", constant, text)
		}
	}
	if last := madcrow.EventType(len(texts)); last.String() == "none" || (last+1).String() != "none" {
		t.Errorf("%d types were found, and there are more or fewer", len(texts))
	}
}
