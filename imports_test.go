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

// imports says what each package may import of this module. A feature package
// imports another one only where this table says so; what two share moves to
// internal/, to a leaf, or to the core. The layers of the core import
// downwards only.
var imports = map[string][]string{
	".":           {"problem", "internal/..."},
	"cache":       {".", "problem", "internal/..."},
	"carry":       {"problem"},
	"clientip":    {"problem"},
	"health":      {".", "problem", "internal/..."},
	"httpcache":   {".", "cache", "problem", "internal/..."},
	"inject":      {".", "problem"},
	"madcrowtest": {".", "internal/..."},
	"problem":     {"internal/httpwriter"},
	"pubsub":      {".", "problem", "internal/..."},
	"ratelimit":   {".", "clientip", "problem", "internal/..."},
	"semaphore":   {".", "problem", "internal/..."},
	"service":     {".", "problem", "pubsub", "internal/..."},
	"session":     {".", "clientip", "problem", "internal/..."},
	"sse":         {".", "problem", "pubsub", "internal/..."},
	"stream":      {".", "problem", "internal/..."},

	// The engine: each layer uses those above it in this list, and none knows the root.
	"internal/settings":     {"internal/envvalue", "internal/typo"},
	"internal/reread":       {"internal/settings", "internal/fault", "internal/guard"},
	"internal/fault":        {"internal/logonce"},
	"internal/availability": {"internal/fault"},
	"internal/deadline":     {"internal/clock"},
	"internal/conn":         {"internal/availability", "internal/fault", "internal/clock", "internal/logonce", "internal/resp"},
	"internal/node":         {"internal/unblock", "internal/conn", "internal/availability", "internal/fault", "internal/clock", "internal/guard", "internal/logonce"},
	"internal/topology":     {"internal/node", "internal/conn", "internal/availability", "internal/fault", "internal/clock", "internal/deadline", "internal/logonce", "internal/resp"},

	// Leaves, which use the standard library alone.
	"internal/clock":     {},
	"internal/envvalue":  {},
	"internal/exactjson": {},
	"internal/guard":     {},
	"internal/logonce":   {},
	"internal/memsize":   {},
	"internal/resp":      {},
	"internal/typo":      {},
	"internal/testkit":   {},
	"internal/unblock":   {},

	"internal/codec":       {"internal/exactjson", "internal/guard"},
	"internal/conformance": {".", "cache", "httpcache", "health", "inject", "madcrowtest", "problem", "ratelimit", "service", "session", "internal/..."},
	"internal/operr":       {".", "problem"},

	"madcrowtest/sessiontest": {".", "session"},
}

// sharing are the mechanisms that packages share. They may use the core, and
// each other, and no feature package.
var sharing = []string{"."}

// layers are the engine's, which the root alone imports: a feature package reaches
// Redis through the core.
var layers = []string{
	"internal/settings", "internal/reread", "internal/fault", "internal/availability", "internal/conn", "internal/node", "internal/topology",
}

// thirdParty are the only modules that the library itself may import.
var thirdParty = []string{"github.com/redis/rueidis", "github.com/maypok86/otter/v2"}

func TestImports_PackagesImportOnlyWhatTheyMay(t *testing.T) {
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
		pkg := filepath.ToSlash(filepath.Dir(file))
		base := path.Base(pkg)
		if slices.Contains([]string{"util", "utils", "common", "helpers", "types"}, base) {
			t.Errorf("%s: no package is called %s", file, base)
		}
		checkImports(t, file, pkg)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkImports(t *testing.T, file, pkg string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	allowed, known := imports[pkg]
	if !known && strings.HasPrefix(pkg, "internal/") {
		allowed, known = append([]string{"internal/..."}, sharing...), true
	}
	if !known {
		t.Errorf("%s: the package %s is not in the table of this test", file, pkg)
	}
	for _, spec := range f.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		if rest, ours := strings.CutPrefix(name, modulePath); ours {
			to := strings.TrimPrefix(rest, "/")
			if to == "" {
				to = "."
			}
			internal := strings.HasPrefix(to, "internal/") && slices.Contains(allowed, "internal/...") &&
				(pkg == "." || !slices.Contains(layers, to))
			if !slices.Contains(allowed, to) && !internal {
				t.Errorf("%s: %s may not import %s", file, pkg, to)
			}
		} else if first, _, _ := strings.Cut(name, "/"); strings.Contains(first, ".") {
			if !slices.ContainsFunc(thirdParty, func(m string) bool { return name == m || strings.HasPrefix(name, m+"/") }) {
				t.Errorf("%s: the library may not import %s", file, name)
			}
		}
	}
}
