package cli

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write testdata/help.txt")

// The help is read at 3 a.m.: whoever changes it reads it whole, in testdata/help.txt.
// go test -run TestHelp ./internal/cli -update writes it.
func TestHelp_IsTheFileThatIsReviewed(t *testing.T) {
	var all bytes.Buffer
	var walk func(c *cobra.Command, args []string)
	walk = func(c *cobra.Command, args []string) {
		all.WriteString("=== madcrow " + strings.Join(args, " ") + "\n")
		if code := Main(t.Context(), append(args, "--help"), &all, &all); code != exitOK {
			t.Errorf("%s: exit code %d", args, code)
		}
		if text := c.Long; !strings.Contains(text, "Exit codes:") && c.Name() != "version" {
			t.Errorf("%s: the exit codes are missing", args)
		}
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				walk(sub, append(args[:len(args):len(args)], sub.Name()))
			}
		}
	}
	walk(newRoot(), nil)
	for i, line := range strings.Split(all.String(), "\n") {
		if n := len([]rune(line)); n > 80 && !strings.HasPrefix(line, "      --") && !strings.HasPrefix(line, "  -") && !strings.HasPrefix(line, "  madcrow") && !strings.HasPrefix(line, "  MADCROW") {
			t.Errorf("line %d has %d signs: %s", i+1, n, line)
		}
	}
	const file = "testdata/help.txt"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, all.Bytes(), 0o644); err != nil { //nolint:gosec // a text for everybody
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || all.String() != string(want) {
		t.Errorf("the help is another than in %s (-update writes it): %v\n%s", file, err, firstDifference(all.String(), string(want)))
	}
}

func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return "+ " + a[i] + "\n- " + strings.Join(b[min(i, len(b)):min(i+1, len(b))], "")
		}
	}
	return "it ends before"
}
