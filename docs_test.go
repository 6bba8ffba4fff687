package madcrow_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that a page names as its proof exists.
func TestDocs_NameTestsThatExist(t *testing.T) {
	var tests strings.Builder
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(file, "_test.go") {
			var text []byte
			text, err = os.ReadFile(file)
			tests.Write(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := filepath.Glob("docs/adr/*.md")
	if err != nil || len(decisions) < 10 {
		t.Fatalf("%d decisions, %v", len(decisions), err)
	}
	proven := map[string]int{"when-redis-fails": 40, "sessions": 25, "pubsub": 12, "streams": 8, "sse": 6, "health": 8}
	for _, file := range decisions {
		proven[strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(file), "docs/"), ".md")] = 0
	}
	for file, least := range proven {
		page, err := os.ReadFile("docs/" + file + ".md")
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile("`(Test[A-Za-z0-9_]+)").FindAllStringSubmatch(string(page), -1)
		for _, n := range names {
			fn := "func " + n[1]
			if !strings.HasSuffix(n[1], "_") { // otherwise a family: TestTopic_*
				fn += "("
			}
			if !strings.Contains(tests.String(), fn) {
				t.Errorf("%s: there is no %s", file, n[1])
			}
		}
		if len(names) < least {
			t.Errorf("%s: %d tests are named", file, len(names))
		}
	}
}

// A newcomer opens the file that a page names: each file and folder is there.
func TestDocs_NameFilesThatExist(t *testing.T) {
	for page, least := range map[string]int{"CONTRIBUTING.md": 40, "docs/architecture.md": 20} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile("`((?:[a-z_]+/)*(?:[a-z_]+\\.go|[a-z_]+/[a-z_]+))`").FindAllStringSubmatch(string(text), -1)
		for _, n := range names {
			if _, err := os.Stat(n[1]); err != nil && n[1] != "testing/synctest" {
				t.Errorf("%s: %v", page, err)
			}
		}
		if len(names) < least {
			t.Errorf("%s: %d files are named", page, len(names))
		}
	}
}

// A sentence can be read without the names of tests: they stand in the tables'
// column and in footnotes.
func TestDocs_TestsAreNamedInTablesAndFootnotesOnly(t *testing.T) {
	notes := 0
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		prose := regexp.MustCompile("(?ms)^```.*?^```").ReplaceAllString(string(text), "")
		for line := range strings.Lines(prose) {
			if strings.HasPrefix(line, "[^") {
				notes++
			} else if name := regexp.MustCompile("`Test[A-Z][A-Za-z0-9_*/]+`").FindString(line); name != "" && !strings.HasPrefix(line, "|") {
				t.Errorf("%s: %s stands in a sentence: make it a footnote", page, name)
			}
		}
	}
	if notes < 40 {
		t.Errorf("%d footnotes were found", notes)
	}
}

// pages are the README and all pages below docs.
func pages(t *testing.T) []string {
	t.Helper()
	pages := []string{"README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/adr/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil || len(more) == 0 {
			t.Fatalf("%s: %v, %v", pattern, more, err)
		}
		pages = append(pages, more...)
	}
	return pages
}

// What a page links to is there, and the index names every page.
func TestDocs_LinksLeadSomewhere(t *testing.T) {
	links := 0
	for _, page := range append(pages(t), "CONTRIBUTING.md", "SECURITY.md", "examples/README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		prose := regexp.MustCompile("(?ms)^```.*?^```").ReplaceAllString(string(text), "")
		for _, link := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(prose, -1) {
			links++
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), link[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
	if links < 100 {
		t.Errorf("only %d links were found", links)
	}
	index, err := os.ReadFile("docs/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages(t) {
		name, is := strings.CutPrefix(filepath.ToSlash(page), "docs/")
		if is && !strings.Contains(name, "/") && name != "README.md" && !strings.Contains(string(index), "("+name+")") {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
}
