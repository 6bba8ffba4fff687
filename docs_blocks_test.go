package madcrow_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// blockImports are the packages that blocks of Go may name without importing them.
var blockImports = map[string]string{
	"chi": "github.com/go-chi/chi/v5", "rueidiscompat": "github.com/redis/rueidis/rueidiscompat", "embedded": modulePath + "/contrib/embedded",
	"context": "context", "errors": "errors", "fmt": "fmt", "log": "log", "http": "net/http", "os": "os", "slog": "log/slog", "sql": "database/sql",
	"strings": "strings", "sync": "sync", "testing": "testing", "time": "time", "httptest": "net/http/httptest", "netip": "net/netip",
	"madcrow": modulePath, "sessiontest": modulePath + "/madcrowtest/sessiontest",
}

func init() {
	for dir := range imports {
		if !strings.Contains(dir, "/") && dir != "." {
			blockImports[dir] = modulePath + "/" + dir
		}
	}
}

// blockPrelude is what every block may use. A page adds its own in a comment,
// which readers do not see: <!-- go, the declarations, -->.
const blockPrelude = `
var (
	ctx    context.Context
	r      *madcrow.Redis
	logger *slog.Logger
	mux    *http.ServeMux
	addr   string
	err    error
)
`

// heldElsewhere are the pages whose Go is that of programs, word for word.
var heldElsewhere = []string{"README.md", "docs/from-fastapi.md", "docs/tutorial.md"}

// The Go of each page compiles, with the API as it is.
func TestDocs_EveryBlockOfGoCompiles(t *testing.T) {
	const virtual = "internal/blocks"
	overlay := map[string]string{}
	tmp := t.TempDir()
	blocks := 0
	for _, page := range pages(t) {
		if slices.Contains(heldElsewhere, page) {
			continue
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		prelude := blockPrelude
		for _, own := range regexp.MustCompile("(?s)<!-- go\n(.*?)-->").FindAllStringSubmatch(string(text), -1) {
			prelude += own[1]
		}
		for i, at := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatchIndex(text, -1) {
			blocks++
			line := 1 + strings.Count(string(text[:at[2]]), "\n")
			code, err := blockProgram(string(text[at[2]:at[3]]), prelude, page, line)
			if err != nil {
				t.Errorf("%s:%d: %v", page, line, err)
				continue
			}
			name := fmt.Sprintf("%s_%d", strings.TrimSuffix(filepath.Base(page), ".md"), i)
			file := filepath.Join(tmp, name+".go")
			if err := os.WriteFile(file, []byte(code), 0o644); err != nil {
				t.Fatal(err)
			}
			dir, err := filepath.Abs(filepath.Join("examples", virtual, name))
			if err != nil {
				t.Fatal(err)
			}
			overlay[filepath.Join(dir, "block.go")] = file
		}
	}
	if blocks < 12 {
		t.Fatalf("only %d blocks of Go were found", blocks)
	}
	replace, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(tmp, "overlay.json")
	if err := os.WriteFile(list, replace, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-overlay", list, "./"+virtual+"/...")
	cmd.Dir = "examples"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// blockProgram makes a package of a block: statements go into a function, and a line
// with … alone stands for what deals with err. Errors name the line of the page.
func blockProgram(block, prelude, page string, line int) (string, error) {
	block = regexp.MustCompile(`(?m)^\s*…$`).ReplaceAllString(block, "_ = err")
	if strings.HasPrefix(block, "package ") {
		return block, nil
	}
	absolute, err := filepath.Abs(page)
	if err != nil {
		return "", err
	}
	position := fmt.Sprintf("//line %s:%d\n", absolute, line)
	code, end := "package blocks\n"+prelude+position+block, ""
	f, err := parser.ParseFile(token.NewFileSet(), "", code, parser.SkipObjectResolution)
	if err != nil { // not declarations alone
		// Functions become variables, so that they see what the statements declare.
		body := regexp.MustCompile(`(?m)^func (\w+)\(`).ReplaceAllString(block, "$1 := func(")
		code = "package blocks\n" + prelude + "func _() {\n" + position + body
		f, err = parser.ParseFile(token.NewFileSet(), "", code+"\n}", parser.SkipObjectResolution)
		if err != nil {
			return "", err
		}
		end = uses(f) + "}\n"
	}
	used := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, is := n.(*ast.SelectorExpr); is {
			if x, is := s.X.(*ast.Ident); is && blockImports[x.Name] != "" {
				used[x.Name] = true
			}
		}
		return true
	})
	var header strings.Builder
	for _, name := range slices.Sorted(maps.Keys(used)) {
		fmt.Fprintf(&header, "import %s %q\n", name, blockImports[name])
	}
	return strings.Replace(code, "package blocks\n", "package blocks\n"+header.String(), 1) + end, nil
}

// uses marks the variables that a block declares as used.
func uses(f *ast.File) string {
	var b strings.Builder
	fn := f.Decls[len(f.Decls)-1].(*ast.FuncDecl)
	for _, s := range fn.Body.List {
		if a, is := s.(*ast.AssignStmt); is && a.Tok == token.DEFINE {
			for _, x := range a.Lhs {
				if name := x.(*ast.Ident).Name; name != "_" {
					fmt.Fprintf(&b, "_ = %s\n", name)
				}
			}
		}
	}
	return b.String()
}
