package madcrow_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An adapter only translates: less than 150 lines, comments and all, but for
// the documentation of the package.
func TestAdapters_AreThin(t *testing.T) {
	for _, name := range []string{"gin", "echo"} {
		files, err := filepath.Glob("contrib/" + name + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for _, file := range files {
			if base := filepath.Base(file); base == "doc.go" || strings.HasSuffix(base, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines += bytes.Count(text, []byte("\n"))
			if bytes.Contains(text, []byte("reflect")) && name != "huma" {
				t.Errorf("%s uses reflection", file)
			}
		}
		t.Logf("%s: %d lines", name, lines)
		if lines == 0 || lines >= 150 {
			t.Errorf("contrib/%s has %d lines", name, lines)
		}
	}
}
