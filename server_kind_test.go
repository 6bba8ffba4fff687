package madcrow_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// A server of another kind than the settings say was "up", or named nothing
// to change. In production the start fails at once instead.
func TestConnect_WrongKindOfServerIsNamed(t *testing.T) {
	cluster, set := madcrowtest.StartCluster(t), madcrowtest.StartSentinel(t)
	single := madcrowtest.StartRedis(t)
	at := func(s *madcrowtest.Server) madcrow.Config {
		return madcrow.Config{Host: "127.0.0.1", Port: s.Port()}
	}
	db := at(cluster.Nodes()[0])
	db.DB = 1
	noDB := at(single)
	noDB.DB = 16
	noSelect := at(madcrowtest.StartRedis(t, madcrowtest.WithArgs("--rename-command", "SELECT", "")))
	noSelect.DB = 1
	for _, tc := range []struct {
		name string
		cfg  madcrow.Config
		kind madcrow.Kind
		text []string
	}{
		{"node of a cluster as standalone", at(cluster.Nodes()[0]), madcrow.KindConfig, []string{"node of a cluster", "REDIS_USE_CLUSTERS=true", "REDIS_CLUSTERS"}},
		{"replica of a cluster as standalone", at(cluster.Nodes()[4]), madcrow.KindConfig, []string{"node of a cluster", "REDIS_USE_CLUSTERS=true"}},
		{"node of a cluster, database 1", db, madcrow.KindUnavailable, []string{"REDIS_DB=0", "REDIS_USE_CLUSTERS=true"}},
		{"Sentinel as Redis", at(set.Sentinels()[0]), madcrow.KindConfig, []string{"this is a Sentinel", "REDIS_USE_SENTINEL=true", "REDIS_SENTINELS"}},
		{"standalone as cluster", madcrow.Config{Cluster: madcrow.Cluster{Enabled: true, Addresses: []string{single.Addr()}}}, madcrow.KindConfig, []string{"REDIS_USE_CLUSTERS=false"}},
		{"Sentinel as cluster", madcrow.Config{Cluster: madcrow.Cluster{Enabled: true, Addresses: []string{set.Sentinels()[0].Addr()}}}, madcrow.KindConfig, []string{"REDIS_USE_CLUSTERS=false"}},
		{"Redis as Sentinel", madcrow.Config{Sentinel: madcrow.Sentinel{Enabled: true, ServiceName: "m", Addresses: []string{single.Addr()}}}, madcrow.KindConfig, []string{"this is no Sentinel", "REDIS_SENTINELS", "REDIS_USE_SENTINEL=false"}},
		{"no such database", noDB, madcrow.KindUnavailable, []string{"REDIS_DB=0"}},
		{"no SELECT", noSelect, madcrow.KindUnavailable, []string{"REDIS_DB=0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := tc.cfg
			cfg.Require = true
			start := time.Now()
			if r, err := madcrow.Open(t.Context(), cfg); err == nil {
				_ = r.Close(t.Context())
				t.Error("Open succeeded")
			} else {
				wantError(t, err, tc.kind, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, tc.text...)
			}
			if d := time.Since(start); d > testkit.Slack(500*time.Millisecond) {
				t.Errorf("Open took %v, want no wait for what will not mend", d)
			}

			log := &lines{}
			cfg.Require, cfg.Logger = false, slog.New(slog.NewTextHandler(log, nil))
			r := open(t, cfg)
			await(t, r, madcrow.StateDown, testkit.Slack(time.Second))
			for range 20 {
				err := r.Do(t.Context(), get(r, "a")).Err()
				wantError(t, err, tc.kind, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, tc.text...)
				var e *madcrow.Error
				if errors.As(err, &e) && e.Problem().Status != 503 {
					t.Errorf("HTTP %d", e.Problem().Status)
				}
				time.Sleep(time.Millisecond)
			}
			if n := log.count(tc.text[0]); n > 1 {
				t.Errorf("the log says it %d times", n)
			}
		})
	}
}

// A cluster of one node has all keys, so that it serves as a standalone Redis
// does. When it gets a second one, the callers of the keys that moved are refused
// of the setting, and the others go on.
func TestConnect_ClusterOfOneNodeServesAsStandalone(t *testing.T) {
	for _, hidden := range []bool{false, true} {
		t.Run(fmt.Sprint("hidden ", hidden), func(t *testing.T) {
			opts := []madcrowtest.Option{madcrowtest.WithArgs("--cluster-enabled", "yes")}
			if hidden {
				opts = append(opts, madcrowtest.WithUser("app", "pw", "~*", "&*", "+@all", "-info", "-hello"))
			}
			s := madcrowtest.StartRedis(t, opts...)
			other := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--cluster-enabled", "yes"))
			slots := []string{"CLUSTER", "ADDSLOTS"} // ADDSLOTSRANGE came with Redis 7.0
			for slot := range 16384 {
				slots = append(slots, strconv.Itoa(slot))
			}
			s.Do(t, slots...)
			for end := time.Now().Add(5 * time.Second); s.Do(t, "SET", "a", "1") != "OK" && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			}
			log := &lines{}
			cfg := s.Config()
			cfg.Require, cfg.Logger = true, slog.New(slog.NewTextHandler(log, nil))
			r := open(t, cfg)
			for i := range 50 {
				mustSet(t, r, fmt.Sprint("k", i), "1")
			}
			if st := r.Status(); st.State != madcrow.StateUp || st.Err != nil {
				t.Fatalf("%v: %v", st.State, st.Err)
			}

			id, _ := other.Do(t, "CLUSTER", "MYID").(string)
			s.Do(t, "CLUSTER", "MEET", "127.0.0.1", fmt.Sprint(other.Port()))
			for end := time.Now().Add(10 * time.Second); !strings.Contains(s.Do(t, "CLUSTER", "NODES").(string), id) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			}
			slot := fmt.Sprint(s.Do(t, "CLUSTER", "KEYSLOT", "moved"))
			if reply := s.Do(t, "CLUSTER", "SETSLOT", slot, "NODE", id); reply != "OK" {
				t.Fatal(reply)
			}
			for range 3 {
				err := r.Do(t.Context(), set(r, "moved", "1")).Err()
				wantError(t, err, madcrow.KindConfig, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, "MOVED", "REDIS_USE_CLUSTERS=true")
			}
			await(t, r, madcrow.StateDegraded, testkit.Slack(time.Second))
			if err := r.Status().Err; err == nil || !strings.Contains(err.Error(), "REDIS_USE_CLUSTERS=true") {
				t.Errorf("the state says %v", err)
			}
			if n := log.count("REDIS_USE_CLUSTERS=true"); n != 1 {
				t.Errorf("the log says it %d times", n)
			}
			mustSet(t, r, "k1", "2")
		})
	}
}

// A server without scripts was up until the first of them failed.
func TestConnect_ServerWithoutScriptsIsNamed(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--rename-command", "EVALSHA", "", "--rename-command", "EVAL", ""))
	log := &lines{}
	cfg := s.Config()
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	r := open(t, cfg)
	await(t, r, madcrow.StateDegraded, testkit.Slack(time.Second))
	if err := r.Status().Err; !errors.Is(err, madcrow.ErrNoScripts) {
		t.Errorf("the state says %v", err)
	}
	err := r.Eval(t.Context(), madcrow.NewScript("one", "return 1"), nil, nil).Err()
	wantError(t, err, madcrow.KindServer, madcrow.ErrNoScripts, madcrow.OutcomeNotApplied)
	mustSet(t, r, "a", "1")
	if n := log.count("redis refuses scripts"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
}

// It was not said which password a cluster lacks, and production waited 5 s.
func TestCluster_PasswordIsNamed(t *testing.T) {
	c := madcrowtest.StartCluster(t, madcrowtest.WithPassword("right"))
	for _, password := range []string{"", "wrong-one"} {
		cfg := c.Config()
		cfg.Password, cfg.Cluster.Password, cfg.Require = "", madcrow.Secret(password), true
		start := time.Now()
		r, err := madcrow.Open(t.Context(), cfg)
		if err == nil {
			_ = r.Close(t.Context())
			t.Fatal("Open succeeded")
		}
		wantError(t, err, madcrow.KindAuth, madcrow.ErrAuth, madcrow.OutcomeNotApplied, "REDIS_CLUSTERS_PASSWORD")
		if d := time.Since(start); d > testkit.Slack(500*time.Millisecond) {
			t.Errorf("Open took %v, want no wait for what will not mend", d)
		}
		if strings.Contains(err.Error(), "wrong-one") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}
