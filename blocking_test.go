package madcrow_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestDoBlocking_WaitsInRedisAndIsCancelled(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	_, r := server(t)
	pop := func(b builder) command { return b.Blpop().Key("queue").Timeout(1).Build() }
	time.AfterFunc(700*time.Millisecond, func() { // later than the command timeout
		_, _ = r.Do(context.Background(), arbitrary("RPUSH", "queue", "job"))
	})
	msg, err := r.DoBlocking(t.Context(), time.Second, pop)
	if v, _ := msg.AsStrSlice(); err != nil || len(v) != 2 || v[1] != "job" {
		t.Errorf("BLPOP: %v, %v", msg, err)
	}
	if msg, err := r.DoBlocking(t.Context(), time.Second, pop); err != nil || !msg.IsNil() {
		t.Errorf("BLPOP of an empty list: %v, %v", msg, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	start := time.Now()
	_, err = r.DoBlocking(ctx, time.Second, pop)
	wantError(t, err, madcrow.KindCanceled, madcrow.ErrCanceled, madcrow.OutcomeUnknown)
	if d := time.Since(start); d > 20*time.Millisecond+testkit.Slack(50*time.Millisecond) {
		t.Errorf("cancelled after 20 ms, returned after %v", d)
	}
}

// The connection stayed taken until BLPOP ended at the server, and the job that
// came meanwhile went to a caller that had left.
func TestDoBlocking_GivesItsConnectionUpWhenItIsCancelled(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3 // one for the pool
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := r.DoBlocking(ctx, 30*time.Second, func(b builder) command { return b.Blpop().Key("queue").Timeout(30).Build() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled, and %v", err)
	}
	time.Sleep(500 * time.Millisecond)
	s.Do(t, "RPUSH", "other", "x")
	_, err = r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error { tx.Queue(incr("n")); return nil })
	if err != nil {
		t.Errorf("500 ms after the cancellation the only connection is still taken: %v", err)
	}
	s.Do(t, "RPUSH", "queue", "job")
	if n := s.Do(t, "LLEN", "queue"); n != int64(1) {
		t.Errorf("the job was taken by a call that ended 1 s ago")
	}
}

// A blocking command built by Arbitrary was ended by CommandTimeout.
func TestDoBlocking_TakesACommandThatTheBuilderDoesNotKnow(t *testing.T) {
	_, r := server(t)
	start := time.Now()
	msg, err := r.DoBlocking(t.Context(), 3*time.Second, arbitrary("BLPOP", "queue", "3"))
	if err != nil || !msg.IsNil() {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}
