package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/service"
)

// redisOf is the member redis of /health.
func (w *web) redisOf() (m map[string]any, body string) {
	w.t.Helper()
	a := w.do("GET", "/health", "")
	m, _ = a.members(w.t)["redis"].(map[string]any)
	return m, a.body
}

// number finds a number such as "cluster.nodes"; -1 when there is none.
func number(m map[string]any, path string) int {
	group, member, _ := strings.Cut(path, ".")
	inner, _ := m[group].(map[string]any)
	if n, ok := inner[member].(float64); ok {
		return int(n)
	}
	return -1
}

// wantTopology are the figures that /health shall come to, by mode.
var wantTopology = map[string]map[string]int{
	"embedded":   {}, // it says nothing of replication
	"standalone": {"replicas.connected": 0},
	"sentinel":   {"replicas.online": 2, "sentinels.known": 3, "sentinels.quorum": 2, "sentinels.replicas": 2},
	"cluster":    {"cluster.slots_covered": 16384, "cluster.nodes": 3, "cluster.nodes_available": 3, "replicas.online": 3},
}

func modeOf(cfg madcrow.Config) string {
	switch {
	case cfg.Embedded:
		return "embedded"
	case cfg.Sentinel.Enabled:
		return "sentinel"
	case cfg.Cluster.Enabled:
		return "cluster"
	}
	return "standalone"
}

func healthShowsTheTopology(t *testing.T, cfg madcrow.Config) {
	for _, details := range []bool{false, true} {
		w := startWeb(t, cfg, func(o *Options) { o.HealthDetails = details }).waitAvailable()
		mode := modeOf(cfg)
		for path, want := range wantTopology[mode] {
			w.waitHealth(func(m map[string]any) bool { return number(m, path) == want }, fmt.Sprint(path, " = ", want))
		}
		m, body := w.redisOf()
		if single := mode == "standalone" || mode == "sentinel"; (m["role"] == "master") != single {
			t.Errorf("role %v: %s", m["role"], body)
		}
		if n := number(m, "replicas.max_lag_seconds"); n > 5 || n < 0 && mode != "embedded" {
			t.Errorf("lag %d: %s", n, body)
		}
		if !details {
			for _, address := range []string{"127.0.0.1", `"master":"`, `"masters":`, `"nodes":[`} {
				if strings.Contains(body, address) {
					t.Errorf("/health shows %s: %s", address, body)
				}
			}
			continue
		}
		want := map[string]int{"standalone": 1, "sentinel": 3, "cluster": 6}[mode]
		if n := strings.Count(body, "127.0.0.1:"); n != want {
			t.Errorf("%d addresses with details, want %d: %s", n, want, body)
		}
	}
}

func (w *web) waitHealth(ok func(map[string]any) bool, what string) {
	w.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		m, body := w.redisOf()
		if ok(m) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("not %s within 15 s: %s", what, body)
		}
	}
}

// A lost master of a cluster: its keys get a 503 until a replica has taken
// over, all others are served.
func TestFailure_ClusterMasterKilledTakesItsKeysOnly(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	w := startWeb(t, c.Config()).waitAvailable()
	w.waitHealth(func(m map[string]any) bool { return number(m, "cluster.nodes_available") == 3 }, "all nodes available")
	dead, other := c.MasterOf(t, "a"), ""
	for i := 0; other == ""; i++ {
		if k := fmt.Sprint("k", i); c.MasterOf(t, k) != dead {
			other = k
		}
	}
	dead.Kill()
	begin := time.Now()
	refused := 0
	for {
		if a := w.do("GET", api+"/cache/"+other, ""); a.status != http.StatusOK {
			t.Errorf("a key of another node: %d %s", a.status, a.body)
		}
		a := w.do("POST", api+"/cache", `{"key":"a","value":"b"}`)
		if a.status == http.StatusOK {
			break
		}
		if refused++; refused == 1 || a.status != http.StatusGatewayTimeout {
			w.wantProblem(a, 503, "REDIS_UNAVAILABLE", "set", service.TableCache)
			wantNoRedisText(t, a, dead)
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("the slots of a killed master do not come back")
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("its keys were served again after %v, %d requests were refused", time.Since(begin), refused)
	w.waitHealth(func(m map[string]any) bool {
		return m["state"] == "up" && number(m, "cluster.nodes_available") == 3
	}, "up again with three nodes")
}

// A lost master under Sentinel: every route that needs Redis gets a 503 until
// the Sentinels have promoted another.
func TestFailure_SentinelMasterKilledIs503UntilThePromotion(t *testing.T) {
	set := madcrowtest.StartSentinel(t)
	w := startWeb(t, set.Config()).waitAvailable()
	old := set.Master()
	old.Kill()
	begin := time.Now()
	refused := 0
	for {
		a := w.do("POST", api+"/cache", `{"key":"a","value":"b"}`)
		if a.status == http.StatusOK {
			break
		}
		if refused++; a.status != http.StatusGatewayTimeout {
			w.wantProblem(a, 503, "REDIS_UNAVAILABLE", "set", service.TableCache)
			wantNoRedisText(t, a, old)
		}
		if a := w.do("GET", api+"/data/1", ""); a.status != http.StatusOK {
			t.Errorf("optional Redis: %d %s", a.status, a.body)
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("no master after 20 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("written again after %v, %d requests were refused", time.Since(begin), refused)
	if refused == 0 || set.Master() == old {
		t.Error("nothing was tested")
	}
}
