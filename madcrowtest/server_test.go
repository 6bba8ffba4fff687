//go:build unix

package madcrowtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

func TestStartRedis_AnswersAndTakesSettings(t *testing.T) {
	CheckLeaks(t)
	s := StartRedis(t, WithArgs("--maxmemory", "3mb"))
	if got := s.Do(t, "PING"); got != "PONG" {
		t.Fatalf("PING = %v", got)
	}
	want := []any{"maxmemory", "3145728"}
	if got := s.Do(t, "CONFIG", "GET", "maxmemory"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("maxmemory = %v, want %v", got, want)
	}
	for setting, want := range map[string]string{"save": "", "appendonly": "no", "bind": "127.0.0.1"} {
		if got := s.Do(t, "CONFIG", "GET", setting); fmt.Sprint(got) != fmt.Sprint([]any{setting, want}) {
			t.Errorf("%s = %v, want %q", setting, got, want)
		}
	}
}

func TestServer_DoReturnsEveryKindOfReply(t *testing.T) {
	s := StartRedis(t)
	if got := s.Do(t, "SET", "k", "a\r\nb\x00"); got != "OK" {
		t.Errorf("SET = %v", got)
	}
	if got := s.Do(t, "GET", "k"); got != "a\r\nb\x00" {
		t.Errorf("GET = %q", got)
	}
	if got := s.Do(t, "GET", "absent"); got != nil {
		t.Errorf("GET absent = %v", got)
	}
	if got := s.Do(t, "DEL", "k"); got != int64(1) {
		t.Errorf("DEL = %v", got)
	}
	if err, ok := s.Do(t, "NOSUCH").(error); !ok || !strings.HasPrefix(err.Error(), "ERR unknown command") {
		t.Errorf("NOSUCH = %v", err)
	}
	got := s.Do(t, "EVAL", "return {1, {'x', false}}", "0")
	if fmt.Sprintf("%#v", got) != `[]interface {}{1, []interface {}{"x", interface {}(nil)}}` {
		t.Errorf("EVAL = %#v", got)
	}
}

func TestServer_ConnectedClientsLeavesItsOwnOut(t *testing.T) {
	s := StartRedis(t)
	for range 5 {
		if n := s.ConnectedClients(t); n != 0 {
			t.Fatalf("%d clients before any came", n)
		}
	}
	conn := dialPlain(t, s.Addr())
	roundTrip(t, conn, "PING")
	if n := s.ConnectedClients(t); n != 1 {
		t.Errorf("%d clients, want 1", n)
	}
}

func TestWithPassword_KeepsStrangersOut(t *testing.T) {
	s := StartRedis(t, WithPassword(`a "b" \ 'c' ü`))
	if got := roundTrip(t, dialPlain(t, s.Addr()), "PING"); !strings.HasPrefix(got, "-NOAUTH") {
		t.Errorf("without a password: %q", got)
	}
	if got := s.Do(t, "PING"); got != "PONG" {
		t.Errorf("Do: %v", got)
	}
	pingWithConfig(t, s)
}

func TestWithUser_HasThoseRightsOnly(t *testing.T) {
	s := StartRedis(t, WithUser("app", "p w", "~app:*", "+@all", "-flushall"))
	if got := roundTrip(t, dialPlain(t, s.Addr()), "PING"); !strings.HasPrefix(got, "-NOAUTH") {
		t.Errorf("without a name: %q", got)
	}
	if cfg := s.Config(); cfg.Username != "app" || cfg.Password != "p w" {
		t.Errorf("Config names %q", cfg.Username)
	}
	c := pingWithConfig(t, s)
	ctx := context.Background()
	if err := c.Do(ctx, c.B().Set().Key("app:1").Value("v").Build()).Error(); err != nil {
		t.Errorf("a permitted command: %v", err)
	}
	for name, cmd := range map[string]rueidis.Completed{
		"command": c.B().Flushall().Build(), "key": c.B().Get().Key("other").Build(),
	} {
		if err := c.Do(ctx, cmd).Error(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("a forbidden %s: %v", name, err)
		}
	}
	if got := s.Do(t, "ACL", "WHOAMI"); got != "default" {
		t.Errorf("Do acts as %v", got)
	}
}

func TestWithTLS_IsVerifiable(t *testing.T) {
	s := StartRedis(t, WithTLS(), WithUser("app", "pw"))
	if got := s.Do(t, "PING"); got != "PONG" {
		t.Errorf("Do: %v", got)
	}
	if cfg := s.Config(); !cfg.TLS.Enabled || cfg.TLS.CAFile != s.CAFile() || s.CAFile() == "" {
		t.Errorf("Config: TLS = %+v", cfg.TLS)
	}
	pingWithConfig(t, s)
	for _, name := range []string{"127.0.0.1", "localhost", "::1"} {
		if err := handshake(t, s, name, s.CAFile()); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	var wrongName x509.HostnameError
	if err := handshake(t, s, "example.org", s.CAFile()); !errors.As(err, &wrongName) {
		t.Errorf("as example.org: %v", err)
	}
	var unknown x509.UnknownAuthorityError
	if err := handshake(t, s, "localhost", OtherCA(t)); !errors.As(err, &unknown) {
		t.Errorf("with another authority: %v", err)
	}
	if got := roundTrip(t, dialPlain(t, s.Addr()), "PING"); strings.Contains(got, "PONG") {
		t.Error("plain text was answered")
	}
}

func TestWithExpiredTLS_IsRefusedByClients(t *testing.T) {
	s := StartRedis(t, WithExpiredTLS())
	var invalid x509.CertificateInvalidError
	if err := handshake(t, s, "localhost", s.CAFile()); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("handshake: %v", err)
	}
}

func TestWithMutualTLS_WantsACertificate(t *testing.T) {
	s := StartRedis(t, WithMutualTLS())
	conn, err := tls.Dial("tcp", s.Addr(), &tls.Config{RootCAs: pool(t, s.CAFile()), ServerName: "localhost"})
	if err == nil { // refused after the handshake, as TLS 1.3 does
		defer func() { _ = conn.Close() }()
		if got := roundTrip(t, conn, "PING"); got != "" {
			t.Errorf("without a certificate: %q", got)
		}
	}
	if cert, key := s.ClientCert(); cert == "" || key == "" || s.Config().TLS.CertFile != cert {
		t.Error("Config holds no client certificate")
	}
	pingWithConfig(t, s)
}

func TestWithUnixSocket_OpensNoPort(t *testing.T) {
	s := StartRedis(t, WithUnixSocket())
	if s.Addr() != "" || s.Port() != 0 || s.Config().Socket != s.Socket() || s.Config().Port != 0 {
		t.Errorf("address %q, port %d, config %+v", s.Addr(), s.Port(), s.Config())
	}
	if got := s.Do(t, "CONFIG", "GET", "port"); fmt.Sprint(got) != "[port 0]" {
		t.Errorf("port = %v", got)
	}
	pingWithConfig(t, s)
}

func TestWithPort_AppearsWhereItIsExpected(t *testing.T) {
	port := FreePort(t)
	s := StartRedis(t, WithPort(port))
	if s.Port() != port || s.Addr() != fmt.Sprintf("127.0.0.1:%d", port) {
		t.Errorf("listens on %s, want port %d", s.Addr(), port)
	}
}

func TestStartRedis_DoesNotTakeAnotherForItself(t *testing.T) {
	first := StartRedis(t)
	var failed string
	runFake(t, func(f *fakeTB) {
		StartRedis(f, WithPort(first.Port()))
		t.Error("two servers on one port")
	}, func(f *fakeTB) { failed = f.fatal })
	if !strings.Contains(failed, "the port is taken") {
		t.Errorf("failed with %q", failed)
	}
}

func TestStartRedis_ShowsTheLogOfAServerThatDoesNotStart(t *testing.T) {
	var failed string
	runFake(t, func(f *fakeTB) {
		StartRedis(f, WithArgs("--no-such-setting", "1"))
	}, func(f *fakeTB) { failed = f.fatal })
	if !strings.Contains(failed, "no-such-setting") {
		t.Errorf("failed with %q", failed)
	}
}

func TestStartRedis_FailsWithoutAServer(t *testing.T) {
	t.Setenv(envServer, "/nonexistent/redis-server")
	for allowed, want := range map[string]string{"": "fatal", "0": "fatal", "1": "skip"} {
		t.Setenv(envAllowSkip, allowed)
		var f *fakeTB
		runFake(t, func(f *fakeTB) { StartRedis(f) }, func(done *fakeTB) { f = done })
		got, text := "fatal", f.fatal
		if f.skipped != "" {
			got, text = "skip", f.skipped
		}
		if got != want || !strings.Contains(text, "apt-get install redis-server") {
			t.Errorf("%s=%q: %s, want %s: %q", envAllowSkip, allowed, got, want, text)
		}
	}
}

func TestServer_KillAndStartKeepThePort(t *testing.T) {
	s := StartRedis(t, WithPassword("pw"))
	port, pid := s.Port(), s.Pid()
	s.Do(t, "SET", "k", "v")
	s.Kill()
	if s.Pid() != 0 || alive(pid) {
		t.Fatalf("process %d lives after Kill", pid)
	}
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		_ = conn.Close()
		t.Fatal("somebody listens after Kill")
	}
	s.Kill() // does nothing
	s.Start()
	if s.Port() != port || s.Pid() == pid || s.Do(t, "GET", "k") != nil {
		t.Errorf("port %d (was %d), pid %d (was %d)", s.Port(), port, s.Pid(), pid)
	}
	pid = s.Pid()
	s.Start() // does nothing
	if s.Pid() != pid {
		t.Error("Start of a running server started another")
	}
	s.Restart()
	if s.Pid() == pid || alive(pid) || s.Do(t, "PING") != "PONG" {
		t.Error("Restart did not replace the process")
	}
}

func TestServer_PauseFreezesAndResumeThaws(t *testing.T) {
	s := StartRedis(t)
	conn := dialPlain(t, s.Addr())
	roundTrip(t, conn, "PING")
	s.Pause()
	_, _ = fmt.Fprint(conn, "PING\r\n")
	_ = conn.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
	var timeout net.Error
	if n, err := conn.Read(make([]byte, 10)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("a frozen server answered %d bytes, %v", n, err)
	}
	s.Resume()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "+PONG\r\n" {
		t.Errorf("after Resume: %q, %v", line, err)
	}
}

func TestStartRedis_LeavesNothingBehind(t *testing.T) {
	for name, do := range map[string]func(*Server){
		"running": func(*Server) {},
		"frozen":  (*Server).Pause,
		"killed":  (*Server).Kill,
		"stopped": (*Server).Stop,
	} {
		t.Run(name, func(t *testing.T) {
			CheckLeaks(t)
			var pid int
			var s *Server
			t.Run("inner", func(t *testing.T) {
				s = StartRedis(t, WithUnixSocket())
				pid = s.Pid()
				if !alive(pid) {
					t.Fatal("no process")
				}
				do(s)
			})
			if alive(pid) {
				t.Errorf("process %d is still there", pid)
			}
			for _, path := range []string{s.dir, s.Socket()} {
				if _, err := os.Stat(path); !os.IsNotExist(err) {
					t.Errorf("%s is still there: %v", path, err)
				}
			}
		})
	}
}

// The test runs itself as a child that starts a server and is then killed.
func TestStartRedis_DiesWithTheTestProcess(t *testing.T) {
	if os.Getenv("MADCROWTEST_CHILD") == "1" {
		fmt.Printf("pid=%d\n", StartRedis(t).Pid())
		time.Sleep(time.Minute)
		return
	}
	if runtime.GOOS != "linux" {
		t.Skip("known on Linux only")
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), "MADCROWTEST_CHILD=1", "TMPDIR="+t.TempDir())
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "pid=%d", &pid)
	}
	if pid == 0 || !alive(pid) {
		t.Errorf("the child started no server (pid %d)", pid)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	for range 500 {
		if pid == 0 || !alive(pid) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	t.Errorf("server %d outlived the process that started it", pid)
}

func TestServer_ManyStartAtOnce(t *testing.T) {
	CheckLeaks(t)
	var wg sync.WaitGroup
	pids := make(chan int, 8)
	for range 8 {
		wg.Go(func() { pids <- StartRedis(t).Pid() })
	}
	wg.Wait()
	close(pids)
	seen := map[int]bool{}
	for pid := range pids {
		seen[pid] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d servers, want 8", len(seen))
	}
}
