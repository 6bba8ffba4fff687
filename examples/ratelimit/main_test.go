package main

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
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

// start runs the real program, as in production: it is connected when it
// listens. It returns its address.
func start(t *testing.T, binary string, s *madcrowtest.Server) string {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Env = []string{"ADDR=127.0.0.1:0", "DEPLOY_ENV=PRODUCTION", "REDIS_HOST=127.0.0.1", "REDIS_PORT=" + strconv.Itoa(s.Port())}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		for lines.Scan() { // to the end of the program
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
	for lines.Scan() {
		if _, addr, ok := strings.Cut(lines.Text(), "listening on "); ok {
			return strings.Trim(addr, `"`)
		}
	}
	t.Fatal("it ended")
	return ""
}

type answer struct {
	code      int
	retry     string
	remaining int
	problem   string
	took      time.Duration
}

func post(t *testing.T, addr string) answer {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, addr+"/api/action", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", "203.0.113."+strconv.Itoa(time.Now().Nanosecond()%250)) // it is not believed
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
	var body struct {
		Remaining int
		Code      string
	}
	if err := json.Unmarshal(text, &body); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return answer{res.StatusCode, res.Header.Get("Retry-After"), body.Remaining, body.Code, time.Since(begin)}
}

func TestRateLimit_TenAMinuteForAllProcessesWithAndWithoutRedis(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "ratelimit")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := madcrowtest.StartRedis(t)
	one, two := start(t, binary, s), start(t, binary, s)
	for i := range 10 {
		if a := post(t, []string{one, two}[i%2]); a.code != 200 || a.remaining != 9-i {
			t.Errorf("request %d: %+v", i+1, a)
		}
	}
	for _, addr := range []string{one, two} {
		a := post(t, addr)
		if seconds, err := strconv.Atoi(a.retry); a.code != 429 || a.problem != "QUOTA_EXCEEDED" || err != nil || seconds < 30 || seconds > 61 {
			t.Errorf("the eleventh: %+v", a)
		}
	}

	// Without Redis each process counts alone, and answers at once.
	s.Stop()
	allowed := 0
	program.Wait(t, func() bool { // a denial is remembered for up to a second
		if post(t, one).code == 200 {
			allowed++
		}
		return allowed > 0
	})
	for range 15 {
		switch a := post(t, one); {
		case a.code == 200:
			allowed++
		case a.code != 429 || a.retry == "":
			t.Errorf("without Redis: %+v", a)
		case a.took > 2*time.Second:
			t.Errorf("it took %v", a.took)
		}
	}
	if allowed != 10 {
		t.Errorf("without Redis %d were allowed, want 10", allowed)
	}
	s.Start()
	program.Wait(t, func() bool { return post(t, one).code == 200 && s.Do(t, "DBSIZE") != int64(0) })

	// A frozen one holds up no request either.
	s.Pause()
	for range 12 {
		if a := post(t, one); a.code != 200 && a.code != 429 || a.took > 2*time.Second {
			t.Errorf("with a frozen Redis: %+v", a)
		}
	}
	s.Resume()
}

func TestRateLimit_AWrongSettingIsNamed(t *testing.T) {
	t.Setenv("REDIS_PORT", "99999")
	if err := run(t.Context(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "REDIS_PORT") {
		t.Error(err)
	}
}
