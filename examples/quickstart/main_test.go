package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestQuickstart_IsTheProgramOfTheReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "```go\n")
	block, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatal("the README has no Go block")
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(program) != block {
		t.Errorf("main.go is not the README's program:\n%s", block)
	}
}

func TestQuickstart_Runs(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "quickstart")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(env ...string) (string, error) {
		cmd := exec.Command(binary)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const once = "loading\n{Lamp 4900} <nil>\n{Lamp 4900} <nil>\n"
	s := madcrowtest.StartRedis(t)
	redis := []string{"REDIS_HOST=127.0.0.1", "REDIS_PORT=" + strconv.Itoa(s.Port())}
	if out, err := run(redis...); err != nil || out != once {
		t.Errorf("with a Redis: %v, %q", err, out)
	}
	if out, err := run(redis...); err != nil || out != strings.TrimPrefix(once, "loading\n") {
		t.Errorf("another process with the same Redis: %v, %q", err, out)
	}
	s.Stop()
	if out, err := run(redis...); err != nil || !strings.HasSuffix(out, once) {
		t.Errorf("without a Redis: %v, %q", err, out)
	}
	if out, err := run("REDIS_PORT=99999"); err == nil || !strings.Contains(out, "REDIS_PORT") {
		t.Errorf("with a wrong setting: %v, %q", err, out)
	}
}
