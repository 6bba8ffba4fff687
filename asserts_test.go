package madcrow_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// testsWithoutAssertion are tests that a reader has to finish. The list only
// shrinks.
var testsWithoutAssertion = []string{}

// A test that cannot fail proves nothing. Each calls t.Error or its like, or a
// helper of its package, of internal/testkit or of madcrowtest that does.
func TestTests_AllAssert(t *testing.T) {
	dirs := map[string]*testFuncs{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != "." {
			return fs.SkipDir
		}
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(filepath.ToSlash(file), "internal/conformance/") && strings.HasSuffix(file, ".go") {
			dir := filepath.ToSlash(filepath.Dir(file))
			if dirs[dir] == nil {
				dirs[dir] = &testFuncs{bodies: map[string][]*ast.FuncDecl{}}
			}
			return dirs[dir].add(file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		for _, name := range dirs[dir].without() {
			found = append(found, name)
			if !slices.Contains(testsWithoutAssertion, name) {
				t.Errorf("%s: %s asserts nothing", dir, name)
			}
		}
	}
	for _, test := range testsWithoutAssertion {
		if !slices.Contains(found, test) {
			t.Logf("%s asserts now, or is gone: take it out of the list", test)
		}
	}
}

// testFuncs are the functions of the tests of one directory, methods among them.
type testFuncs struct {
	tests  []*ast.FuncDecl
	bodies map[string][]*ast.FuncDecl // by name
}

func (fs *testFuncs) add(file string) error {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, d := range f.Decls {
		fn, is := d.(*ast.FuncDecl)
		if !is || fn.Body == nil {
			continue
		}
		name := fn.Name.Name
		fs.bodies[name] = append(fs.bodies[name], fn)
		if fn.Recv == nil && regexp.MustCompile(`^Test[A-Z_]`).MatchString(name) && name != "TestMain" {
			fs.tests = append(fs.tests, fn)
		}
	}
	return nil
}

// without returns the tests that assert nothing.
func (fs *testFuncs) without() (names []string) {
	for _, test := range fs.tests {
		if !fs.asserts(test.Body, map[string]bool{}) {
			names = append(names, test.Name.Name)
		}
	}
	return names
}

var failing = []string{"Error", "Errorf", "Fatal", "Fatalf", "Fail", "FailNow"}

// kits are helpers of other packages that fail a test.
var kits = []string{
	"testkit.Eventually", "testkit.EventuallyWithin", "testkit.Within", "testkit.NoError", "madcrowtest.CheckLeaks",
	"program.Faults", "program.Wait", "conformance.Run",
}

// asserts says whether a body calls what can fail the test. A helper with
// results is a set-up, unless its name says that it checks: that a server
// starts is not what a test is for.
func (fs *testFuncs) asserts(body *ast.BlockStmt, seen map[string]bool) (yes bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		call, is := n.(*ast.CallExpr)
		if !is || yes {
			return !yes
		}
		name := ""
		switch fn := call.Fun.(type) {
		case *ast.Ident:
			name = fn.Name
			yes = yes || name == "Run" || name == "CarriedRun" // of internal/conformance
		case *ast.IndexExpr:
			if id, is := fn.X.(*ast.Ident); is {
				name = id.Name
			}
		case *ast.SelectorExpr:
			name = fn.Sel.Name
			x, is := fn.X.(*ast.Ident)
			if is && slices.Contains(kits, x.Name+"."+name) || slices.Contains(failing, name) && isTest(fn.X) {
				yes = true
			}
		}
		if !yes && name != "" && !seen[name] {
			seen[name] = true
			for _, helper := range fs.bodies[name] {
				if checks(helper) && fs.asserts(helper.Body, seen) {
					yes = true
				}
			}
		}
		return !yes
	})
	return yes
}

var checking = regexp.MustCompile(`(?i)^(must|want|check|expect|assert|await|wait|verify|same|equal|all|tells|hears|sees|shows)`)

func checks(helper *ast.FuncDecl) bool {
	return helper.Type.Results == nil || checking.MatchString(helper.Name.Name)
}

// isTest says whether an expression is a test by its name: t, b, tb, c.t.
func isTest(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return slices.Contains([]string{"t", "b", "tb", "f"}, x.Name)
	case *ast.SelectorExpr:
		return slices.Contains([]string{"t", "b", "tb", "TB", "T"}, x.Sel.Name)
	}
	return false
}
