package madcrow_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The Go of the guide is that of programs which compile and are tested: each
// part of a block, between its empty lines, is found in one of their files.
func TestGuide_TheGoOfItIsOfProgramsThatRun(t *testing.T) {
	page, err := os.ReadFile("docs/from-fastapi.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := holdToPrograms(t, string(page))
	python := strings.Count(string(page), "```python\n")
	if blocks < 15 || python < 10 {
		t.Errorf("%d blocks of Go and %d of Python", blocks, python)
	}
	// What it links to is there.
	prose := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(string(page), "")
	for _, link := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(prose, -1) {
		if _, err := os.Stat(filepath.Join("docs", link[1])); err != nil {
			t.Error(err)
		}
	}
	for _, link := range regexp.MustCompile(`\]\(#([^)]+)`).FindAllStringSubmatch(prose, -1) {
		found := false
		for _, title := range regexp.MustCompile(`(?m)^## (.*)`).FindAllStringSubmatch(string(page), -1) {
			anchor := strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(title[1]))
			found = found || anchor == link[1]
		}
		if !found {
			t.Errorf("there is no part #%s", link[1])
		}
	}
}

// So is that of the tutorial, which is examples/shop.
func TestTutorial_TheGoOfItIsOfAProgramThatRuns(t *testing.T) {
	page, err := os.ReadFile("docs/tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	if blocks := holdToPrograms(t, string(page)); blocks < 20 {
		t.Errorf("%d blocks of Go", blocks)
	}
}

// holdToPrograms looks for the Go of a page in the programs, and returns the number
// of its blocks.
func holdToPrograms(t *testing.T, page string) int {
	t.Helper()
	var programs strings.Builder
	for _, dir := range []string{"examples", "bench/lines"} {
		err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(file, ".go") {
				var text []byte
				text, err = os.ReadFile(file)
				programs.WriteString(flat(string(text)) + "\n\n")
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(page, -1)
	for _, b := range blocks {
		for part := range strings.SplitSeq(strings.TrimSpace(b[1]), "\n\n") {
			if !strings.Contains(programs.String(), "\n"+flat(part)+"\n") {
				t.Errorf("no program has\n%s", part)
			}
		}
	}
	return len(blocks)
}

// Each program is in the list of the examples, with a test that exists.
func TestExamples_AreListedWithTheirTests(t *testing.T) {
	list, err := os.ReadFile("examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("examples")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, entry := range entries {
		name := entry.Name()
		if !entry.IsDir() || name == "internal" {
			continue
		}
		seen++
		if !strings.Contains(string(list), "["+name+"]("+name+"/") {
			t.Errorf("%s is not listed", name)
		}
		for _, row := range regexp.MustCompile(`(?m)^\| \[`+name+`\].*`).FindAllString(string(list), -1) {
			for _, test := range regexp.MustCompile("`(Test[A-Za-z0-9_]+)").FindAllStringSubmatch(row, -1) {
				if !declares(t, filepath.Join("examples", name), test[1]) {
					t.Errorf("%s: there is no %s", name, test[1])
				}
			}
		}
	}
	if seen < 14 {
		t.Errorf("only %d programs were looked at", seen)
	}
}

// declares says whether a test of a folder has a function of that name.
func declares(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "func "+name+"(") {
			return true
		}
	}
	return false
}

// flat is text without its indentation.
func flat(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, "\n")
}
