package madcrow_test

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// Each call and each timer dialled for itself.
func TestDial_FewWhileAllSentinelsOrNodesAreDown(t *testing.T) {
	modes := []string{"sentinel"}
	if testkit.Chaos {
		modes = append(modes, "cluster", "cluster-one")
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			var cfg madcrow.Config
			var nodes []*madcrowtest.Server
			if mode != "sentinel" {
				c := madcrowtest.StartCluster(t)
				cfg, nodes = c.Config(), c.Nodes()
				if mode == "cluster-one" {
					nodes = []*madcrowtest.Server{c.MasterOf(t, "foo"), c.ReplicaOf(t, "foo")}
				}
			} else {
				s := madcrowtest.StartSentinel(t)
				cfg, nodes = s.Config(), append(s.Nodes(), s.Sentinels()...)
			}
			var mu sync.Mutex
			dials := map[string]int{}
			cfg.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
				mu.Lock()
				dials[addr]++
				mu.Unlock()
				return (&net.Dialer{}).DialContext(ctx, network, addr)
			}
			r := open(t, cfg)
			await(t, r, madcrow.StateUp, 5*time.Second)
			for _, n := range nodes {
				n.Kill()
			}
			time.Sleep(2 * time.Second)
			mu.Lock()
			clear(dials)
			mu.Unlock()
			var a, b syscall.Rusage
			_ = syscall.Getrusage(0, &a)
			time.Sleep(4 * time.Second)
			_ = syscall.Getrusage(0, &b)
			mu.Lock()
			defer mu.Unlock()
			for k, n := range dials {
				t.Logf("%s %.1f/s", k, float64(n)/4)
				if n > 22 {
					t.Errorf("%s: %.1f dials per second", k, float64(n)/4)
				}
			}
			t.Logf("cpu %v", time.Duration(b.Utime.Nano()-a.Utime.Nano()+b.Stime.Nano()-a.Stime.Nano()))
		})
	}
}
