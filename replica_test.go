package madcrow_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// calls counts the GETs that a server has answered.
func calls(t *testing.T, s *madcrowtest.Server) (n int) {
	t.Helper()
	text, _ := s.Do(t, "INFO", "commandstats").(string)
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_get:calls="); ok {
			_, _ = fmt.Sscanf(rest, "%d", &n)
		}
	}
	return n
}

func TestDoReplica_AsksAReplicaAndFallsBackToTheMaster(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	set := madcrowtest.StartSentinel(t)
	cluster := madcrowtest.StartCluster(t)
	for _, tc := range []struct {
		name     string
		cfg      madcrow.Config
		replicas func() []*madcrowtest.Server
	}{
		{"Sentinel", set.Config(), set.Replicas},
		{"Cluster", cluster.Config(), func() []*madcrowtest.Server { return []*madcrowtest.Server{cluster.ReplicaOf(t, "a")} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cfg.ReadReplicas = true
			r := open(t, tc.cfg)
			await(t, r, madcrow.StateUp, 10*time.Second)
			mustSet(t, r, "a", "1")
			replicas := tc.replicas()
			read := func() {
				msg, err := r.Do(t.Context(), get(r, "a"), madcrow.Replica).Message()
				if err != nil {
					t.Fatal(err)
				}
				if v, _ := msg.ToString(); v != "1" && !msg.IsNil() {
					t.Fatalf("read %q", v)
				}
			}
			served := func() (n int) {
				for _, s := range replicas {
					n += calls(t, s)
				}
				return n
			}
			testkit.Eventually(t, "no replica was asked", func() bool {
				before := served()
				read()
				return served() > before
			})
			// The arguments that are kept for the master were not given back.
			names := strings.Split("{a}1 {a}2 {a}3 {a}4 {a}5 {a}6 {a}7 {a}8 {a}9 {a}0", " ")
			exists := func() { _ = r.Do(t.Context(), r.B().Exists().Key(names...).Build(), madcrow.Replica).Err() }
			least := testing.AllocsPerRun(500, exists)
			for range 4 {
				least = min(least, testing.AllocsPerRun(500, exists))
			}
			if least > 0 && !testkit.Race {
				t.Errorf("a read of 11 arguments: %v allocations", least)
			}
			if err := r.Do(t.Context(), incr(r, "n"), madcrow.Replica).Err(); err != nil {
				t.Errorf("a write with Replica: %v", err)
			}
			for _, s := range replicas {
				s.Kill()
			}
			for range 50 {
				read() // not one may fail
				time.Sleep(time.Millisecond)
			}
		})
	}
}
