//go:build unix

package madcrowtest

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
)

func TestStartSentinel_HasItsRolesAndSettings(t *testing.T) {
	CheckLeaks(t)
	s := StartSentinel(t, WithArgs("--min-replicas-to-write", "1"))
	if len(s.Nodes()) != 3 || len(s.Sentinels()) != 3 || s.Master() != s.Nodes()[0] || len(s.Replicas()) != 2 {
		t.Fatalf("%d nodes, %d Sentinels, master %s, %d replicas", len(s.Nodes()), len(s.Sentinels()), s.Master().Addr(), len(s.Replicas()))
	}
	wantRole(t, s.Master(), "master")
	for _, r := range s.Replicas() {
		wantRole(t, r, "slave")
	}
	for _, n := range s.Nodes() {
		wantSetting(t, n, "save", "")
		wantSetting(t, n, "appendonly", "no")
		wantSetting(t, n, "min-replicas-to-write", "1")
	}
	for _, n := range s.Sentinels() {
		wantRole(t, n, "sentinel")
		m := fields(n.Do(t, "SENTINEL", "MASTER", s.ServiceName()))
		for name, want := range map[string]string{
			"down-after-milliseconds": "1000", "failover-timeout": "3000", "parallel-syncs": "1", "quorum": "2",
			"num-slaves": "2", "num-other-sentinels": "2", "flags": "master", "port": strconv.Itoa(s.Master().Port()),
		} {
			if m[name] != want {
				t.Errorf("%s: %s is %q, want %q", n.Addr(), name, m[name], want)
			}
		}
		if OlderThan(t, "7.0") {
			continue // it cannot be changed there
		}
		if debug := fields(n.Do(t, "SENTINEL", "DEBUG")); debug["PUBLISH-PERIOD"] != "2000" {
			t.Errorf("%s was left with a publish period of %q ms", n.Addr(), debug["PUBLISH-PERIOD"])
		}
	}
	c := openSet(t, s.Config())
	setSoon(t, c, "k", "v")
	for _, n := range s.Nodes() {
		testkit.Eventually(t, "the value to be on "+n.Addr(), func() bool { return n.Do(t, "GET", "k") == "v" })
	}
}

func TestSentinelSet_FailoverPromotesAReplica(t *testing.T) {
	s := StartSentinel(t)
	old := s.Master()
	old.Do(t, "SET", "k", "v")
	if got := old.Do(t, "WAIT", "2", "1000"); got != int64(2) {
		t.Fatalf("%v replicas have the value", got)
	}
	s.Failover(t)
	if s.Master() == old || slices.Contains(s.Replicas(), s.Master()) || !slices.Contains(s.Replicas(), old) {
		t.Errorf("the master is %s, and was %s", s.Master().Addr(), old.Addr())
	}
	wantRole(t, s.Master(), "master")
	for _, n := range s.Sentinels() {
		if m, _, err := s.masterBy(n); m != s.Master() || err != nil {
			t.Errorf("%s names another master, %v", n.Addr(), err)
		}
	}
	if got := s.Master().Do(t, "GET", "k"); got != "v" {
		t.Errorf("the new master holds %v", got)
	}
	if err := s.agreed(); err == nil {
		t.Error("the set is whole at once: what does WaitReady wait for?")
	}
}

func TestSentinelSet_AKilledMasterIsReplaced(t *testing.T) {
	s := StartSentinel(t, WithPassword(`a "p" w`), WithSentinelPassword("other pw"))
	wantStrangersOut(t, append(s.Nodes(), s.Sentinels()...), "-NOAUTH")
	if cfg := s.Config(); cfg.Password != `a "p" w` || cfg.Sentinel.Password != "other pw" {
		t.Error("Config lacks a password")
	}
	c := openSet(t, s.Config())
	setSoon(t, c, "k", "before")
	old := s.Master()
	start := time.Now()
	old.Kill()
	// Usually 2 to 3 seconds; 6 more where the Sentinels' votes were split.
	if err := await(15*time.Second, func() error { return isMaster(s.Master()) }); err != nil {
		t.Fatal(err)
	}
	t.Logf("a new master after %v", time.Since(start))
	if s.Master() == old {
		t.Fatal("the dead one is the master")
	}
	setSoon(t, c, "k", "after")
	if got := s.Master().Do(t, "GET", "k"); got != "after" {
		t.Errorf("the new master holds %v", got)
	}
}

func TestSentinelSet_MasterIsKnownWithoutSentinels(t *testing.T) {
	s := StartSentinel(t)
	old := s.Master()
	s.Sentinels()[0].Kill()
	s.Failover(t)
	want := s.Master()
	s.Sentinels()[0].Start() // as it was before the failover
	if stale, _, err := s.masterBy(s.Sentinels()[0]); stale != old || err != nil {
		t.Logf("the first Sentinel has heard of the failover already, %v", err)
	}
	if s.Master() != want || want == old {
		t.Error("a Sentinel that has not heard of the failover is believed")
	}
	s.Sentinels()[0].Kill()
	s.Sentinels()[1].Pause()
	if s.Master() != want {
		t.Error("with one Sentinel the master is another")
	}
	s.Sentinels()[2].Stop()
	start := time.Now()
	if s.Master() != want {
		t.Error("without Sentinels the master is another")
	}
	if took := time.Since(start); took > askTimeout/2 {
		t.Errorf("it took %v: it asked those that are away", took)
	}
	var failed string
	runFake(t, func(f *fakeTB) { s.Failover(f) }, func(f *fakeTB) { failed = f.fatal })
	if failed == "" {
		t.Error("Failover without Sentinels did not fail")
	}
}

func TestSentinelSet_ASentinelThatReturnsKnowsTheOthers(t *testing.T) {
	s := StartSentinel(t, WithSentinelPassword("pw"))
	gone := s.Sentinels()[1]
	port := gone.Port()
	gone.Kill()
	if s.agreed() == nil {
		t.Error("a set without a Sentinel is called whole")
	}
	gone.Start()
	if m := fields(gone.Do(t, "SENTINEL", "MASTER", s.ServiceName())); gone.Port() != port || m["num-other-sentinels"] != "2" {
		t.Errorf("on port %d it knows %q others", gone.Port(), m["num-other-sentinels"])
	}
	s.WaitReady(t)
}

func TestSentinelSet_TLSIsEverywhere(t *testing.T) {
	s := StartSentinel(t, WithMutualTLS(), WithUser("app", "pw"), WithSentinelPassword("spw"))
	wantStrangersOut(t, append(s.Nodes(), s.Sentinels()...), "")
	for _, n := range append(s.Nodes(), s.Sentinels()...) {
		if n.CAFile() != s.Config().TLS.CAFile || n.CAFile() == "" {
			t.Errorf("%s has an authority of its own", n.Addr())
		}
	}
	c := openSet(t, s.Config())
	if got := c.Do(t.Context(), c.B().AclWhoami().Build()); got.Error() != nil || got.String() == "" {
		t.Errorf("ACL WHOAMI: %v", got.Error())
	} else if name, _ := got.ToString(); name != "app" {
		t.Errorf("connected as %s", name)
	}
	old := s.Master()
	s.Failover(t)
	if s.Master() == old {
		t.Error("the master is the old one")
	}
	// The old one takes writes, too, until the client has asked again.
	testkit.Eventually(t, "a write to reach the new master", func() bool {
		return set(t, c, "k", "v") == nil && s.Master().Do(t, "GET", "k") == "v"
	})
}

func TestSentinelSet_ProxiesAreInTheWay(t *testing.T) {
	CheckLeaks(t)
	s := StartSentinel(t)
	cfg, proxies := s.Proxied(t)
	if len(proxies) != 6 {
		t.Fatalf("%d proxies", len(proxies))
	}
	if conn, err := cfg.Dialer(t.Context(), "tcp", "127.0.0.1:1"); err == nil || conn != nil {
		t.Error("an address without a proxy was dialled")
	}
	c := openSet(t, cfg)
	setSoon(t, c, "k", "v")
	old := proxies[s.Master().Addr()]
	if old.Conns() == 0 {
		t.Fatal("the client reached the master by another way")
	}
	old.BlackHole(true)
	if err := set(t, c, "k", "lost"); err == nil {
		t.Error("a write passed the black hole")
	}
	if got := s.Master().Do(t, "GET", "k"); got != "v" {
		t.Errorf("the master holds %v", got)
	}
	s.Failover(t)
	if proxies[s.Master().Addr()] == old {
		t.Fatal("the proxy of the new master is that of the old")
	}
	setSoon(t, c, "k", "new") // the old one is in the dark
	if proxies[s.Master().Addr()].Conns() == 0 || s.Master().Do(t, "GET", "k") != "new" {
		t.Error("the client reached the new master by another way")
	}
	for _, n := range s.Sentinels() {
		proxies[n.Addr()].Refuse(true)
		proxies[n.Addr()].ResetAll()
	}
	if conn, err := cfg.Dialer(context.Background(), "tcp", s.Sentinels()[0].Addr()); err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a Sentinel was reached by another way")
		}
		_ = conn.Close()
	}
}

func TestStartSentinel_LeavesNothingBehind(t *testing.T) {
	CheckLeaks(t)
	var all []*Server
	var were []int
	t.Run("inner", func(t *testing.T) {
		s := StartSentinel(t)
		all = append(s.Nodes(), s.Sentinels()...)
		were = pids(t, all)
		s.Master().Pause()
		s.Replicas()[0].Kill()
		s.Sentinels()[0].Pause()
	})
	wantGone(t, all, were)
}

func TestStartSentinel_ReplicasHaveEveryWriteFromTheStart(t *testing.T) {
	for range 5 {
		s := StartSentinel(t)
		s.Master().Do(t, "SET", "a", "1")
		start := time.Now()
		for _, r := range s.Replicas() {
			testkit.Eventually(t, "the write on "+r.Addr(), func() bool { return r.Do(t, "GET", "a") == "1" })
		}
		if d := time.Since(start); d > 500*time.Millisecond {
			t.Errorf("a replica that is online was sent nothing for %v", d)
		}
	}
}
