package madcrow_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// lazyConn's reader learns of Close 30 ms late, as on a loaded machine.
type lazyConn struct{ net.Conn }

func (c lazyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		time.Sleep(30 * time.Millisecond)
	}
	return n, err
}

// A write that was sent, and whose reply is under way, is cut off by Close
// while another caller's command is written on the dropped connection.
func TestRegress_CutOffByCloseAndAppliedAllTheSame(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	p := madcrowtest.StartProxy(t, s.Addr())
	r, err := madcrow.Open(t.Context(), madcrow.Config{Host: "127.0.0.1", Port: p.Port(), Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return lazyConn{c}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, r, madcrow.StateUp, 5*time.Second)
	p.SetDelay(300 * time.Millisecond)
	time.Sleep(10 * time.Millisecond)
	got := make(chan error, 1)
	go func() {
		_, err := r.Do(context.Background(), set("a", "1"))
		got <- err
	}()
	time.Sleep(50 * time.Millisecond) // applied, the reply is under way
	var closing atomic.Bool
	go func() {
		_, _ = r.Do(context.Background(), func(b builder) command {
			for !closing.Load() { // a slow build
				time.Sleep(time.Millisecond)
			}
			time.Sleep(5 * time.Millisecond)
			return b.Get().Key("b").Build()
		})
	}()
	time.Sleep(20 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	closing.Store(true)
	_ = r.Close(ctx)
	err = <-got
	var e *madcrow.Error
	if errors.As(err, &e) && e.Outcome == madcrow.OutcomeNotApplied && s.Do(t, "GET", "a") == "1" {
		t.Errorf("told not applied, and is there: %v", err)
	}
	t.Log(err)
}
