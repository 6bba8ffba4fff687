package madcrow_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/madcrow-go/madcrow"

// rooms says which other packages of this module each room may import. A
// feature room never imports another one: what they share moves to internal/,
// to a leaf or to the waist.
var rooms = map[string][]string{
	".":           {"problem"},
	"cache":       {".", "problem"},
	"carry":       {"problem"},
	"clientip":    {"problem"},
	"httpcache":   {".", "cache", "problem"},
	"problem":     {},
	"pubsub":      {".", "problem"},
	"ratelimit":   {".", "problem", "clientip"},
	"service":     {".", "problem", "ratelimit", "pubsub"},
	"session":     {".", "problem", "clientip"},
	"health":      {".", "problem"},
	"inject":      {".", "problem", "service"},
	"madcrowtest": {"."},

	"internal/conformance": {".", "cache", "clientip", "health", "httpcache", "inject", "madcrowtest", "problem", "ratelimit", "service", "session"},
	"internal/limitscript": {"."},
	"internal/operr":       {".", "problem"},
}

// thirdParty are the only modules that the library itself may import.
var thirdParty = []string{"github.com/redis/rueidis", "github.com/maypok86/otter/v2"}

func TestRooms_ImportOnlyWhatTheyMay(t *testing.T) {
	nested := []string{"bench", "cmd", "contrib", "examples", "tools"}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (slices.Contains(nested, file) || strings.HasPrefix(file, ".") && file != ".") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		room := filepath.ToSlash(filepath.Dir(file))
		base := path.Base(room)
		if slices.Contains([]string{"util", "utils", "common", "helpers", "types"}, base) {
			t.Errorf("%s: no package is called %s", file, base)
		}
		checkImports(t, file, room)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkImports(t *testing.T, file, room string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	allowed, known := rooms[room]
	if !known && !strings.HasPrefix(room, "internal") {
		t.Errorf("%s: the room %s is not in the table of this test", file, room)
	}
	for _, spec := range f.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		if rest, ours := strings.CutPrefix(name, modulePath); ours {
			to := strings.TrimPrefix(rest, "/")
			if to == "" {
				to = "."
			}
			if !slices.Contains(allowed, to) && !strings.HasPrefix(to, "internal/") {
				t.Errorf("%s: %s may not import %s", file, room, to)
			}
		} else if first, _, _ := strings.Cut(name, "/"); strings.Contains(first, ".") {
			if !slices.ContainsFunc(thirdParty, func(m string) bool { return name == m || strings.HasPrefix(name, m+"/") }) {
				t.Errorf("%s: the library may not import %s", file, name)
			}
		}
	}
}
