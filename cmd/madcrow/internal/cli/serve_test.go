package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

var binary string

// TestMain builds the real program: signals and exit codes are promises of the
// process.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "madcrow")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "madcrow")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, "github.com/madcrow-go/madcrow/cmd/madcrow")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the other programs are built
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v\n%s", err, out))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// program is a running madcrow serve.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string

	mu   sync.Mutex
	log  bytes.Buffer
	done chan struct{}
}

func cleanEnv(env []string) []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "REDIS_") && !strings.HasPrefix(e, "DEPLOY_ENV") && !strings.HasPrefix(e, "MADCROW_") {
			out = append(out, e)
		}
	}
	return append(out, env...)
}

// launch starts madcrow serve in an empty folder and waits until it listens.
func launch(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	p := &program{t: t, done: make(chan struct{})}
	p.cmd = exec.Command(binary, append([]string{"serve", "--addr", "127.0.0.1:0", "--log-format", "json"}, args...)...)
	p.cmd.Dir, p.cmd.Env = t.TempDir(), cleanEnv(env)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	listening := make(chan string, 1)
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			p.mu.Lock()
			p.log.Write(append(lines.Bytes(), '\n'))
			p.mu.Unlock()
			var line struct{ Msg, Addr string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "madcrow listens" {
				listening <- line.Addr
			}
		}
		_ = p.cmd.Wait()
	}()
	select {
	case p.addr = <-listening:
	case <-p.done:
		t.Fatalf("it ended: %v\n%s", p.cmd.ProcessState, p.text())
	case <-time.After(20 * time.Second):
		t.Fatalf("it does not listen\n%s", p.text())
	}
	return p
}

func (p *program) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// exit waits for the end and returns the exit code; -1 is a signal.
func (p *program) exit() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(30 * time.Second):
		p.t.Fatalf("it does not end\n%s", p.text())
		return 0
	}
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) get(path string) (int, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+p.addr+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// slowPost sends half of a request and returns what sends the rest and reads
// the answer.
func (p *program) slowPost() (finish func() (int, string, error)) {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	const body = `{"key":"slow","value":"finished"}`
	_, err = fmt.Fprintf(conn, "POST /api/v1/redis-example/cache HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:10])
	if err != nil {
		p.t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // until the handler waits for the rest
	return func() (int, string, error) {
		if _, err := io.WriteString(conn, body[10:]); err != nil {
			return 0, "", err
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		return res.StatusCode, strings.TrimSpace(string(text)), err
	}
}

func TestServe_EmbeddedByDefaultAndSaysSo(t *testing.T) {
	p := launch(t, nil)
	testkit.Eventually(t, "it is ready", func() bool { code, _ := p.get("/readyz"); return code == 200 })
	_, body := p.get("/health")
	for _, want := range []string{`"mode":"embedded"`, `"redis":"healthy"`, "in the memory of this process", "REDIS_HOST=localhost"} {
		if !strings.Contains(body, want) {
			t.Errorf("/health lacks %s: %s", want, body)
		}
	}
	// The line that says so waits for the first connection, as this test did.
	testkit.Eventually(t, "the log names the Redis", func() bool {
		log := p.text()
		return strings.Contains(log, "REDIS_HOST=localhost") && strings.Contains(log, `"mode":"embedded"`)
	})
	p.get("/api/v1/redis-example/cache/my-private-key")
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.text())
	}
	log := p.text()
	if !strings.Contains(log, `"route":"GET /api/v1/redis-example/cache/{key}"`) || strings.Contains(log, "my-private-key") {
		t.Errorf("the access log lacks the route or shows the key:\n%s", log)
	}
}

func TestServe_SignalFinishesRequestsInFlight(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			srv := madcrowtest.StartRedis(t)
			p := launch(t, []string{"REDIS_URL=redis://" + srv.Addr()})
			testkit.Eventually(t, "it is ready", func() bool { code, _ := p.get("/readyz"); return code == 200 })
			finish := p.slowPost()
			p.signal(sig)
			testkit.Eventually(t, "it takes no more connections", func() bool {
				c, err := net.Dial("tcp", p.addr)
				if err == nil {
					_ = c.Close()
				}
				return err != nil
			})
			select {
			case <-p.done:
				t.Fatalf("it ended with a request in flight\n%s", p.text())
			case <-time.After(100 * time.Millisecond):
			}
			code, body, err := finish()
			if err != nil || code != 200 || body != `{"key":"slow","value":"finished","exists":true,"ttl":null}` {
				t.Errorf("%d %s %v", code, body, err)
			}
			if code := p.exit(); code != exitOK {
				t.Errorf("exit code %d\n%s", code, p.text())
			}
			if got := srv.Do(t, "GET", "slow"); got != "finished" {
				t.Errorf("in Redis: %v", got)
			}
		})
	}
}

// A stream of events outlives the time-outs of a request, and does not hold up
// the end.
func TestServe_EventsHaveNoTimeoutAndEndWithTheServer(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	p := launch(t, []string{"REDIS_URL=redis://" + srv.Addr()}, "--write-timeout", "300ms", "--read-timeout", "300ms", "--idle-timeout", "300ms")
	testkit.Eventually(t, "it is ready", func() bool { code, _ := p.get("/readyz"); return code == 200 })
	res, err := http.Get("http://" + p.addr + "/api/v1/redis-example/pub-sub/subscribe/news")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	want := func(text string) {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == text {
				return
			}
		}
		t.Fatalf("the stream ended before %q: %v\n%s", text, lines.Err(), p.text())
	}
	want("event: subscribed")
	time.Sleep(time.Second)
	srv.Do(t, "PUBLISH", "news", "hello")
	want("data: hello")
	begin := time.Now()
	p.signal(syscall.SIGTERM)
	for lines.Scan() { // to the end
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream does not end well: %v", err)
	}
	if code, took := p.exit(), time.Since(begin); code != exitOK || took > 5*time.Second {
		t.Errorf("exit code %d after %v\n%s", code, took, p.text())
	}
}

// One client that kept back the body of its request held the end of the program
// up until --drain-timeout, and made a failure of it.
func TestServe_AStreamWithAnUnfinishedBodyEndsWithTheServer(t *testing.T) {
	p := launch(t, nil)
	testkit.Eventually(t, "it is ready", func() bool { code, _ := p.get("/readyz"); return code == 200 })
	for _, rest := range []string{"Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n", "Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n"} {
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, "GET /api/v1/redis-example/pub-sub/subscribe/z HTTP/1.1\r\nHost: localhost\r\n"+rest)
	}
	time.Sleep(300 * time.Millisecond) // until they are served
	begin := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.text())
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Readiness fails first, and all is served until a balancer has seen it.
func TestServe_DrainDelayServesOnWhileReadinessFails(t *testing.T) {
	p := launch(t, nil, "--drain-delay", "1500ms")
	testkit.Eventually(t, "it is ready", func() bool { code, _ := p.get("/readyz"); return code == 200 })
	begin := time.Now()
	p.signal(syscall.SIGTERM)
	testkit.Eventually(t, "it is not ready", func() bool { code, _ := p.get("/readyz"); return code == 503 })
	if code, body := p.get("/api/v1/redis-example/cache/a"); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	if code := p.exit(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.text())
	}
	if took := time.Since(begin); took < 1500*time.Millisecond {
		t.Errorf("it ended after %v", took)
	}
}

func TestServe_SecondSignalEndsAtOnce(t *testing.T) {
	p := launch(t, nil)
	p.slowPost()
	p.signal(syscall.SIGTERM)
	testkit.Eventually(t, "it shuts down", func() bool { return strings.Contains(p.text(), "shutting down") })
	begin := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code == exitOK {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestServe_DrainTimeoutCutsOffAndFails(t *testing.T) {
	p := launch(t, nil, "--drain-timeout", "300ms")
	p.slowPost()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != exitFailed || !strings.Contains(p.text(), "cut off") {
		t.Errorf("exit code %d\n%s", code, p.text())
	}
}

func TestServe_FindsARedisThatAppearsLater(t *testing.T) {
	port := madcrowtest.FreePort(t)
	p := launch(t, []string{"REDIS_HOST=127.0.0.1", fmt.Sprintf("REDIS_PORT=%d", port)})
	begin := time.Now()
	code, body := p.get("/api/v1/redis-example/cache/a")
	if code != 503 || !strings.Contains(body, `"code":"REDIS_UNAVAILABLE"`) || strings.Contains(body, "127.0.0.1") {
		t.Errorf("%d %s", code, body)
	}
	t.Logf("503 after %v", time.Since(begin))
	if code, body := p.get("/api/v1/redis-example/data/1"); code != 200 || !strings.Contains(body, `"source":"database"`) {
		t.Errorf("the optional Redis is missed: %d %s", code, body)
	}
	if code, body := p.get("/health"); code != 200 || !strings.Contains(body, `"redis":"unavailable"`) {
		t.Errorf("%d %s", code, body)
	}
	if code, body := p.get("/api/v1/redis-example/health"); code != 200 || strings.TrimSpace(body) != `{"status":"unavailable","message":"Redis is not available","available":false}` {
		t.Errorf("%d %s", code, body)
	}
	madcrowtest.StartRedis(t, madcrowtest.WithPort(port))
	begin = time.Now()
	testkit.Eventually(t, "the value can be read", func() bool { code, _ := p.get("/api/v1/redis-example/cache/a"); return code == 200 })
	t.Logf("usable %v after Redis answered", time.Since(begin))
}

// The first line about Redis says whether and where it was found, and no
// secret; /health shows addresses only when it is asked to.
func TestServe_SaysWhichRedisItUses(t *testing.T) {
	set := madcrowtest.StartSentinel(t, madcrowtest.WithPassword("s3cret-data"), madcrowtest.WithSentinelPassword("s3cret-watch"))
	c := madcrowtest.StartCluster(t, madcrowtest.WithPassword("s3cret-data"))
	alone := madcrowtest.StartRedis(t)
	sentinels := strings.Join(set.Config().Sentinel.Addresses, ",")
	seeds := strings.Join(c.Config().Cluster.Addresses, ",")
	for name, tc := range map[string]struct {
		url  string
		want []string
	}{
		"standalone": {"redis://" + alone.Addr(), []string{`"mode":"standalone","state":"up"`, `"address":"` + alone.Addr() + `"`}},
		"away":       {fmt.Sprintf("redis://127.0.0.1:%d", madcrowtest.FreePort(t)), []string{`"mode":"standalone","state":"down"`}},
		"sentinel": {
			"redis-sentinel://:s3cret-data@" + sentinels + "/0?master=" + set.ServiceName() + "&sentinel_password=s3cret-watch",
			[]string{`"mode":"sentinel","state":"up"`, `"master_name":"` + set.ServiceName() + `"`, `"sentinels":"` + strings.ReplaceAll(sentinels, ",", ", ") + `"`, `"master":"` + set.Master().Addr() + `"`, `"quorum":2`},
		},
		"cluster": {
			"redis-cluster://:s3cret-data@" + seeds,
			[]string{`"mode":"cluster","state":"up"`, `"seeds":"` + strings.ReplaceAll(seeds, ",", ", ") + `"`, `"masters":"127.0.0.1:`, `"slots_covered":16384`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			details := name == "sentinel"
			p := launch(t, []string{"REDIS_URL=" + tc.url}, fmt.Sprint("--health-details=", details))
			testkit.Eventually(t, "the log names the Redis", func() bool { return strings.Contains(p.text(), `"msg":"redis"`) })
			for _, want := range tc.want {
				if log := p.text(); !strings.Contains(log, want) {
					t.Errorf("the log lacks %s:\n%s", want, log)
				}
			}
			if strings.Contains(p.text(), "s3cret") {
				t.Errorf("the log shows a password:\n%s", p.text())
			}
			if code, body := p.get("/health"); code != 200 || strings.Contains(body, "127.0.0.1") != details {
				t.Errorf("%d, addresses allowed: %v: %s", code, details, body)
			}
		})
	}
}

func TestServe_EnvFileIsReadAndTheEnvironmentWins(t *testing.T) {
	srv := madcrowtest.StartRedis(t, madcrowtest.WithPassword("hunter2-hunter2"))
	file := filepath.Join(t.TempDir(), "settings.env")
	text := fmt.Sprintf("REDIS_HOST=127.0.0.1\nREDIS_PORT=%d\nREDIS_PASSWORD=wrong-one\nREDIS_KEY_PREFIX=file:\n", srv.Port())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, []string{"REDIS_PASSWORD=hunter2-hunter2"}, "--env-file", file)
	testkit.Eventually(t, "it is ready", func() bool { code, _ := p.get("/readyz"); return code == 200 })
	p.get("/api/v1/redis-example/data/1")
	if n := srv.Do(t, "EXISTS", "file:data:1"); n != int64(1) {
		t.Error("the file's REDIS_KEY_PREFIX is not in force")
	}
	if log := p.text(); strings.Contains(log, "hunter2") || strings.Contains(log, "wrong-one") {
		t.Errorf("the log shows a password:\n%s", log)
	}
}

func TestCommandLine_ExitCodes(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.env")
	if err := os.WriteFile(broken, []byte("REDIS_PASSWORD=\"s3cret\nnot a line"), 0o600); err != nil {
		t.Fatal(err)
	}
	dead := fmt.Sprintf("REDIS_URL=redis://127.0.0.1:%d", madcrowtest.FreePort(t))
	for name, tc := range map[string]struct {
		args []string
		env  []string
		code int
		text string
	}{
		"help":    {[]string{"--help"}, nil, exitOK, "madcrow serve"},
		"version": {[]string{"version"}, nil, exitOK, "madcrow "},
		"config":  {[]string{"config"}, []string{"REDIS_HOST=10.0.0.1", "REDIS_PASSWORD=s3cret"}, exitOK, "10.0.0.1:6379"},
		"config of Sentinel": {
			[]string{"config"},
			[]string{"REDIS_URL=redis-sentinel://:s3cret@10.0.0.1,10.0.0.2:26380/0?master=m&sentinel_password=s3cret"},
			exitOK,
			"mode                     sentinel\nmaster name              m\nsentinels                10.0.0.1:26379, 10.0.0.2:26380\n",
		},
		"config of a cluster": {
			[]string{"config"},
			[]string{"REDIS_URL=redis-cluster://:s3cret@10.0.0.1,10.0.0.2:7000"},
			exitOK,
			"mode                     cluster\nseeds                    10.0.0.1:6379, 10.0.0.2:7000\n",
		},
		"help of serve":            {[]string{"serve", "--help"}, nil, exitOK, "--health-details"},
		"unknown command":          {[]string{"srve"}, nil, exitUsage, "unknown command"},
		"unknown flag":             {[]string{"serve", "--prot", "1"}, nil, exitUsage, "unknown flag"},
		"open to the network":      {[]string{"serve", "--addr", ":0"}, nil, exitUsage, "MADCROW_API_TOKEN"},
		"short token":              {[]string{"serve", "--addr", ":0"}, []string{"MADCROW_API_TOKEN=s3cret"}, exitUsage, "at least 16"},
		"bad address":              {[]string{"serve", "--addr", "nonsense"}, nil, exitUsage, "not host:port"},
		"bad level":                {[]string{"serve", "--log-level", "loud"}, nil, exitUsage, "--log-level"},
		"bad format":               {[]string{"serve", "--log-format", "xml"}, nil, exitUsage, "--log-format"},
		"missing env file":         {[]string{"serve", "--env-file", "nowhere.env"}, nil, exitUsage, "nowhere.env"},
		"broken env file":          {[]string{"serve", "--env-file", broken}, nil, exitUsage, "not a valid .env file"},
		"bad setting":              {[]string{"serve"}, []string{"REDIS_HOST=h", "REDIS_PORT=s3cret-port"}, exitUsage, "REDIS_PORT"},
		"production without Redis": {[]string{"serve", "--addr", "127.0.0.1:0"}, []string{dead, "DEPLOY_ENV=PRODUCTION", "REDIS_CONNECT_TIMEOUT=300ms"}, exitFailed, "unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, binary, tc.args...)
			cmd.Dir, cmd.Env = dir, cleanEnv(tc.env)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != tc.code || !strings.Contains(string(out), tc.text) {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, tc.code, tc.text, out)
			}
			if strings.Contains(string(out), "s3cret\n") || strings.Contains(string(out), "s3cret ") {
				t.Errorf("a secret is shown:\n%s", out)
			}
		})
	}
}
