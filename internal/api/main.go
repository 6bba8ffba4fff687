// Command api writes down what the packages of this repository export, one file
// a package in the folder api, and says what a change adds and what it breaks.
//
//	go run ./internal/api           writes the snapshot, prints its counts
//	go run ./internal/api -check    prints what the snapshot lacks; exit 1
//
// It reads the syntax alone, so that it takes less than a second and works on a
// tree that does not compile. Where a declaration names no type, as in
// var X = f(), the snapshot has none either.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

func main() {
	root := flag.String("root", ".", "the folder of the repository")
	check := flag.Bool("check", false, "write nothing; exit with 1 where the snapshot is not current")
	flag.Parse()
	current, err := run(*root, *check, os.Stdout)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(2)
	case *check && !current:
		fmt.Fprintln(os.Stderr, "api: the snapshot is not current: run make api, and commit the folder api")
		os.Exit(1)
	}
}

// run compares the snapshot below root with the code, and writes it unless it only
// checks.
func run(root string, check bool, out io.Writer) (current bool, err error) {
	packages, err := list(root)
	if err != nil {
		return false, err
	}
	stored, err := read(filepath.Join(root, "api"))
	if err != nil {
		return false, err
	}
	changes := compare(stored, packages)
	for _, c := range changes {
		fmt.Fprintln(out, c)
	}
	if check {
		return len(changes) == 0, nil
	}
	if err := write(filepath.Join(root, "api"), packages); err != nil {
		return false, err
	}
	counts(out, packages)
	return true, nil
}

// file is the name of a package's snapshot: contrib-codec.txt.
func file(pkg string) string {
	return strings.ReplaceAll(pkg, "/", "-") + ".txt"
}

// read returns the stored snapshot, by file. No folder is an empty snapshot.
func read(dir string) (map[string][]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	stored := map[string][]string{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		stored[filepath.Base(name)] = strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' || r == '\r' })
	}
	return stored, nil
}

func write(dir string, packages map[string][]string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for pkg, lines := range packages {
		if err := os.WriteFile(filepath.Join(dir, file(pkg)), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// counts prints how many names each package exports.
func counts(out io.Writer, packages map[string][]string) {
	kinds := []string{"type", "func", "method", "field", "const", "var"}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\tnames\t%s\t\n", "package", strings.Join(kinds, "\t"))
	sum := map[string]int{}
	row := func(name string, n map[string]int) {
		all := 0
		for _, k := range kinds {
			all += n[k]
		}
		fmt.Fprintf(w, "%s\t%d\t", name, all)
		for _, k := range kinds {
			fmt.Fprintf(w, "%d\t", n[k])
		}
		fmt.Fprintln(w)
	}
	var names []string
	for pkg := range packages {
		names = append(names, pkg)
	}
	slices.Sort(names)
	for _, pkg := range names {
		n := map[string]int{}
		for _, line := range packages[pkg] {
			kind, _, _ := strings.Cut(line, " ")
			n[kind]++
			sum[kind]++
		}
		row(pkg, n)
	}
	row("all", sum)
	w.Flush()
}
