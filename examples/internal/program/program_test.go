package program

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A server without these waits forever for the rest of a body.
func TestPrograms_DoNotWaitForeverForARequest(t *testing.T) {
	servers := 0
	err := filepath.WalkDir("../..", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		for _, kind := range []string{"http.Server{", "fiber.Config{"} {
			if _, settings, ok := strings.Cut(string(text), kind); ok {
				servers++
				for _, setting := range []string{" ReadTimeout:", " IdleTimeout:"} {
					if !strings.Contains(settings, setting) {
						t.Errorf("%s: no%s", file, setting)
					}
				}
			}
		}
		return err
	})
	if err != nil || servers < 4 {
		t.Errorf("%d servers, %v", servers, err)
	}
}
