package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// programs are the modules that no one imports.
var programs = []string{"bench", "cmd", "examples", "tools"}

// list returns the exported names of each package below root, by its folder; the
// root's is "madcrow".
func list(root string) (map[string][]string, error) {
	packages := map[string][]string{}
	err := filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, dir)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if name == "." {
			name = "madcrow"
		} else if slices.Contains(programs, name) || slices.Contains([]string{"internal", "testdata", "api", "docs"}, d.Name()) || strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		lines, err := exported(dir)
		if len(lines) > 0 {
			packages[name] = lines
		}
		return err
	})
	return packages, err
}

// pkg is what one package declares.
type pkg struct {
	types   map[string]*ast.TypeSpec
	methods map[string][]*ast.FuncDecl // by the type of their receiver
	lines   []string
}

// exported returns the exported names of the package in a folder, sorted. A
// program has none.
func exported(dir string) ([]string, error) {
	p := &pkg{types: map[string]*ast.TypeSpec{}, methods: map[string][]*ast.FuncDecl{}}
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, name := range names {
		match, err := build.Default.MatchFile(dir, filepath.Base(name))
		if err != nil {
			return nil, err
		}
		if !match || strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		if f.Name.Name == "main" {
			return nil, nil
		}
		files = append(files, f)
		p.collect(f)
	}
	for _, f := range files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				p.values(d)
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.IsExported() {
					p.add("func %s%s%s", d.Name.Name, typeParams(d.Type.TypeParams), signature(d.Type))
				}
			}
		}
	}
	for name, spec := range p.types {
		if ast.IsExported(name) {
			p.typ(spec)
		}
	}
	slices.Sort(p.lines)
	return slices.Compact(p.lines), nil
}

func (p *pkg) add(format string, args ...any) {
	p.lines = append(p.lines, fmt.Sprintf(format, args...))
}

// collect finds the types of a file and the methods by their types.
func (p *pkg) collect(f *ast.File) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, is := s.(*ast.TypeSpec); is {
					p.types[s.Name.Name] = s
				}
			}
		case *ast.FuncDecl:
			if d.Recv != nil {
				name := strings.TrimLeft(base(d.Recv.List[0].Type), "*")
				p.methods[name] = append(p.methods[name], d)
			}
		}
	}
}

// values lists constants and variables. A constant without a type or a value
// repeats those above it.
func (p *pkg) values(d *ast.GenDecl) {
	if d.Tok != token.CONST && d.Tok != token.VAR {
		return
	}
	repeated := ""
	for _, s := range d.Specs {
		s := s.(*ast.ValueSpec)
		for i, name := range s.Names {
			typ := ""
			switch {
			case s.Type != nil:
				typ = " " + text(s.Type)
			case i < len(s.Values):
				typ = valueType(d.Tok, s.Values[i])
			case d.Tok == token.CONST:
				typ = repeated
			}
			repeated = typ
			if name.IsExported() {
				p.add("%s %s%s", d.Tok, name.Name, typ)
			}
		}
	}
}

// valueType is the type of a value, as far as the syntax says it. A constant
// without a type is listed with its value.
func valueType(tok token.Token, x ast.Expr) string {
	switch x := x.(type) {
	case *ast.CompositeLit:
		return " " + text(x.Type)
	case *ast.UnaryExpr:
		if lit, is := x.X.(*ast.CompositeLit); is && x.Op == token.AND {
			return " *" + text(lit.Type)
		}
	case *ast.CallExpr:
		if fn := text(x.Fun); fn == "errors.New" || fn == "fmt.Errorf" {
			return " error"
		} else if tok == token.CONST {
			return " " + fn // a conversion
		}
	}
	if tok == token.CONST && !strings.Contains(text(x), "iota") {
		return " = " + text(x)
	}
	return ""
}

// typ lists a type with its fields and methods.
func (p *pkg) typ(s *ast.TypeSpec) {
	name := s.Name.Name
	head := name + typeParams(s.TypeParams)
	switch t := s.Type.(type) {
	case *ast.StructType:
		p.add("type %s struct", head)
		p.fields(name, t)
	case *ast.InterfaceType:
		sealed := ""
		for _, m := range t.Methods.List {
			for _, n := range m.Names {
				if !n.IsExported() {
					sealed = ", sealed"
				}
			}
		}
		p.add("type %s interface%s", head, sealed)
		p.interfaceMethods(name, t)
	default:
		eq := ""
		if s.Assign.IsValid() {
			eq = "= "
		}
		p.add("type %s %s%s", head, eq, text(s.Type))
	}
	p.typeMethods(name, name)
}

func (p *pkg) typeMethods(owner, of string) {
	for _, m := range p.methods[of] {
		if m.Name.IsExported() {
			star := ""
			if _, is := m.Recv.List[0].Type.(*ast.StarExpr); is {
				star = "*"
			}
			p.add("method (%s%s).%s%s", star, owner, m.Name.Name, signature(m.Type))
		}
	}
}

// fields lists the exported fields of a struct. What an unexported struct brings
// in by embedding counts as the owner's.
func (p *pkg) fields(owner string, t *ast.StructType) {
	for _, f := range t.Fields.List {
		for _, n := range f.Names {
			if n.IsExported() {
				p.add("field %s.%s %s", owner, n.Name, text(f.Type))
			}
		}
		if len(f.Names) > 0 {
			continue
		}
		of := strings.TrimLeft(base(f.Type), "*")
		if ast.IsExported(of[strings.LastIndex(of, ".")+1:]) {
			p.add("embed %s %s", owner, text(f.Type))
			continue
		}
		p.typeMethods(owner, of)
		if s := p.types[of]; s != nil {
			if inner, is := s.Type.(*ast.StructType); is {
				p.fields(owner, inner)
			}
		}
	}
}

func (p *pkg) interfaceMethods(owner string, t *ast.InterfaceType) {
	for _, m := range t.Methods.List {
		for _, n := range m.Names {
			if fn, is := m.Type.(*ast.FuncType); is && n.IsExported() {
				p.add("method %s.%s%s", owner, n.Name, signature(fn))
			}
		}
		if len(m.Names) == 0 {
			p.add("embed %s %s", owner, text(m.Type))
		}
	}
}

// base is the name of a type without its type arguments: "*Cache".
func base(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.StarExpr:
		return "*" + base(x.X)
	case *ast.IndexExpr:
		return base(x.X)
	case *ast.IndexListExpr:
		return base(x.X)
	}
	return text(x)
}

func typeParams(l *ast.FieldList) string {
	if l == nil {
		return ""
	}
	var parts []string
	for _, f := range l.List {
		var names []string
		for _, n := range f.Names {
			names = append(names, n.Name)
		}
		parts = append(parts, strings.Join(names, ", ")+" "+text(f.Type))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// signature is parameters and results without their names: renaming one breaks
// no one.
func signature(t *ast.FuncType) string {
	s := "(" + types(t.Params) + ")"
	if results := types(t.Results); strings.Contains(results, ", ") {
		s += " (" + results + ")"
	} else if results != "" {
		s += " " + results
	}
	return s
}

func types(l *ast.FieldList) string {
	if l == nil {
		return ""
	}
	var parts []string
	for _, f := range l.List {
		for range max(1, len(f.Names)) {
			parts = append(parts, text(f.Type))
		}
	}
	return strings.Join(parts, ", ")
}

// text prints an expression on one line; function types without names.
func text(x ast.Expr) string {
	switch x := x.(type) {
	case nil:
		return ""
	case *ast.FuncType:
		return "func" + signature(x)
	case *ast.Ellipsis:
		return "..." + text(x.Elt)
	case *ast.StarExpr:
		return "*" + text(x.X)
	case *ast.ArrayType:
		return "[" + text(x.Len) + "]" + text(x.Elt)
	case *ast.MapType:
		return "map[" + text(x.Key) + "]" + text(x.Value)
	}
	var b bytes.Buffer
	if err := printer.Fprint(&b, token.NewFileSet(), x); err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
