package madcrow_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// deafConn stops passing anything once INFO was written: a firewall that
// forgot the flow.
type deafConn struct {
	net.Conn
	on   *atomic.Bool
	deaf atomic.Bool
	end  chan struct{}
	once sync.Once
}

func (c *deafConn) Write(p []byte) (int, error) {
	if c.deaf.Load() || c.on.Load() && bytes.Contains(p, []byte("$4\r\nINFO\r\n")) {
		c.on.Store(false)
		c.deaf.Store(true)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.deaf.Load() {
		<-c.end
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.end) })
	return c.Conn.Close()
}

// INFO on the lost flow had CommandTimeout, and no connection was made until it
// ended.
func TestProber_OneLostFlowCostsASecondAtMost(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.CommandTimeout = 5 * time.Second
	var on atomic.Bool
	on.Store(true)
	cfg.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &deafConn{Conn: c, on: &on, end: make(chan struct{})}, nil
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		err := r.Do(ctx, get(r, "a")).Err()
		cancel()
		if err == nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal(err)
		}
	}
	if d := time.Since(start); d > testkit.Slack(time.Second) {
		t.Errorf("one flow was lost, Redis and the network were fine: calls failed for %v", d)
	}
}
