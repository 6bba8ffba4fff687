//go:build unix

package madcrowtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// fakeTB is a test whose end is looked at from outside. The framework's own
// methods that are not replaced here go to the real test.
type fakeTB struct {
	testing.TB
	fatal, errors, skipped string
	cleanups               []func()
}

func (f *fakeTB) Helper()           {}
func (f *fakeTB) Cleanup(fn func()) { f.cleanups = append(f.cleanups, fn) }
func (f *fakeTB) Error(args ...any) { f.errors += fmt.Sprintln(args...) }
func (f *fakeTB) Fatal(args ...any) { f.fatal = fmt.Sprint(args...); panic(f) }
func (f *fakeTB) Skip(args ...any)  { f.skipped = fmt.Sprint(args...); panic(f) }
func (f *fakeTB) Errorf(format string, args ...any) {
	f.errors += fmt.Sprintf(format, args...)
}

func (f *fakeTB) Fatalf(format string, args ...any) {
	f.fatal = fmt.Sprintf(format, args...)
	panic(f)
}

// runFake runs body as a test of its own, its clean-up included, and then done.
func runFake(t *testing.T, body, done func(*fakeTB)) {
	t.Helper()
	f := &fakeTB{TB: t}
	func() {
		defer func() {
			if r := recover(); r != nil && r != f {
				panic(r)
			}
		}()
		body(f)
	}()
	for i := len(f.cleanups) - 1; i >= 0; i-- {
		f.cleanups[i]()
	}
	done(f)
}

func alive(pid int) bool { return pid != 0 && syscall.Kill(pid, 0) == nil }

func dialPlain(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// roundTrip sends one inline command and returns what comes back, "" when the
// connection is closed instead.
func roundTrip(t *testing.T, conn net.Conn, cmd string) string {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprint(conn, cmd+"\r\n"); err != nil {
		return ""
	}
	buf := make([]byte, 4096)
	n, _ := conn.Read(buf)
	return string(buf[:n])
}

func pool(t *testing.T, caFile string) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		t.Fatalf("%s holds no certificate", caFile)
	}
	return p
}

func handshake(t *testing.T, s *Server, name, caFile string) error {
	t.Helper()
	conn, err := tls.Dial("tcp", s.Addr(), &tls.Config{RootCAs: pool(t, caFile), ServerName: name})
	if err == nil {
		_ = conn.Close()
	}
	return err
}

// pingWithConfig connects with what Config says, and nothing else.
func pingWithConfig(t *testing.T, s *Server) rueidis.Client {
	t.Helper()
	cfg := s.Config()
	opt := rueidis.ClientOption{
		InitAddress: []string{net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port))},
		Username:    cfg.Username, Password: string(cfg.Password),
		ForceSingleClient: true, DisableCache: true,
	}
	if cfg.Socket != "" {
		opt.InitAddress = []string{cfg.Socket}
		opt.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", addr)
		}
	}
	if cfg.TLS.Enabled {
		opt.TLSConfig = &tls.Config{RootCAs: pool(t, cfg.TLS.CAFile), ServerName: "localhost"}
		if cfg.TLS.CertFile != "" {
			pair, err := tls.LoadX509KeyPair(cfg.TLS.CertFile, cfg.TLS.KeyFile)
			if err != nil {
				t.Fatal(err)
			}
			opt.TLSConfig.Certificates = []tls.Certificate{pair}
		}
	}
	c, err := rueidis.NewClient(opt)
	if err != nil {
		t.Fatalf("connect with Config: %v", err)
	}
	t.Cleanup(c.Close)
	if err := c.Do(t.Context(), c.B().Ping().Build()).Error(); err != nil {
		t.Fatalf("PING with Config: %v", err)
	}
	return c
}

func TestCheckLeaks_ShowsWhatIsLeft(t *testing.T) {
	stop := make(chan struct{})
	var got *fakeTB
	runFake(t, func(f *fakeTB) {
		checkLeaks(f, 50*time.Millisecond)
		go func() { <-stop }()
	}, func(f *fakeTB) { got = f })
	close(stop)
	if !strings.Contains(got.errors, "1 goroutines were left behind") || !strings.Contains(got.errors, "kit_test.go") {
		t.Errorf("said %q", got.errors)
	}
}

func TestCheckLeaks_WaitsForWhatIsEnding(t *testing.T) {
	var got *fakeTB
	runFake(t, func(f *fakeTB) {
		CheckLeaks(f)
		go func() { time.Sleep(100 * time.Millisecond) }()
	}, func(f *fakeTB) { got = f })
	if got.errors != "" {
		t.Errorf("said %q", got.errors)
	}
}
