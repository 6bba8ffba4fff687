package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/examples/internal/program"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

var binary string

// TestMain builds the real program.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "notifications")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "notifications")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, ".").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v\n%s", err, out))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// startRedis is one that keeps what it acknowledged, whatever happens to it.
func startRedis(t *testing.T) *madcrowtest.Server {
	t.Helper()
	return madcrowtest.StartRedis(t, madcrowtest.WithArgs("--appendonly", "yes", "--appendfsync", "always"))
}

// process is one process of the application, on a port of its own.
type process struct {
	t    *testing.T
	env  []string
	url  string
	cmd  *exec.Cmd
	done chan struct{}
}

func startProgram(t *testing.T, redis *madcrowtest.Server) *process {
	t.Helper()
	addr := "127.0.0.1:" + strconv.Itoa(madcrowtest.FreePort(t))
	p := &process{t: t, url: "http://" + addr, env: []string{"ADDR=" + addr, "REDIS_HOST=127.0.0.1", "REDIS_PORT=" + strconv.Itoa(redis.Port()), "REDIS_COMMAND_TIMEOUT=5"}}
	p.start()
	t.Cleanup(p.stop)
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(binary)
	p.cmd.Env = p.env
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	listening := make(chan struct{})
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if strings.Contains(lines.Text(), "listening on ") {
				close(listening)
			}
		}
	}()
	select {
	case <-listening:
	case <-p.done:
		p.t.Fatal("it ended")
	case <-time.After(20 * time.Second):
		p.t.Fatal("it does not listen")
	}
}

// stop ends it as a deployment does.
func (p *process) stop() {
	p.t.Helper()
	if p.cmd.ProcessState != nil {
		return
	}
	begin := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
	if err := p.cmd.Wait(); err != nil || time.Since(begin) > 5*time.Second {
		p.t.Errorf("after SIGTERM: %v, after %v", err, time.Since(begin))
	}
}

// send is a POST, and says whether the message was surely sent.
func (p *process) send(channel, message string) bool {
	p.t.Helper()
	res, err := http.Post(p.url+"/notify/"+channel+"?message="+url.QueryEscape(message), "", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if res.StatusCode != 200 && res.StatusCode != 503 && res.StatusCode != 504 {
		p.t.Fatalf("%s: %d %s", message, res.StatusCode, body)
	}
	return res.StatusCode == 200
}

// mustSend waits for Redis.
func (p *process) mustSend(channel, message string) {
	p.t.Helper()
	program.Wait(p.t, func() bool { return p.send(channel, message) })
}

// browser listens as one does: it comes back by itself, with the id of the last
// event.
type browser struct {
	mu     sync.Mutex
	got    []string // messages
	events []string // the other events
	last   string
}

func openBrowser(t *testing.T, feed string) *browser {
	t.Helper()
	b := &browser{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			b.listen(ctx, feed)
			time.Sleep(50 * time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return b
}

func (b *browser) listen(ctx context.Context, feed string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, feed, nil)
	if err != nil {
		panic(err)
	}
	if b.last != "" {
		req.Header.Set("Last-Event-ID", b.last)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return // no one is there
	}
	defer func() { _ = res.Body.Close() }()
	var event, data string
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			b.last = value
		case "event":
			event = value
		case "data":
			data = value
		case "":
			if data != "" {
				b.take(event, data)
			}
			event, data = "", ""
		}
	}
}

func (b *browser) take(event, data string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n notification
	switch {
	case event != "":
		b.events = append(b.events, event)
	case json.Unmarshal([]byte(data), &n) == nil:
		b.got = append(b.got, n.Message)
	default:
		b.events = append(b.events, "unreadable: "+data)
	}
}

func (b *browser) seen() (messages, events []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.got...), append([]string(nil), b.events...)
}
