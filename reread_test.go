package madcrow_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// mounted writes files into a new folder and points the link at it, in one step,
// as Kubernetes swaps what it mounts.
func mounted(t *testing.T, link string, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next := link + ".next"
	if err := os.Symlink(dir, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, link); err != nil {
		t.Fatal(err)
	}
}

func fileText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// pemFiles are what a client needs to speak to s.
func pemFiles(t *testing.T, s *madcrowtest.Server) map[string]string {
	t.Helper()
	cert, key := s.ClientCert()
	return map[string]string{"ca.pem": fileText(t, s.CAFile()), "tls.crt": fileText(t, cert), "tls.key": fileText(t, key)}
}

// Certificates and authorities were read once, so that a process with short
// ones was cut off when they were renewed, for ever.
func TestOpen_TLSFilesThatChangeAreUsedForTheNextConnection(t *testing.T) {
	first, second := madcrowtest.StartRedis(t, madcrowtest.WithMutualTLS()), madcrowtest.StartRedis(t, madcrowtest.WithMutualTLS())
	link := filepath.Join(t.TempDir(), "..data")
	mounted(t, link, pemFiles(t, first))
	logs := &testkit.Log{}
	cfg := first.Config()
	cfg.Logger = logs.Logger()
	cfg.TLS.CAFile, cfg.TLS.CertFile, cfg.TLS.KeyFile = filepath.Join(link, "ca.pem"), filepath.Join(link, "tls.crt"), filepath.Join(link, "tls.key")
	var target atomic.Pointer[madcrowtest.Server] // who is behind the address
	target.Store(first)
	cfg.Dialer = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, target.Load().Addr())
	}
	r := open(t, cfg)
	mustSet(t, r, "a", "1")
	kill := func() {
		first.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		time.Sleep(20 * time.Millisecond)
		testkit.Eventually(t, "it is connected again", func() bool { return r.Available() })
	}

	half := pemFiles(t, first)
	half["tls.crt"] = half["tls.crt"][:len(half["tls.crt"])/2]
	mounted(t, link, half)
	kill()
	kill()
	mustGet(t, r, "a", "1")
	const broken, mended = "cannot be used; what was read before stays in use", "can be used again"
	if got := len(logs.With(broken)); got != 1 {
		t.Errorf("%d lines say that a file is broken:\n%s", got, logs.With(""))
	}
	if !strings.Contains(strings.Join(logs.With(""), ""), "TLS.CertFile") {
		t.Errorf("no line names the setting:\n%s", logs.With(""))
	}

	mounted(t, link, pemFiles(t, second))
	second.Do(t, "SET", "a", "2")
	target.Store(second)
	first.Stop()
	testkit.Eventually(t, "the new files are used", func() bool {
		msg, err := r.Do(t.Context(), get(r, "a")).Message()
		v, _ := msg.ToString()
		return err == nil && v == "2"
	})
	if got := len(logs.With(mended)); got != 1 {
		t.Errorf("%d lines say that it is mended:\n%s", got, logs.With(""))
	}
}

// The advice was to set the file that was set.
func TestOpen_AnAuthorityThatIsNotInTheFileIsNamedAsThat(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithTLS())
	cfg := s.Config()
	cfg.TLS.CAFile = madcrowtest.OtherCA(t)
	r := open(t, cfg)
	testkit.Eventually(t, "it is refused", func() bool { return r.State() == madcrow.StateDown })
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "none of the authorities in the file that REDIS_SSL_CA_FILE names") ||
		strings.Contains(err.Error(), "set REDIS_SSL_CA_FILE") {
		t.Errorf("%v", err)
	}
}

// A password file was read once: a secret that rotates cut the process off.
func TestConfigFromEnv_APasswordFileThatChangesIsUsedForTheNextConnection(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("first"))
	link := filepath.Join(t.TempDir(), "..data")
	mounted(t, link, map[string]string{"pw": "first\n"})
	vars := map[string]string{"REDIS_PASSWORD_FILE": filepath.Join(link, "pw"), "REDIS_HOST": "127.0.0.1"}
	cfg, err := madcrow.Env{Lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }}.Config()
	if err != nil {
		t.Fatal(err)
	}
	logs := &testkit.Log{}
	cfg.Port, cfg.Logger = s.Port(), logs.Logger()
	r := open(t, cfg)
	mustSet(t, r, "a", "1")
	mounted(t, link, map[string]string{"pw": "\n"})
	kill := func() { s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") }
	kill()
	testkit.Eventually(t, "the old password stays in use", func() bool {
		err := r.Do(t.Context(), get(r, "a")).Err()
		return err == nil && len(logs.With("cannot be used")) == 1
	})
	mounted(t, link, map[string]string{"pw": "second\n"})
	s.Do(t, "CONFIG", "SET", "requirepass", "second")
	killWith(t, s, "second")
	testkit.Eventually(t, "the new password is used", func() bool {
		err := r.Do(t.Context(), get(r, "a")).Err()
		return err == nil && len(logs.With("can be used again")) == 1
	})
	if strings.Contains(strings.Join(logs.With(""), ""), "second") || strings.Contains(strings.Join(logs.With(""), ""), "first") {
		t.Errorf("a password in the log:\n%s", logs.With(""))
	}
}

// killWith ends all connections of a server whose password was changed.
func killWith(t *testing.T, s *madcrowtest.Server, password string) {
	t.Helper()
	cfg := s.Config()
	cfg.Password = madcrow.Secret(password)
	r := open(t, cfg)
	if err := r.Do(t.Context(), arbitrary(r, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")).Err(); err != nil {
		t.Fatal(err)
	}
}

// A pipe gives its text once: reading it again for the next connection waited
// for ever, and Close with it.
func TestConfigFromEnv_APasswordFromAPipeIsReadOnce(t *testing.T) {
	const password = "long enough a password"
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword(password))
	pipe := filepath.Join(t.TempDir(), "password")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	go func() { _ = os.WriteFile(pipe, []byte(password), 0o600) }()
	cfg, err := madcrow.Env{Lookup: func(name string) (string, bool) {
		v, ok := map[string]string{"REDIS_HOST": "127.0.0.1", "REDIS_PORT": strconv.Itoa(s.Port()), "REDIS_PASSWORD_FILE": pipe}[name]
		return v, ok
	}}.Config()
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	testkit.Eventually(t, "another connection is made", func() bool { err := r.Do(t.Context(), get(r, "a")).Err(); return err == nil })
}
