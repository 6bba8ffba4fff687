package madcrow_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that the page names as its proof exists.
func TestWhenRedisFails_NamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("docs/when-redis-fails.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	err = filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
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
	names := regexp.MustCompile("`(Test[A-Za-z0-9_]+)").FindAllStringSubmatch(string(page), -1)
	for _, n := range names {
		if !strings.Contains(tests.String(), "func "+n[1]+"(") {
			t.Errorf("there is no %s", n[1])
		}
	}
	if len(names) < 40 {
		t.Errorf("%d tests are named", len(names))
	}
}
