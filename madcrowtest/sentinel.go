package madcrowtest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
)

// serviceName is what the Sentinels call the master.
const serviceName = "mymaster"

// SentinelSet is a master with two replicas and the three Sentinels that watch
// them, started by [StartSentinel]. Its methods may be called from any
// goroutine, those that take a test from the test's own only.
type SentinelSet struct {
	nodes     []*Server
	sentinels []*Server

	mu   sync.Mutex
	last *Server // the master when a Sentinel was last asked
}

// StartSentinel starts a master with two replicas, without persistence, and
// three Sentinels of quorum 2 which hold the master for dead after 1 second
// without an answer (failover-timeout 3 seconds, parallel-syncs 1). It returns
// once the replicas are up to date and every Sentinel sees all the others,
// after about half a second, and fails the test after 30. All are killed when the
// test ends.
//
// WithArgs is for the servers that hold data: WithArgs("--min-replicas-to-write",
// "1"). WithUnixSocket, WithPort and WithExpiredTLS cannot be had.
func StartSentinel(t testing.TB, opts ...Option) *SentinelSet {
	t.Helper()
	set := newSetSettings(t, opts)
	var tls *tlsFiles
	if set.tls {
		tls = newTLSFiles(t, t.TempDir(), set.certExpiry)
	}
	ofSentinels := set
	ofSentinels.password, ofSentinels.users, ofSentinels.args = set.sentinelPW, nil, nil
	s := &SentinelSet{
		nodes:     newNodes(t, 3, dataRole, set, tls),
		sentinels: newNodes(t, 3, sentinelRole, ofSentinels, tls),
	}
	if err := s.start(); err != nil {
		t.Fatalf("madcrowtest: StartSentinel: %v", err)
	}
	return s
}

func (s *SentinelSet) start() error {
	master := s.nodes[0]
	for _, n := range s.nodes {
		n.lines = func() [][]string { return s.dataLines(n) }
	}
	for _, n := range s.sentinels {
		n.lines = func() [][]string { return s.sentinelLines(n) }
	}
	if err := startAll(0, master); err != nil {
		return err
	}
	if err := startAll(0, s.nodes[1:]...); err != nil {
		return err
	}
	s.last = master
	// A Sentinel looks at a replica every 10 seconds: what it sees first
	// should be good.
	if err := await(settleWithin, s.replicated); err != nil {
		return err
	}
	if err := startAll(0, s.sentinels...); err != nil {
		return err
	}
	// They find one another by messages, one every 2 seconds.
	s.publishEvery(20 * time.Millisecond)
	defer s.publishEvery(2 * time.Second)
	return await(settleWithin, s.agreed)
}

// publishEvery changes how often Sentinels tell of themselves, where they can.
func (s *SentinelSet) publishEvery(d time.Duration) {
	_ = eachNode(s.sentinels, func(n *Server) error {
		_, err := n.ask("SENTINEL", "DEBUG", "PUBLISH-PERIOD", strconv.FormatInt(d.Milliseconds(), 10))
		return err
	})
}

func (s *SentinelSet) dataLines(n *Server) [][]string {
	// Without the disk, the master may miss the first sign of life of a new
	// replica, and then sends it nothing for a second although it calls it
	// online: a failover would lose all that was written until then.
	lines := append(n.tlsLines(), []string{"repl-diskless-sync", "no"})
	if n.set.password != "" {
		lines = append(lines, []string{"masterauth", n.set.password})
	}
	if n != s.nodes[0] {
		lines = append(lines, []string{"replicaof", "127.0.0.1", strconv.Itoa(s.nodes[0].port)})
	}
	return lines
}

func (s *SentinelSet) sentinelLines(n *Server) [][]string {
	master := s.nodes[0]
	lines := append(n.tlsLines(),
		[]string{"sentinel", "monitor", serviceName, "127.0.0.1", strconv.Itoa(master.port), "2"},
		[]string{"sentinel", "down-after-milliseconds", serviceName, "1000"},
		[]string{"sentinel", "failover-timeout", serviceName, "3000"},
		[]string{"sentinel", "parallel-syncs", serviceName, "1"})
	if master.set.password != "" {
		lines = append(lines, []string{"sentinel", "auth-pass", serviceName, master.set.password})
	}
	return lines
}

// replicated fails unless the master is one, and all others are up to date.
func (s *SentinelSet) replicated() error {
	master := s.Master()
	if err := master.hasReplicas(len(s.nodes) - 1); err != nil {
		return err
	}
	for _, n := range s.nodes {
		if n == master {
			continue
		}
		if err := n.follows(master); err != nil {
			return err
		}
	}
	return nil
}

// agreed fails unless each Sentinel sees the same master, both replicas and
// both other Sentinels, all in good health.
func (s *SentinelSet) agreed() error {
	master := s.Master()
	for _, n := range s.sentinels {
		replies, err := n.exchange(askTimeout, []string{"SENTINEL", "MASTER", serviceName},
			[]string{"SENTINEL", "REPLICAS", serviceName}, []string{"SENTINEL", "SENTINELS", serviceName})
		if err != nil {
			return fmt.Errorf("%s: %w", n.Addr(), err)
		}
		m := fields(replies[0])
		if m["port"] != strconv.Itoa(master.port) || m["flags"] != "master" || m["num-slaves"] != "2" || m["num-other-sentinels"] != "2" {
			return fmt.Errorf("%s sees a %q on port %s with %s replicas, and %s other Sentinels", n.Addr(),
				m["flags"], m["port"], m["num-slaves"], m["num-other-sentinels"])
		}
		for i, healthy := range map[int]string{1: "slave", 2: "sentinel"} {
			list, _ := replies[i].([]any)
			for _, item := range list {
				f := fields(item)
				if f["flags"] != healthy || healthy == "slave" && f["master-link-status"] != "ok" {
					return fmt.Errorf("%s sees a %q on port %s, link %q", n.Addr(), f["flags"], f["port"], f["master-link-status"])
				}
			}
		}
	}
	return nil
}

// WaitReady waits until the set is whole again: one master with two replicas
// that are up to date, and every Sentinel sees all of that. After a failover it
// takes some 20 seconds until the Sentinels have turned the old master into a
// replica and looked again. The test ends after 60 seconds.
func (s *SentinelSet) WaitReady(t testing.TB) {
	t.Helper()
	if err := await(2*settleWithin, func() error { return errors.Join(s.replicated(), s.agreed()) }); err != nil {
		t.Fatalf("madcrowtest: WaitReady: %v", err)
	}
}

// ServiceName returns the name of the master, "mymaster".
func (s *SentinelSet) ServiceName() string { return serviceName }

// Nodes returns the servers that hold data. The first one was the master at
// the start.
func (s *SentinelSet) Nodes() []*Server { return slices.Clone(s.nodes) }

// Sentinels returns the Sentinels. They know the methods of every server, and
// answer commands of Sentinels only.
func (s *SentinelSet) Sentinels() []*Server { return slices.Clone(s.sentinels) }

// Replicas returns the servers that hold data, without the [SentinelSet.Master].
func (s *SentinelSet) Replicas() []*Server {
	master := s.Master()
	return slices.DeleteFunc(s.Nodes(), func(n *Server) bool { return n == master })
}

// Config returns what madcrow.Open needs to find the master: the Sentinels,
// the name of the master, and the passwords, user and TLS of the options. All
// else has its default.
func (s *SentinelSet) Config() madcrow.Config {
	cfg := s.nodes[0].Config()
	cfg.Host, cfg.Port = "", 0
	cfg.Sentinel = madcrow.Sentinel{
		Enabled: true, Addresses: addresses(s.sentinels), ServiceName: serviceName,
		Password: madcrow.Secret(s.sentinels[0].set.password),
	}
	return cfg
}

func addresses(nodes []*Server) []string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = n.Addr()
	}
	return out
}

// Master returns the master, as the best informed of those Sentinels says that
// run. It may be dead. When no Sentinel answers it is the one that was last
// known.
func (s *SentinelSet) Master() *Server {
	var newest int64 = -1
	var found *Server
	for _, n := range serving(s.sentinels) {
		if master, epoch, err := s.masterBy(n); err == nil && epoch > newest {
			newest, found = epoch, master
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found != nil {
		s.last = found
	}
	return s.last
}

// masterBy asks one Sentinel for the master. Of two answers that differ, that
// of the higher epoch is right.
func (s *SentinelSet) masterBy(sentinel *Server) (master *Server, epoch int64, err error) {
	replies, err := sentinel.exchange(askTimeout, []string{"SENTINEL", "GET-MASTER-ADDR-BY-NAME", serviceName},
		[]string{"SENTINEL", "MASTER", serviceName})
	if err != nil {
		return nil, 0, err
	}
	if addr, ok := replies[0].([]any); ok && len(addr) == 2 {
		for _, n := range s.nodes {
			if addr[1] == strconv.Itoa(n.port) {
				epoch, err = strconv.ParseInt(fields(replies[1])["config-epoch"], 10, 64)
				return n, epoch, err
			}
		}
	}
	return nil, 0, fmt.Errorf("%s names the master %v", sentinel.Addr(), replies[0])
}

// Failover makes the Sentinels promote a replica although the master lives
// (SENTINEL FAILOVER). It returns once all Sentinels that run name the new
// master and that one holds itself for it, or ends the test after 30 seconds.
// The old master does not know yet, and for some 10 seconds still takes
// writes, which are lost; [SentinelSet.WaitReady] waits for the end of that.
func (s *SentinelSet) Failover(t testing.TB) {
	t.Helper()
	old := s.Master()
	up := serving(s.sentinels)
	if len(up) == 0 {
		t.Fatal("madcrowtest: Failover: no Sentinel runs")
	}
	if err := await(settleWithin, func() error { return orderFailover(up[0]) }); err != nil {
		t.Fatalf("madcrowtest: Failover: %v", err)
	}
	err := await(settleWithin, func() error {
		for _, n := range up {
			master, _, err := s.masterBy(n)
			if err != nil {
				return err
			}
			if master == old {
				return fmt.Errorf("%s still names %s", n.Addr(), old.Addr())
			}
		}
		return isMaster(s.Master())
	})
	if err != nil {
		t.Fatalf("madcrowtest: Failover: %v", err)
	}
}

// orderFailover gives the order. One that is under way already is as good.
func orderFailover(sentinel *Server) error {
	_, err := sentinel.ask("SENTINEL", "FAILOVER", serviceName)
	if err != nil && strings.Contains(err.Error(), "INPROG") {
		return nil
	}
	return err
}

func isMaster(n *Server) error {
	info, err := n.replication()
	if err == nil && info["role"] != "master" {
		err = fmt.Errorf("%s is a %s", n.Addr(), info["role"])
	}
	return err
}
