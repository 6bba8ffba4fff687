package madcrow_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestTx_LosesNoIncrementUnderContention(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.CommandTimeout = 20 * time.Second
	r := open(t, cfg)
	var done, conflicts atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				_, err := r.Tx(t.Context(), []string{"counter"}, func(tx *madcrow.Tx) error {
					msg, err := tx.Do(get(tx, "counter")).Message()
					if err != nil {
						return err
					}
					n := int64(0)
					if !msg.IsNil() {
						n, _ = msg.AsInt64()
					}
					tx.Queue(set(tx, "counter", fmt.Sprint(n+1)))
					return nil
				})
				switch {
				case err == nil:
					done.Add(1)
				case errors.Is(err, madcrow.ErrConflict):
					conflicts.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	mustGet(t, r, "counter", fmt.Sprint(done.Load()))
	t.Logf("%d done, %d gave up after 32 tries", done.Load(), conflicts.Load())
}

func TestTx_ConflictEndsAfterItsTries(t *testing.T) {
	_, r := server(t)
	tries := 0
	_, err := r.Tx(t.Context(), []string{"a"}, func(tx *madcrow.Tx) error {
		tries++
		mustSet(t, r, "a", fmt.Sprint(tries)) // somebody else, every time
		tx.Queue(set(tx, "a", "mine"))
		return nil
	})
	wantError(t, err, madcrow.KindConflict, madcrow.ErrConflict, madcrow.OutcomeNotApplied)
	if tries != 32 {
		t.Errorf("%d tries", tries)
	}
	mustGet(t, r, "a", "32")
}

func TestTx_OwnErrorAppliesNothingAndLeavesNoWatch(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3 // one connection for transactions, so that it is used again
	r := open(t, cfg)
	own := errors.New("own")
	_, err := r.Tx(t.Context(), []string{"a"}, func(tx *madcrow.Tx) error {
		tx.Queue(set(tx, "a", "1"))
		return own
	})
	if err != own {
		t.Errorf("error is %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a panic was swallowed")
			}
		}()
		_, _ = r.Tx(t.Context(), []string{"a"}, func(*madcrow.Tx) error { panic("boom") })
	}()
	mustSet(t, r, "a", "other") // would break a watch that was left
	if _, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error {
		tx.Queue(set(tx, "b", "1"))
		return nil
	}); err != nil {
		t.Error(err)
	}
	mustGet(t, r, "a", "other")
	mustGet(t, r, "b", "1")
}

// The connection went back with the watch on: the next transaction on it conflicted,
// and a long pipeline with MULTI lost its writes without an error.
func TestTx_AnEmptyCommandLeavesNoWatch(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3 // one connection for transactions, so that it is used again
	r := open(t, cfg)
	_, err := r.Tx(t.Context(), []string{"a"}, func(tx *madcrow.Tx) error {
		tx.Queue(madcrow.Command{})
		return nil
	})
	wantError(t, err, madcrow.KindServer, madcrow.ErrServer, madcrow.OutcomeNotApplied, "is empty")
	mustSet(t, r, "a", "other") // would break a watch that was left
	tries := 0
	if _, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error {
		tries++
		tx.Queue(set(tx, "b", "1"))
		return nil
	}); err != nil || tries != 1 {
		t.Errorf("%d tries, %v", tries, err)
	}
}

func TestTx_RefusedCommandSaysWhy(t *testing.T) {
	_, r := server(t)
	_, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error {
		tx.Queue(set(tx, "a", "1"))
		tx.Queue(arbitrary(tx, "NOSUCHCOMMAND"))
		return nil
	})
	wantError(t, err, madcrow.KindServer, madcrow.ErrServer, madcrow.OutcomeNotApplied, "NOSUCHCOMMAND")
	_, err = r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error {
		tx.Queue(set(tx, "a", "1"))
		tx.Queue(arbitrary(tx, "LPUSH", "a", "x"))
		return nil
	})
	wantError(t, err, madcrow.KindWrongType, madcrow.ErrWrongType, madcrow.OutcomeUnknown)
	mustGet(t, r, "a", "1")
}

// A connection that ends during a transaction takes its WATCH along. Its EXEC
// ran on a new connection, without the watch.
func TestTx_ConnectionThatEndsEndsTheAttempt(t *testing.T) {
	s, r := server(t)
	s.Do(t, "SET", "n", "1")
	calls := 0
	_, err := r.Tx(t.Context(), []string{"n"}, func(tx *madcrow.Tx) error {
		calls++
		msg, err := tx.Do(get(tx, "n")).Message()
		if err != nil {
			return err
		}
		n, _ := msg.AsInt64()
		if calls == 1 {
			id, err := tx.Do(tx.B().ClientId().Build()).Message()
			if err != nil {
				return err
			}
			v, _ := id.AsInt64()
			s.Do(t, "CLIENT", "KILL", "ID", fmt.Sprint(v))
			time.Sleep(50 * time.Millisecond)
			s.Do(t, "SET", "n", "100") // somebody else
		}
		tx.Queue(set(tx, "n", fmt.Sprint(n+1)))
		return nil
	})
	var e *madcrow.Error
	switch v := s.Do(t, "GET", "n"); {
	case err == nil && v == "101" && calls > 1:
	case errors.As(err, &e) && e.Outcome == madcrow.OutcomeNotApplied && v == "100":
	default:
		t.Errorf("%d calls, %v, n is %v", calls, err, v)
	}
}

// The connection went back to the pool with its WATCH, and the next transaction
// on it failed.
func TestTx_PanicInAQueuedBuildLeavesNoWatch(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	func() {
		defer func() { _ = recover() }()
		_, _ = r.Tx(t.Context(), []string{"a"}, func(*madcrow.Tx) error { panic("boom") })
	}()
	mustSet(t, r, "a", "other")
	d, release := r.Client().Dedicate()
	defer release()
	res := d.DoMulti(t.Context(), d.B().Multi().Build(), d.B().Incr().Key("n").Build(), d.B().Exec().Build())
	if err := res[2].Error(); err != nil {
		t.Errorf("a transaction without a watch failed: %v", err)
	}
}

// A MULTI of the caller stayed on: the next caller of the connection had its
// commands queued.
func TestTx_RefusesMulti(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	_, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error {
		err := tx.Do(arbitrary(tx, "MULTI")).Err()
		return err
	})
	if err == nil {
		t.Error("MULTI was sent inside a transaction")
	}
	msg, err := r.Do(t.Context(), set(r, "a", "1"), madcrow.Dedicated).Message()
	v, _ := msg.ToString()
	if v != "OK" || s.Do(t, "GET", "a") != "1" {
		t.Errorf("SET said %q, %v, and the key is %v", v, err, s.Do(t, "GET", "a"))
	}
}

// A connection that once served a context without a deadline was pipelined from
// then on, and its release took a round trip that heard no context.
func TestTx_EndsInTimeAlsoWhenTheServerFreezesInIt(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	d, release := r.Client().Dedicate()
	ctx, cancel := context.WithCancel(t.Context()) // such as that of an HTTP request
	defer cancel()
	_ = d.Do(ctx, d.B().Get().Key("a").Build()).Error()
	release()
	short, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	start := time.Now()
	_, err := r.Tx(short, nil, func(tx *madcrow.Tx) error {
		s.Pause()
		return nil
	})
	if d := time.Since(start); d > testkit.Slack(400*time.Millisecond) {
		t.Errorf("Tx with 100 ms took %v: %v", d, err)
	}
	s.Resume()
}
