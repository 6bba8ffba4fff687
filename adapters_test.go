package madcrow_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An adapter only translates: less than 150 lines of Go, which are neither
// blank nor comment nor test. Fiber is not built on net/http, so its adapter has
// the request, the response and the connection of net/http to translate, too, and
// what net/http takes care of by itself: bodies that are not read to their end,
// line breaks in headers, bounds.
func TestAdapters_AreThin(t *testing.T) {
	for _, name := range []string{"gin", "echo", "fiber", "huma", "fx"} {
		files, err := filepath.Glob("contrib/" + name + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		code, all := 0, 0
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				all++
				if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
					code++
				}
			}
			if strings.Contains(string(text), `"reflect"`) && name != "huma" { // when a route is made, there
				t.Errorf("%s uses reflection", file)
			}
		}
		t.Logf("%s: %d lines of code, %d lines", name, code, all)
		most := 150
		switch name {
		case "huma": // it finds the fields of an input by their types
			most = 180
		case "fiber":
			most = 650
		}
		if code == 0 || code >= most {
			t.Errorf("contrib/%s has %d lines of code", name, code)
		}
	}
}
