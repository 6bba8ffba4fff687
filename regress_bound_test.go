package madcrow_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestRegress_IdleStreamConnectionsStarveThePool(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 5
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	mustSet(t, r, "a", "1")
	c := r.Client()
	var streams []rueidis.RedisResultStream
	for range 4 {
		streams = append(streams, c.DoStream(t.Context(), c.B().Get().Key("a").Build()))
	}
	for i := range streams {
		var b strings.Builder
		if _, err := streams[i].WriteTo(&b); err != nil {
			t.Log(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	_, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error { tx.Queue(incr("n")); return nil })
	if err != nil {
		t.Errorf("nothing runs, and yet: %v", err)
	}
}

func TestRegress_DedicatedCloseLeaksThePermit(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	d, _ := r.Client().Dedicate()
	d.Close() // rueidis: closes the connection and gives the slot back
	_, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error { tx.Queue(incr("n")); return nil })
	if err != nil {
		t.Error(err)
	}
}

func TestRegress_PanicInQueuedBuildLeavesTheWatch(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	func() {
		defer func() { _ = recover() }()
		_, _ = r.Tx(t.Context(), []string{"a"}, func(tx *madcrow.Tx) error {
			tx.Queue(func(builder) command { panic("boom") })
			return nil
		})
	}()
	mustSet(t, r, "a", "other")
	d, release := r.Client().Dedicate()
	defer release()
	res := d.DoMulti(t.Context(), d.B().Multi().Build(), d.B().Incr().Key("n").Build(), d.B().Exec().Build())
	if err := res[2].Error(); err != nil {
		t.Errorf("a transaction without a watch failed: %v", err)
	}
}

// A statement on one borrowed connection must not reach the next borrower.
func TestRegress_TxLeavesMultiOn(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	_, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error {
		_, err := tx.Do(arbitrary("MULTI"))
		return err
	})
	t.Log(err)
	msg, err := r.DoBulk(t.Context(), set("a", "1"))
	v, _ := msg.ToString()
	if v != "OK" || s.Do(t, "GET", "a") != "1" {
		t.Errorf("SET said %q, %v, and the key is %v", v, err, s.Do(t, "GET", "a"))
	}
}

type nosy struct {
	madcrow.NopRecorder
	r atomic.Pointer[madcrow.Redis]
}

func (n *nosy) StateChange(_, _ madcrow.State) {
	if r := n.r.Load(); r != nil {
		_ = r.State()
	}
}

func TestRegress_RecorderThatAsksTheStateDeadlocks(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	rec := &nosy{}
	cfg.Recorder = rec
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	await(t, r, madcrow.StateUp, 5*time.Second)
	rec.r.Store(r)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	within(t, "Close", time.Second, func() { _ = r.Close(ctx) })
}
