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
	pop := func(ctx context.Context) madcrow.Reply {
		return r.Do(ctx, r.B().Blpop().Key("queue").Timeout(1).Build(), madcrow.Blocking(time.Second))
	}
	time.AfterFunc(700*time.Millisecond, func() { // later than the command timeout
		_ = r.Do(context.Background(), arbitrary(r, "RPUSH", "queue", "job")).Err()
	})
	v, err := pop(t.Context()).Strings()
	if err != nil || len(v) != 2 || v[1] != "job" {
		t.Errorf("BLPOP: %v, %v", v, err)
	}
	if reply := pop(t.Context()); !reply.IsNil() {
		t.Errorf("BLPOP of an empty list: %v", reply.Err())
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	start := time.Now()
	err = pop(ctx).Err()
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
	err := r.Do(ctx, r.B().Blpop().Key("queue").Timeout(30).Build(), madcrow.Blocking(30*time.Second)).Err()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled, and %v", err)
	}
	time.Sleep(500 * time.Millisecond)
	s.Do(t, "RPUSH", "other", "x")
	_, err = r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error { tx.Queue(incr(tx, "n")); return nil })
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
	msg, err := r.Do(t.Context(), arbitrary(r, "BLPOP", "queue", "3"), madcrow.Blocking(3*time.Second)).Message()
	if err != nil || !msg.IsNil() {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}
