// Package program runs the program of the folder that a test is in, the real
// one, and asks it over HTTP.
package program

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/madcrowtest"
)

// Longest is what no answer may take: the command timeout and much slack.
const Longest = 2 * time.Second

// Program is one that runs.
type Program struct {
	// URL is where it listens.
	URL string

	mu  sync.Mutex
	log strings.Builder
}

// Build builds it.
func Build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// Start runs it as in production: it is connected when it listens. Without a server it
// runs as in development, with no Redis named. At the end of the test it must end by
// itself after SIGTERM.
func Start(t *testing.T, binary string, s *madcrowtest.Server, env ...string) *Program {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Env = []string{"ADDR=127.0.0.1:0"}
	if s != nil {
		cmd.Env = append(cmd.Env, "DEPLOY_ENV=PRODUCTION", "REDIS_HOST=127.0.0.1", "REDIS_PORT="+strconv.Itoa(s.Port()))
	}
	cmd.Env = append(cmd.Env, env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Program{}
	lines := bufio.NewScanner(stderr)
	for p.URL == "" && lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), "listening on "); ok {
			p.URL = strings.Trim(rest, `"`)
		}
	}
	done := make(chan struct{})
	go func() { // or it would stand still with a full pipe
		defer close(done)
		for lines.Scan() {
			p.mu.Lock()
			p.log.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(15*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		<-done
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
	if p.URL == "" {
		t.Fatal("it ended")
	}
	return p
}

// Log is what it has logged since it listens.
func (p *Program) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Answer is what it answered.
type Answer struct {
	Status int
	Header http.Header
	Text   string
	body   any
}

// Member is a member of the JSON, as text: "services.redis".
func (a Answer) Member(path string) string {
	v := a.body
	for name := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	if s, ok := v.(string); ok {
		return s
	}
	text, _ := json.Marshal(v)
	return string(text)
}

// Ask sends a request; a body is a form.
func (p *Program) Ask(t *testing.T, method, path, body string) Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	begin := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > Longest {
		t.Errorf("%s %s took %v", method, path, took)
	}
	a := Answer{Status: res.StatusCode, Header: res.Header, Text: string(text)}
	if err := json.Unmarshal(text, &a.body); err != nil {
		t.Errorf("%s %s: %d %s: %v", method, path, a.Status, text, err)
	}
	if a.Status == http.StatusServiceUnavailable && a.Header.Get("Retry-After") == "" {
		t.Errorf("%s %s: 503 without Retry-After", method, path)
	}
	return a
}

// Want asks and compares; members are names and values in turn.
func (p *Program) Want(t *testing.T, method, path, body string, status int, members ...string) Answer {
	t.Helper()
	a := p.Ask(t, method, path, body)
	if a.Status != status {
		t.Errorf("%s %s: %d, want %d: %s", method, path, a.Status, status, a.Text)
	}
	for i := 0; i < len(members); i += 2 {
		if got := a.Member(members[i]); got != members[i+1] {
			t.Errorf("%s %s: %s is %s, want %s", method, path, members[i], got, members[i+1])
		}
	}
	return a
}

// Eventually asks until the status is the one wanted.
func (p *Program) Eventually(t *testing.T, method, path string, status int) {
	t.Helper()
	Wait(t, func() bool { return p.Ask(t, method, path, "").Status == status })
}

// Wait waits for something to happen.
func Wait(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen within 15 s")
		}
	}
}

// Faults runs while with Redis frozen, then with it dead: away waits until it is
// noticed, and back until it is usable again.
func Faults(t *testing.T, s *madcrowtest.Server, away, while, back func()) {
	t.Helper()
	s.Pause()
	away()
	while()
	s.Resume()
	back()
	s.Kill()
	away()
	while()
	s.Start()
	back()
}
