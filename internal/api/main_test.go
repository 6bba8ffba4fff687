package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const before = `package shop

import "errors"

type Options struct {
	base
	Name string
	hidden int
	Next func(id string, n int) (found bool, err error)
}

type base struct{ TTL int }

func (base) Close() {}

type Cache[K comparable, V any] struct{ n int }

func (c *Cache[K, V]) Get(key K) (v V, ok bool) { return }

func (c *Cache[K, V]) drop() {}

type Kind uint8

const (
	A Kind = iota
	B
	c
)

const Most = 64

var ErrX = errors.New("x")

type Store interface {
	Find(id string) error
}

type Option interface{ apply() }

func New[T any](name string, more ...string) *Options { return nil }
`

const names = `const A Kind
const B Kind
const Most = 64
field Options.Name string
field Options.Next func(string, int) (bool, error)
field Options.TTL int
func New[T any](string, ...string) *Options
method (*Cache).Get(K) (V, bool)
method (Options).Close()
method Store.Find(string) error
type Cache[K comparable, V any] struct
type Kind uint8
type Option interface, sealed
type Options struct
type Store interface
var ErrX error
`

func put(t *testing.T, root, file, text string) {
	t.Helper()
	file = filepath.Join(root, file)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestAPI_ListsEveryExportedNameWithItsSignature(t *testing.T) {
	root := t.TempDir()
	put(t, root, "shop/shop.go", before)
	put(t, root, "shop/internal/x/x.go", "package x\n\ntype Hidden int\n")
	put(t, root, "shop/shop_test.go", "package shop\n\ntype Tested int\n")
	put(t, root, "cmd/x/main.go", "package main\n\ntype Program int\n")
	var out bytes.Buffer
	if _, err := run(root, false, &out); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, "api/shop.txt"))
	if err != nil || string(got) != names {
		t.Errorf("%v\n%s", err, got)
	}
	if files, _ := filepath.Glob(filepath.Join(root, "api/*")); len(files) != 1 {
		t.Errorf("%v", files)
	}
	if current, err := run(root, true, &out); !current || err != nil {
		t.Errorf("not current after it was written: %v\n%s", err, out.String())
	}
}

func TestAPI_SaysWhatAChangeAddsAndBreaks(t *testing.T) {
	root := t.TempDir()
	put(t, root, "shop/shop.go", before)
	if _, err := run(root, false, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	after := strings.NewReplacer(
		"Name string", "Name string\n\tMore bool",
		"Find(id string) error", "Find(id string) error\n\tDrop()",
		"interface{ apply() }", "interface{ apply(); Name() string }",
		"Get(key K) (v V, ok bool)", "Get(k K) (value V, found bool)", // names only
		"const Most = 64", "const Most = 65",
		"TTL int", "",
	).Replace(before)
	put(t, root, "shop/shop.go", after)
	var out bytes.Buffer
	current, err := run(root, true, &out)
	want := `- shop.txt: const Most = 64  BREAKING
+ shop.txt: const Most = 65
+ shop.txt: field Options.More bool
- shop.txt: field Options.TTL int  BREAKING
+ shop.txt: method Option.Name() string
+ shop.txt: method Store.Drop()  BREAKING
`
	if current || err != nil || out.String() != want {
		t.Errorf("%v, %v\n%s", current, err, out.String())
	}
	if err := os.Remove(filepath.Join(root, "shop/shop.go")); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if _, err := run(root, true, &out); err != nil || strings.Count(out.String(), "BREAKING") != strings.Count(names, "\n") {
		t.Errorf("a package that is gone: %v\n%s", err, out.String())
	}
}

func TestSnapshot_IsCurrent(t *testing.T) {
	var out bytes.Buffer
	current, err := run("../..", true, &out)
	if err != nil {
		t.Fatal(err)
	}
	if !current {
		t.Errorf("the exported names are others than those of the folder api: run make api, and commit it\n%s", out.String())
	}
}
