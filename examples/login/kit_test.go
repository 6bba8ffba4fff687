package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/madcrowtest"
)

const (
	cookieName = "__Host-session"
	prefix     = "app:"
	secretText = "a secret of more than thirty-two bytes"
	password   = "correct horse battery"
	firefox    = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
	iphone     = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
)

var binary string

// TestMain builds the real program.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "login")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "login")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, ".").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v\n%s", err, out))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// site is a running program, with the accounts ada and bob.
type site struct {
	t     *testing.T
	redis *madcrowtest.Server
	dir   string
	trust *x509.CertPool
	url   string
}

// open runs the program over TLS, as in production: it is connected when it
// listens.
func open(t *testing.T, env ...string) *site {
	t.Helper()
	s := newSite(t)
	cert, key, trust := certificate(t, s.dir)
	s.trust = trust
	s.url = "https://" + s.start(env, "-cert", cert, "-key", key, "-secret-file", filepath.Join(s.dir, "secret"))
	return s
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, redis: madcrowtest.StartRedis(t), dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.dir, "secret"), []byte(secretText+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ada", "bob"} {
		cmd := exec.Command(binary, "useradd", "-db", filepath.Join(s.dir, "users.db"), "-role", "editor", "-password-stdin", name)
		cmd.Stdin = strings.NewReader(password + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return s
}

// start returns the address.
func (s *site) start(env []string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(binary, append([]string{"-addr", "127.0.0.1:0", "-db", filepath.Join(s.dir, "users.db")}, args...)...)
	cmd.Env = append([]string{
		"DEPLOY_ENV=PRODUCTION", "REDIS_HOST=127.0.0.1", "REDIS_PORT=" + strconv.Itoa(s.redis.Port()), "REDIS_KEY_PREFIX=" + prefix,
		"RATE_LIMIT_LOGIN_MAX_ATTEMPTS=3",
	}, env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	addr, ended, said := make(chan string, 1), make(chan struct{}), &strings.Builder{}
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			_, _ = fmt.Fprintln(said, lines.Text())
			if _, a, ok := strings.Cut(lines.Text(), "listening on "); ok {
				addr <- strings.Trim(a, `"`)
			}
		}
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("after SIGTERM: %v", err)
		}
		for _, secret := range []string{password, secretText} {
			if strings.Contains(said.String(), secret) {
				s.t.Errorf("the log has %q", secret)
			}
		}
		if s.t.Failed() {
			s.t.Log(said)
		}
	})
	select {
	case a := <-addr:
		return a
	case <-ended:
		s.t.Fatalf("it ended:\n%s", said)
	case <-time.After(20 * time.Second):
		s.t.Fatal("it does not listen")
	}
	return ""
}

// certificate makes one for 127.0.0.1, signed by itself.
func certificate(t *testing.T, dir string) (certFile, keyFile string, trust *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "login"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	trust = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	trust.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret), trust
}

// browser keeps cookies as one does, and follows no redirect by itself.
type browser struct {
	t      *testing.T
	site   *site
	client *http.Client
	header http.Header
}

func (s *site) browser(agent string) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &browser{t: s.t, site: s, header: http.Header{"User-Agent": {agent}}, client: &http.Client{
		Jar: jar, Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.trust}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

type answer struct {
	code   int
	to     string // where a redirect leads
	body   string
	header http.Header
	took   time.Duration
}

// has says whether the page shows all of these.
func (a answer) has(texts ...string) bool {
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			return false
		}
	}
	return true
}

func (a answer) String() string {
	return fmt.Sprintf("%d to %q\n%v\n%s", a.code, a.to, a.header, a.body)
}

func (b *browser) send(method, path string, form ...string) answer {
	b.t.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Add(form[i], form[i+1])
	}
	req, err := http.NewRequest(method, b.site.url+path, strings.NewReader(values.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header = b.header.Clone()
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	begin := time.Now()
	res, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header.Get("Location"), string(body), res.Header, time.Since(begin)}
}

func (b *browser) get(path string) answer { b.t.Helper(); return b.send(http.MethodGet, path) }

func (b *browser) post(path string, form ...string) answer {
	b.t.Helper()
	return b.send(http.MethodPost, path, form...)
}

// login logs in, and ends the test when it cannot.
func (b *browser) login(name string, more ...string) answer {
	b.t.Helper()
	a := b.post("/login", append([]string{"name", name, "password", password}, more...)...)
	if a.code != http.StatusSeeOther || a.to != "/profile" {
		b.t.Fatal(a)
	}
	return a
}

// in says whether the profile shows name; where it does not, it must lead to
// the login.
func (b *browser) in(name string) bool {
	b.t.Helper()
	a := b.get("/profile")
	if a.code == http.StatusOK && a.has("<h1>"+name+"</h1>") {
		return true
	}
	if a.code != http.StatusSeeOther || a.to != "/login?next=/profile" {
		b.t.Error(a)
	}
	return false
}

// cookie is the identifier, "" for none.
func (b *browser) cookie() string {
	at, err := url.Parse(b.site.url)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.client.Jar.Cookies(at) {
		if c.Name == cookieName {
			return c.Value
		}
	}
	return ""
}

// plant puts an identifier into the browser.
func (b *browser) plant(id string) {
	at, err := url.Parse(b.site.url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.client.Jar.SetCookies(at, []*http.Cookie{{Name: cookieName, Value: id, Path: "/", Secure: true}})
}
