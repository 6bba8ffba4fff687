package main

import (
	"bufio"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/examples/internal/program"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// running is the real program, as a process.
type running struct {
	t    *testing.T
	addr string
}

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "data-")
	if err != nil {
		log.Fatal(err)
	}
	binary = filepath.Join(dir, "data")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, ".").CombinedOutput(); err != nil {
		log.Fatalf("%v\n%s", err, out)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func start(t *testing.T, env ...string) *running {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Env = append([]string{"ADDR=127.0.0.1:0"}, env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	addr := ""
	for addr == "" && lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), "listening on "); ok {
			addr = strings.Trim(rest, `"`)
		}
	}
	done := make(chan struct{})
	go func() { // or it would stand still with a full pipe
		defer close(done)
		_, _ = io.Copy(io.Discard, stderr)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-done
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
	if addr == "" {
		t.Fatal("it ended")
	}
	return &running{t, addr}
}

// get returns what the program says of a record; source is the code of a
// problem where there is no record.
func (p *running) get(id string) (data, source string) {
	p.t.Helper()
	return p.do(http.MethodGet, id, "")
}

func (p *running) put(id, data string) {
	p.t.Helper()
	body, err := json.Marshal(map[string]string{"data": data})
	if err != nil {
		p.t.Fatal(err)
	}
	if got, source := p.do(http.MethodPut, id, string(body)); got != data || source != "database" {
		p.t.Errorf("PUT: %q %q", got, source)
	}
}

func (p *running) do(method, id, body string) (data, source string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.addr+"/data/"+id, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	begin := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var out struct{ Data, Source, Code string }
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		p.t.Fatal(err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		p.t.Errorf("%s took %v", method, took)
	}
	if (res.StatusCode == http.StatusOK) != (out.Code == "") {
		p.t.Errorf("%s: %d %s", method, res.StatusCode, out.Code)
	}
	return out.Data, out.Source + out.Code
}

func (p *running) want(id, data, source string) {
	p.t.Helper()
	if d, s := p.get(id); d != data || s != source {
		p.t.Errorf("%s: %q from %q, want %q from %q", id, d, s, data, source)
	}
}

func TestData_IsCachedAndGoesOnWithoutRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	file := filepath.Join(t.TempDir(), "records.db")
	env := []string{"DATABASE=" + file, "DEPLOY_ENV=PRODUCTION", "REDIS_HOST=127.0.0.1", "REDIS_PORT=" + strconv.Itoa(s.Port())}
	one, two := start(t, env...), start(t, env...)

	one.want("1", "the first record", "database")
	one.want("1", "the first record", "cache")
	two.want("1", "the first record", "cache")
	two.put("1", "changed")
	one.want("1", "changed", "database")
	two.want("1", "changed", "cache")
	for range 2 {
		one.want("2", "", "NOT_FOUND")
	}
	one.put("2", "the second")
	two.want("2", "the second", "database")

	// What is changed behind their back shows who answers.
	db, err := openRecords(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := db.store(t.Context(), "1", "behind"); err != nil {
		t.Fatal(err)
	}
	one.want("1", "changed", "cache")

	s.Pause()
	one.want("1", "behind", "database")
	one.want("3", "", "NOT_FOUND")
	one.put("1", "while it was away")
	one.want("1", "while it was away", "database")
	two.want("1", "while it was away", "database")
	s.Resume()
	// The old value is still in Redis, and gone with the removal that waited.
	program.Wait(t, func() bool {
		data, source := two.get("1")
		return data == "while it was away" && source == "cache"
	})
	one.want("1", "while it was away", "cache")

	s.Stop()
	for range 20 {
		one.want("1", "while it was away", "database")
	}
	s.Start()
	program.Wait(t, func() bool {
		data, source := one.get("1")
		return data == "while it was away" && source == "cache"
	})
}

func TestData_StartsWithoutRedis(t *testing.T) {
	port := madcrowtest.FreePort(t)
	p := start(t, "REDIS_HOST=127.0.0.1", "REDIS_PORT="+strconv.Itoa(port)) // records in memory
	for range 2 {
		p.want("1", "the first record", "database")
	}
	p.put("1", "new")
	p.want("1", "new", "database")
	if _, code := p.do(http.MethodPut, "1", `{"date":"oops"}`); code != "VALIDATION_ERROR" {
		t.Errorf("a wrong body: %s", code)
	}
	madcrowtest.StartRedis(t, madcrowtest.WithPort(port))
	program.Wait(t, func() bool {
		data, source := p.get("1")
		return data == "new" && source == "cache"
	})
}

func TestData_AWrongSettingIsNamed(t *testing.T) {
	t.Setenv("REDIS_PORT", "99999")
	if err := run(t.Context(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "REDIS_PORT") {
		t.Error(err)
	}
}
