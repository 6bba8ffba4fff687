package madcrowtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
)

const (
	// readyWithin bounds the start of a server, stopWithin its orderly end,
	// after which it is killed.
	readyWithin = 10 * time.Second
	stopWithin  = 3 * time.Second
	startTries  = 10

	envServer    = "MADCROW_REDIS_SERVER"
	envAllowSkip = "MADCROW_TEST_ALLOW_SKIP"
)

// Server is a running redis-server, started by [StartRedis], or one of those
// that [StartSentinel] and [StartCluster] start. Its methods may be called from
// any goroutine while the test runs; where one fails, it marks the test as
// failed and returns.
type Server struct {
	t      testing.TB
	binary string
	set    settings
	dir    string
	port   int
	socket string
	tls    *tlsFiles
	role   role
	lines  func() [][]string // more of the configuration file, where not nil

	mu     sync.Mutex
	proc   *process
	paused bool
}

// StartRedis starts a redis-server without persistence on a free loopback port
// in a temporary folder, and returns once it answers. It is stopped when the
// test ends. The test fails when there is no such program, or when it does not
// answer within 10 seconds; the server's log is then shown.
func StartRedis(t testing.TB, opts ...Option) *Server {
	t.Helper()
	set := newSettings(t, opts)
	s := &Server{t: t, set: set, port: set.port, binary: findBinary(t), dir: t.TempDir()}
	if set.socket {
		s.socket = filepath.Join(shortDir(t), "redis.sock")
	}
	if set.tls {
		s.tls = newTLSFiles(t, s.dir, set.certExpiry)
	}
	t.Cleanup(s.Stop)

	var err error
	for range startTries {
		if set.port == 0 && !set.socket {
			s.port = FreePort(t)
		}
		if err = s.start(); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
	return s
}

// findBinary returns the server's program, or ends the test.
func findBinary(t testing.TB) string {
	t.Helper()
	name := os.Getenv(envServer)
	if name == "" {
		name = "redis-server"
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	text := fmt.Sprintf("madcrowtest: this test needs a real Redis, and %q cannot be run: %v\n"+
		"  Debian, Ubuntu: apt-get install redis-server\n"+
		"  macOS:          brew install redis\n"+
		"  elsewhere:      set %s=/path/to/redis-server or valkey-server\n", name, err, envServer)
	if os.Getenv(envAllowSkip) == "1" {
		t.Skip("SKIPPED, NOTHING WAS TESTED (" + envAllowSkip + "=1)\n" + text)
	}
	t.Fatal(text + "  (" + envAllowSkip + "=1 skips such tests instead)")
	return ""
}

// shortDir is a temporary folder whose path is short enough for a Unix socket
// (about 100 bytes), however long the test's name is.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mc")
	if err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func randomText() string { return rand.Text() }

// Addr returns "127.0.0.1:port", or "" with WithUnixSocket.
func (s *Server) Addr() string {
	if s.set.socket {
		return ""
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
}

// Port returns the port, or 0 with WithUnixSocket.
func (s *Server) Port() int { return s.port }

// Socket returns the path of the Unix socket, or "" without WithUnixSocket.
func (s *Server) Socket() string { return s.socket }

// CAFile returns the PEM file of the authority that signed the server's
// certificate, or "" without WithTLS.
func (s *Server) CAFile() string {
	if s.tls == nil {
		return ""
	}
	return s.tls.caFile
}

// ClientCert returns the PEM files of a client certificate of the server's
// authority and of its key; empty without WithTLS.
func (s *Server) ClientCert() (certFile, keyFile string) {
	if s.tls == nil {
		return "", ""
	}
	return s.tls.clientCertFile, s.tls.clientKeyFile
}

// Config returns what madcrow.Open needs to connect to the server: address,
// TLS authority, and the password, or the first user of WithUser. All else has
// its default.
func (s *Server) Config() madcrow.Config {
	c := madcrow.Config{Password: madcrow.Secret(s.set.password)}
	if s.set.socket {
		c.Socket = s.socket
	} else {
		c.Host, c.Port = "127.0.0.1", s.port
	}
	if len(s.set.users) > 0 {
		c.Username, c.Password = s.set.users[0].name, madcrow.Secret(s.set.users[0].password)
	}
	if s.tls != nil {
		c.TLS = madcrow.TLS{Enabled: true, CAFile: s.tls.caFile}
		if s.set.mutualTLS {
			c.TLS.CertFile, c.TLS.KeyFile = s.tls.clientCertFile, s.tls.clientKeyFile
		}
	}
	return c
}

// Pid returns the process id, or 0 when the server does not run.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return 0
	}
	return s.proc.pid
}

// Start starts a server that was stopped or killed, on the same port and with
// the same settings, and returns once it answers. The data is gone, unless
// WithArgs turned persistence on. What a Sentinel or a node of a set has
// learned of the others it still knows. It does nothing when the server runs.
func (s *Server) Start() {
	s.t.Helper()
	var err error
	for range startTries {
		// The port may still be held for a moment, by a connection of a
		// client that is going away.
		if err = s.start(); !errors.Is(err, errPortTaken) {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	if err != nil {
		s.t.Errorf("madcrowtest: %v", err)
	}
}

// Stop ends the server in order (SIGTERM) and waits for its end; after 3
// seconds it is killed. It does nothing when the server does not run.
func (s *Server) Stop() {
	s.t.Helper()
	s.stopProcess(false)
}

// Kill ends the server at once (SIGKILL, kill -9) and waits for its end. It
// does nothing when the server does not run.
func (s *Server) Kill() {
	s.t.Helper()
	s.stopProcess(true)
}

// Restart is Stop and Start.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
}

// Pause freezes the server (SIGSTOP): connections stay open, new ones are
// accepted by the system, nothing is answered. It returns when the server is
// frozen. The end of the test thaws it.
func (s *Server) Pause() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		s.t.Error("madcrowtest: Pause: the server does not run")
		return
	}
	if err := s.proc.pause(); err != nil {
		s.t.Errorf("madcrowtest: Pause: %v", err)
		return
	}
	s.paused = true
}

// Resume lets a frozen server continue (SIGCONT).
func (s *Server) Resume() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		s.t.Error("madcrowtest: Resume: the server does not run")
		return
	}
	if err := s.proc.resume(); err != nil {
		s.t.Errorf("madcrowtest: Resume: %v", err)
		return
	}
	s.paused = false
}

// Log returns what the server has written since it was first started.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		return ""
	}
	return string(b)
}

func (s *Server) confFile() string { return filepath.Join(s.dir, "redis.conf") }

func (s *Server) logFile() string { return filepath.Join(s.dir, "redis.log") }

func (s *Server) stopProcess(now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return
	}
	if !now {
		if s.paused {
			_ = s.proc.resume()
		}
		s.proc.terminate(stopWithin)
	}
	s.proc.kill()
	s.proc, s.paused = nil, false
}

var errPortTaken = errors.New("the port is taken")

// start starts the process and waits until it answers. It is errPortTaken when
// somebody else has the port.
func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		return nil
	}
	if err := s.writeFile(); err != nil {
		return err
	}
	before := len(s.Log())
	p, err := startProcess(s.binary, s.arguments(), s.dir, s.logFile())
	if err != nil {
		return fmt.Errorf("start %s: %w", s.binary, err)
	}
	if err := s.waitReady(p, before); err != nil {
		p.kill()
		return err
	}
	s.proc, s.paused = p, false
	return nil
}

// waitReady returns when this very process answers PING; before is how long
// the log was when it started.
func (s *Server) waitReady(p *process, before int) error {
	deadline := time.Now().Add(readyWithin)
	var last error
	for time.Now().Before(deadline) {
		select {
		case <-p.done:
			log := s.Log()[before:]
			if strings.Contains(log, "Address already in use") {
				return fmt.Errorf("%s: %w", s.Addr(), errPortTaken)
			}
			return fmt.Errorf("%s ended at once (%v):\n%s", s.binary, p.err, log)
		default:
		}
		if last = s.ping(p.pid); last == nil || errors.Is(last, errPortTaken) {
			return last
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("%s did not answer within %v (%w):\n%s", s.binary, readyWithin, last, s.Log()[before:])
}

// ping fails unless the process pid itself answers: where two servers race for
// a port, the loser must not take the winner for itself.
func (s *Server) ping(pid int) error {
	replies, err := s.exchange(time.Second, []string{"PING"}, []string{"INFO", "server"})
	if err != nil {
		return err
	}
	if replies[0] != "PONG" {
		return fmt.Errorf("PING was answered with %v", replies[0])
	}
	info, _ := replies[1].(string)
	if !strings.Contains(info, fmt.Sprintf("\nprocess_id:%d\r", pid)) {
		return errPortTaken
	}
	return nil
}
