package madcrow_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// hungUpOn returns an address where every connection is reset.
func hungUpOn(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1))
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
	}()
	return ln.Addr().String()
}

func splitAddr(t *testing.T, addr string) (host string, port int) {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.IP.String(), a.Port
}

// An outage was a new reason with each try, because the errors of Sentinels
// were joined in another order and that of a reset names another local port:
// some 40 lines in 20 s, and as many for those who watch. A cluster that is not
// there at the start was never logged.
func TestLog_EachLastingReasonOnce(t *testing.T) {
	nowhere := func() string { return fmt.Sprintf("127.0.0.1:%d", madcrowtest.FreePort(t)) }
	standalone := madcrowtest.StartRedis(t)
	locked := madcrowtest.StartRedis(t, madcrowtest.WithPassword("right"))
	sentinels := func(refuse map[string]string) madcrow.Config {
		var fs []*fakeSentinel
		for range 3 {
			f := startFakeSentinel(t, "127.0.0.1:1", 1)
			f.refuse = refuse
			fs = append(fs, f)
		}
		return fakeSet(t, fs...)
	}
	away := sentinels(nil)
	away.Sentinel.Addresses = []string{nowhere(), nowhere(), nowhere()}
	reset := madcrow.Config{}
	reset.Host, reset.Port = splitAddr(t, hungUpOn(t))
	clusterAt := func(password string, addrs ...string) madcrow.Config {
		return madcrow.Config{Password: madcrow.Secret(password), Cluster: madcrow.Cluster{Enabled: true, Addresses: addrs}}
	}
	silent := startFakeSentinel(t, "", 1)
	silent.mute = true
	unknown := sentinels(map[string]string{"GET-MASTER-ADDR-BY-NAME": "ERR No such master with that name"})
	for _, tc := range []struct {
		name string
		cfg  madcrow.Config
		text string
	}{
		{"connections reset", reset, "reset"},
		{"no Sentinel", away, "no Sentinel is reachable"},
		{"Sentinels that refuse", sentinels(map[string]string{"GET-MASTER-ADDR-BY-NAME": "NOAUTH Authentication required."}), "REDIS_SENTINEL_PASSWORD"},
		{"Sentinels that fail", unknown, "No such master"},
		{"Sentinels that are silent", fakeSet(t, silent), "REDIS_SENTINEL_SOCKET_TIMEOUT"},
		{"no cluster node", clusterAt("", nowhere(), nowhere(), nowhere()), "refused"},
		{"a server that is no cluster", clusterAt("", standalone.Addr()), "REDIS_USE_CLUSTERS"},
		{"a cluster node that refuses the password", clusterAt("wrong", locked.Addr()), "REDIS_PASSWORD"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var log testkit.Log
			tc.cfg.Logger = log.Logger()
			r := open(t, tc.cfg)
			notified := changes(t, r)
			log.Await(t, 1, "redis is not available", 5*time.Second)
			time.Sleep(1800 * time.Millisecond) // several tries more
			if lines := log.With(""); len(lines) != 1 || !strings.Contains(lines[0], tc.text) {
				t.Errorf("the log is not one line with %q: %q", tc.text, lines)
			}
			if n := notified(); n > 3 { // connecting, down, and perhaps down for want of a first answer
				t.Errorf("watchers were notified %d times", n)
			}
		})
	}
}

// It was said with every connection, so that one which is ended ten times a
// second filled the log.
func TestLog_AConnectionMadeAgainIsNoNews(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	var log testkit.Log
	cfg := s.Config()
	cfg.Logger = log.Logger()
	r := open(t, cfg)
	log.Await(t, 1, "redis is connected", 5*time.Second)
	for range 5 {
		s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		time.Sleep(20 * time.Millisecond)
		mustSet(t, r, "k", "v")
	}
	if lines := log.With(""); len(lines) != 1 {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	s.Kill()
	log.Await(t, 1, "redis is not available", 5*time.Second)
	s.Start()
	log.Await(t, 2, "redis is connected", 5*time.Second)
}

// A server that became a replica was not in the log.
func TestLog_TellsThatRedisTakesNoWrites(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	var log testkit.Log
	cfg := s.Config()
	cfg.Logger = log.Logger()
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	s.Do(t, "REPLICAOF", "127.0.0.1", "1")
	for range 20 {
		_ = r.Do(t.Context(), set(r, "k", "v")).Err()
	}
	log.Await(t, 1, "redis takes no writes", 5*time.Second)
	s.Do(t, "REPLICAOF", "NO", "ONE")
	log.Await(t, 1, "redis takes writes again", 10*time.Second)
	if n := len(log.With("redis takes no writes")); n != 1 {
		t.Errorf("said %d times: %q", n, log.With(""))
	}
}

// Where ROLE was renamed or denied, the connection was never made.
func TestConnect_DataNodeWithoutRole(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts []madcrowtest.Option
		seen bool // whether a replica that is named as the master is found out
	}{
		{"renamed", []madcrowtest.Option{madcrowtest.WithArgs("--rename-command", "ROLE", "")}, true},
		{"denied", []madcrowtest.Option{madcrowtest.WithUser("app", "pw", "~*", "&*", "+@all", "-role")}, true},
		{"denied, INFO too", []madcrowtest.Option{madcrowtest.WithUser("app", "pw", "~*", "&*", "+@all", "-role", "-info")}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := madcrowtest.StartRedis(t, tc.opts...)
			cfg := fakeSet(t, startFakeSentinel(t, s.Addr(), 1))
			cfg.Username, cfg.Password = s.Config().Username, s.Config().Password
			r := open(t, cfg)
			await(t, r, madcrow.StateUp, 5*time.Second)
			mustSet(t, r, "k", "v")

			s.Do(t, "REPLICAOF", "127.0.0.1", "1")
			again := open(t, cfg)
			if tc.seen {
				await(t, again, madcrow.StateDown, 5*time.Second)
				err := again.Do(t.Context(), get(again, "k")).Err()
				wantError(t, err, madcrow.KindUnavailable, madcrow.ErrReadOnly, madcrow.OutcomeNotApplied, "it is a slave")
				return
			}
			await(t, again, madcrow.StateUp, 5*time.Second)
			err := again.Do(t.Context(), set(again, "k", "v")).Err()
			wantError(t, err, madcrow.KindReadOnly, madcrow.ErrReadOnly, madcrow.OutcomeNotApplied, "READONLY")
		})
	}
}

// A cluster that was lost and found again was in the log with neither, nor
// were slots that no node serves.
func TestLog_ClusterThatIsAwayAndBack(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--cluster-enabled", "yes"))
	slots := []string{"CLUSTER", "ADDSLOTS"}
	for i := range 1 << 14 {
		slots = append(slots, strconv.Itoa(i))
	}
	s.Do(t, slots...)
	p := madcrowtest.StartProxy(t, s.Addr())
	p.Refuse(true)
	var log testkit.Log
	r := open(t, madcrow.Config{
		Logger:  log.Logger(),
		Cluster: madcrow.Cluster{Enabled: true, Addresses: []string{s.Addr()}},
		Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.Addr())
		},
	})
	log.Await(t, 1, "redis is not available", 5*time.Second)
	p.Refuse(false)
	log.Await(t, 1, "the cluster is found", 5*time.Second)
	await(t, r, madcrow.StateUp, 5*time.Second)

	hole := func(done string) { // until the map was read again
		t.Helper()
		for end := time.Now().Add(10 * time.Second); len(log.With(done)) == 0; time.Sleep(10 * time.Millisecond) {
			_ = r.Do(t.Context(), get(r, "k")).Err()
			if time.Now().After(end) {
				t.Fatalf("no line with %q: %q", done, log.With(""))
			}
		}
	}
	s.Do(t, "CLUSTER", "DELSLOTS", "5", "6")
	hole("served by no node")
	s.Do(t, "CLUSTER", "ADDSLOTS", "5", "6")
	hole("every slot of the cluster is served again")

	p.Refuse(true)
	p.ResetAll()
	log.Await(t, 1, "the map of the cluster cannot be read", 5*time.Second)
	time.Sleep(600 * time.Millisecond)
	p.Refuse(false)
	log.Await(t, 2, "the cluster is found", 5*time.Second)
	for _, text := range []string{"slots of the cluster are served by no node", "every slot"} {
		if lines := log.With(text); len(lines) != 1 {
			t.Errorf("%d × %q: %q", len(lines), text, log.With(""))
		}
	}
	if lines := log.With("cannot be read"); len(lines) > 2 { // it ends with EOF, or with a reset
		t.Errorf("%q", lines)
	}
}
