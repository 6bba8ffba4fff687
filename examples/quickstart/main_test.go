package main

import (
	"bytes"
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
	run := func(env ...string) (out, log string, err error) {
		cmd := exec.Command(binary)
		var printed, logged bytes.Buffer
		cmd.Env, cmd.Stdout, cmd.Stderr = env, &printed, &logged
		err = cmd.Run()
		return printed.String(), logged.String(), err
	}
	const once = "loading\n{Lamp 4900} <nil>\n{Lamp 4900} <nil>\n"
	s := madcrowtest.StartRedis(t)
	redis := []string{"REDIS_HOST=127.0.0.1", "REDIS_PORT=" + strconv.Itoa(s.Port())}
	if out, log, err := run(redis...); err != nil || out != once || !strings.Contains(log, "redis is connected") {
		t.Errorf("with a Redis: %v, %q %q", err, out, log)
	}
	if out, _, err := run(redis...); err != nil || out != strings.TrimPrefix(once, "loading\n") {
		t.Errorf("another process with the same Redis: %v, %q", err, out)
	}
	s.Stop()
	if out, log, err := run(redis...); err != nil || out != once || !strings.Contains(log, "connection refused") {
		t.Errorf("without a Redis: %v, %q %q", err, out, log)
	}
	if _, log, err := run("REDIS_PORT=99999"); err == nil || !strings.Contains(log, "REDIS_PORT") {
		t.Errorf("with a wrong setting: %v, %q", err, log)
	}
}
