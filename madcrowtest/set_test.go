//go:build unix

package madcrowtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/redis/rueidis"
)

// openSet connects with what the Config of a set says, and nothing else.
func openSet(t *testing.T, cfg madcrow.Config) rueidis.Client {
	t.Helper()
	opt := rueidis.ClientOption{
		Username: cfg.Username, Password: string(cfg.Password), DisableCache: true,
		Dialer: net.Dialer{Timeout: time.Second}, ConnWriteTimeout: 2 * time.Second,
		InitAddress: cfg.Cluster.Addresses,
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
	if cfg.Sentinel.Enabled {
		opt.InitAddress = cfg.Sentinel.Addresses
		opt.Sentinel = rueidis.SentinelOption{
			MasterSet: cfg.Sentinel.ServiceName, Password: string(cfg.Sentinel.Password), TLSConfig: opt.TLSConfig,
			Dialer: net.Dialer{Timeout: time.Second}, TopologyRefreshInterval: 200 * time.Millisecond,
		}
	}
	if cfg.Dialer != nil {
		opt.DialCtxFn = func(ctx context.Context, addr string, _ *net.Dialer, tc *tls.Config) (net.Conn, error) {
			conn, err := cfg.Dialer(ctx, "tcp", addr)
			if err == nil && tc != nil {
				conn = tls.Client(conn, tc)
			}
			return conn, err
		}
	}
	c, err := rueidis.NewClient(opt)
	if err != nil {
		t.Fatalf("connect with Config: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

func set(t *testing.T, c rueidis.Client, key, value string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	return c.Do(ctx, c.B().Set().Key(key).Value(value).Build()).Error()
}

// setSoon tries until a write succeeds.
func setSoon(t *testing.T, c rueidis.Client, key, value string) {
	t.Helper()
	if err := await(10*time.Second, func() error { return set(t, c, key, value) }); err != nil {
		t.Fatalf("SET %s: %v", key, err)
	}
}

func wantRole(t *testing.T, n *Server, role string) {
	t.Helper()
	if reply, ok := n.Do(t, "ROLE").([]any); !ok || reply[0] != role {
		t.Errorf("%s says %v, want %s", n.Addr(), reply, role)
	}
}

// wantStrangersOut fails when a connection without password or TLS gets in.
func wantStrangersOut(t *testing.T, nodes []*Server, refusal string) {
	t.Helper()
	for _, n := range nodes {
		if got := roundTrip(t, dialPlain(t, n.Addr()), "PING"); !strings.HasPrefix(got, refusal) || strings.Contains(got, "PONG") {
			t.Errorf("%s answers a stranger %q", n.Addr(), got)
		}
	}
}

func wantSetting(t *testing.T, n *Server, name, value string) {
	t.Helper()
	if got := n.Do(t, "CONFIG", "GET", name); fmt.Sprint(got) != fmt.Sprint([]any{name, value}) {
		t.Errorf("%s has %v, want %q", n.Addr(), got, value)
	}
}

func pids(t *testing.T, nodes []*Server) []int {
	t.Helper()
	out := make([]int, len(nodes))
	for i, n := range nodes {
		if out[i] = n.Pid(); !alive(out[i]) {
			t.Fatalf("node %d has no process", i)
		}
	}
	return out
}

func wantGone(t *testing.T, nodes []*Server, pids []int) {
	t.Helper()
	for i, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is still there", pid)
		}
		if _, err := os.Stat(nodes[i].dir); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", nodes[i].dir, err)
		}
	}
}

func TestSets_RefuseOptionsTheyCannotServe(t *testing.T) {
	starts := map[string]func(*fakeTB, ...Option){
		"sentinel": func(f *fakeTB, o ...Option) { StartSentinel(f, o...) },
		"cluster":  func(f *fakeTB, o ...Option) { StartCluster(f, o...) },
	}
	for name, start := range starts {
		for _, o := range []Option{WithUnixSocket(), WithPort(20000), WithExpiredTLS()} {
			runFake(t, func(f *fakeTB) { start(f, o) }, func(f *fakeTB) {
				if !strings.Contains(f.fatal, "are for StartRedis") {
					t.Errorf("%s: %q", name, f.fatal)
				}
			})
		}
		runFake(t, func(f *fakeTB) { start(f, WithArgs("--no-such-setting", "1")) }, func(f *fakeTB) {
			if !strings.Contains(f.fatal, "no-such-setting") {
				t.Errorf("%s does not show the log: %q", name, f.fatal)
			}
		})
	}
	starts["redis"] = func(f *fakeTB, o ...Option) { StartRedis(f, o...) }
	delete(starts, "sentinel")
	for name, start := range starts {
		runFake(t, func(f *fakeTB) { start(f, WithSentinelPassword("pw")) }, func(f *fakeTB) {
			if !strings.Contains(f.fatal, "is for StartSentinel") {
				t.Errorf("%s: %q", name, f.fatal)
			}
		})
	}
}

func TestFreePort_IsBelowThePortsOfOutgoingConnections(t *testing.T) {
	for range 50 {
		port, err := freePort(busOffset)
		if err != nil || port < lowestPort || port+busOffset >= highestPort {
			t.Fatalf("port %d, %v", port, err)
		}
	}
}

func TestStartSomewhere_TriesAnotherPortWhereTheBusIsTaken(t *testing.T) {
	n := newNodes(t, 1, dataRole, settings{}, nil)[0]
	n.lines = func() [][]string { return clusterLines(n) }
	var err error
	if n.port, err = freePort(busOffset); err != nil {
		t.Fatal(err)
	}
	bus, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port+busOffset)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bus.Close() }()
	if err := n.start(); !errors.Is(err, errPortTaken) {
		t.Fatalf("start: %v", err)
	}
	taken := n.port
	if err := n.startSomewhere(busOffset); err != nil || n.port == taken {
		t.Errorf("port %d, was %d: %v", n.port, taken, err)
	}
	if got := n.Do(t, "CLUSTER", "KEYSLOT", "foo"); got != int64(12182) {
		t.Errorf("CLUSTER KEYSLOT = %v", got)
	}
}

func TestAwait_FailsWithTheLastError(t *testing.T) {
	last := errors.New("not yet")
	if err := await(20*time.Millisecond, func() error { return last }); !errors.Is(err, last) {
		t.Errorf("%v", err)
	}
	tries := 0
	if err := await(time.Minute, func() error {
		if tries++; tries < 3 {
			return last
		}
		return nil
	}); err != nil || tries != 3 {
		t.Errorf("%v after %d tries", err, tries)
	}
}
