package topology

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
)

// openCluster makes the topology of a cluster whose seeds may not exist.
func openCluster(t *testing.T, readReplicas bool, seeds ...string) (top *Topology, end func()) {
	t.Helper()
	dial := (&net.Dialer{}).DialContext
	life, stop := context.WithCancel(context.Background())
	top, err := New(life, Config{
		Node: node.Config{Conn: conn.Config{
			Log: slog.New(slog.DiscardHandler), Network: "tcp", Dial: dial,
			ConnectTimeout: time.Second, CommandTimeout: time.Second, MaxConnections: 8,
		}},
		Seeds: seeds, ReadReplicas: readReplicas, Changed: func() {},
		MapClient: conn.RESPConfig{Dial: dial, Timeout: time.Second, Credentials: func() (user, password string) { return "", "" }},
	})
	if err != nil {
		t.Fatal(err)
	}
	top.Start()
	end = func() {
		top.Refuse(fault.NotSent("closed", fault.KindUnavailable, fault.ErrClosed))
		stop()
		top.Close()
	}
	return top, end
}
