package madcrow_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

var (
	scriptWrite = madcrow.NewScript("write", "return redis.call('SET', KEYS[1], ARGV[1])")
	scriptHalf  = madcrow.NewScript("half", "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('LPUSH', KEYS[1], 'x')")
)

// TestEval_RefusalsAreThoseOfASingleCommand brings a server into each state
// that refuses writes. Inside a script, the outcome was unknown, and on Redis 6
// the kind was that of a broken server.
func TestEval_RefusalsAreThoseOfASingleCommand(t *testing.T) {
	dir, err := os.MkdirTemp(t.TempDir(), "gone")
	if err != nil {
		t.Fatal(err)
	}
	saves := madcrowtest.WithArgs("--dir", dir, "--save", "3600", "1", "--stop-writes-on-bgsave-error", "yes")
	for _, c := range []struct {
		name     string
		prepare  func(t *testing.T, s *madcrowtest.Server)
		kind     madcrow.Kind
		sentinel error
	}{
		{"read-only", func(t *testing.T, s *madcrowtest.Server) { s.Do(t, "REPLICAOF", "127.0.0.1", "1") }, madcrow.KindReadOnly, madcrow.ErrReadOnly},
		{"out of memory", func(t *testing.T, s *madcrowtest.Server) {
			s.Do(t, "CONFIG", "SET", "maxmemory-policy", "noeviction")
			s.Do(t, "CONFIG", "SET", "maxmemory", "1000")
		}, madcrow.KindOutOfMemory, madcrow.ErrOutOfMemory},
		{"no replicas", func(t *testing.T, s *madcrowtest.Server) { s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1") }, madcrow.KindReadOnly, madcrow.ErrReadOnly},
		{"cannot persist", func(t *testing.T, s *madcrowtest.Server) {
			_ = os.Remove(dir)
			s.Do(t, "BGSAVE")
			for end := time.Now().Add(5 * time.Second); !strings.Contains(s.Do(t, "INFO", "persistence").(string), "rdb_last_bgsave_status:err"); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("BGSAVE does not fail")
				}
			}
		}, madcrow.KindReadOnly, madcrow.ErrReadOnly},
	} {
		t.Run(c.name, func(t *testing.T) {
			var opts []madcrowtest.Option
			if c.name == "cannot persist" {
				opts = append(opts, saves)
			}
			s, r := server(t, opts...)
			mustSet(t, r, "list", "1")
			c.prepare(t, s)
			plain := r.Do(t.Context(), set(r, "a", "1")).Err()
			wantError(t, plain, c.kind, c.sentinel, madcrow.OutcomeNotApplied)
			for _, script := range []*madcrow.Script{scriptWrite, scriptHalf} {
				err := r.Eval(t.Context(), script, []string{"a"}, []string{"1"}).Err()
				if err == nil && c.name == "no replicas" {
					t.Skip("this server runs scripts without replicas")
				}
				if script == scriptHalf && err == nil {
					t.Fatal("the script ran")
				}
				wantError(t, err, c.kind, c.sentinel, madcrow.OutcomeNotApplied)
			}
			_, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error {
				tx.Queue(tx.B().Eval().Script("return redis.call('SET', KEYS[1], '1')").Numkeys(1).Key("a").Build())
				return nil
			})
			wantError(t, err, c.kind, c.sentinel, madcrow.OutcomeNotApplied)
			if v := s.Do(t, "EXISTS", "a"); v != int64(0) {
				t.Errorf("reported as not applied, and EXISTS is %v", v)
			}
		})
	}
}

// A replica that comes in time is waited for, as by a single write; a script
// that sends a message first is not run again, and no one hears it twice.
func TestEval_WaitsForReplicasWithinTheDeadline(t *testing.T) {
	s, r := server(t)
	s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	script := madcrow.NewScript("publish first", "redis.call('PUBLISH', 'news', '1') return redis.call('SET', KEYS[1], '1')")
	start := time.Now()
	err := r.Eval(t.Context(), script, []string{"a"}, nil).Err()
	if err == nil {
		t.Skip("this server runs scripts without replicas")
	}
	wantError(t, err, madcrow.KindReadOnly, madcrow.ErrReadOnly, madcrow.OutcomeNotApplied, "NOREPLICAS")
	if d := time.Since(start); d > testkit.Slack(50*time.Millisecond) {
		t.Errorf("a script that publishes was refused after %v: was it run again?", d)
	}
	time.AfterFunc(100*time.Millisecond, func() { s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "0") })
	if err := r.Eval(t.Context(), scriptWrite, []string{"a"}, []string{"1"}).Err(); err != nil {
		t.Errorf("a refusal of 100 ms was not waited out: %v", err)
	}
	s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	start = time.Now()
	err = r.Eval(t.Context(), scriptWrite, []string{"a"}, []string{"2"}).Err()
	wantError(t, err, madcrow.KindReadOnly, madcrow.ErrReadOnly, madcrow.OutcomeNotApplied, "NOREPLICAS")
	if d := time.Since(start); d > 500*time.Millisecond+testkit.Slack(50*time.Millisecond) {
		t.Errorf("took %v", d)
	}
	time.AfterFunc(100*time.Millisecond, func() { s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "0") })
	if _, err := r.Tx(t.Context(), []string{"a"}, func(tx *madcrow.Tx) error { tx.Queue(set(tx, "a", "3")); return nil }); err != nil {
		t.Errorf("a transaction did not wait: %v", err)
	}
}

// A key of another type, found after a write, leaves the outcome open; the kind
// is the same in every server's words.
func TestEval_WhatFailsInTheMiddleIsUnknown(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithUser("app", "pw", "~*", "+@all", "-rpush"))
	r := open(t, s.Config())
	err := r.Eval(t.Context(), scriptHalf, []string{"a"}, []string{"1"}).Err()
	wantError(t, err, madcrow.KindWrongType, madcrow.ErrWrongType, madcrow.OutcomeUnknown)
	denied := madcrow.NewScript("denied", "redis.call('SET', KEYS[1], '2') return redis.call('RPUSH', KEYS[2], 'x')")
	err = r.Eval(t.Context(), denied, []string{"a", "b"}, nil).Err()
	wantError(t, err, madcrow.KindPermission, madcrow.ErrPermission, madcrow.OutcomeUnknown)
	mustGet(t, r, "a", "2")
}

// A script's own words are not Redis': the node is not taken for demoted, and
// the script, which has written, is not run again.
func TestEval_OwnWordsOfAScriptAreNotRedis(t *testing.T) {
	s, r := server(t)
	for _, text := range []string{"READONLY the shop is closed", "NOREPLICAS none of ours", "OOM the basket is full", "LOADING the shelves", "ERR max tries exceeded"} {
		code, _, _ := strings.Cut(text, " ")
		err := r.Eval(t.Context(), madcrow.NewScript("own", "redis.call('INCR', KEYS[1]) return redis.error_reply(ARGV[1])"), []string{code}, []string{text}).Err()
		var e *madcrow.Error
		if !errors.As(err, &e) || e.Outcome != madcrow.OutcomeUnknown {
			t.Errorf("%q: %v", text, err)
		}
		if v := s.Do(t, "GET", code); v != "1" {
			t.Errorf("%q: the script ran %v times", text, v)
		}
	}
	if r.Status().ReadOnly || r.State() != madcrow.StateUp {
		t.Errorf("state %v, read-only %v", r.State(), r.Status().ReadOnly)
	}
}

func TestEval_SurvivesScriptFlush(t *testing.T) {
	s, r := server(t)
	script := madcrow.NewScript("add", "return redis.call('INCRBY', KEYS[1], ARGV[1])")
	for i := int64(1); i <= 6; i++ {
		msg, err := r.Eval(t.Context(), script, []string{"n"}, []string{"2"}).Message()
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := msg.AsInt64(); n != 2*i {
			t.Errorf("run %d gave %d: a script ran twice or not at all", i, n)
		}
		if i%2 == 0 {
			s.Do(t, "SCRIPT", "FLUSH")
		}
	}
	err := r.Eval(t.Context(), madcrow.NewScript("bad", "redis.call('SET', KEYS[1], '1'); error('boom')"), []string{"half"}, nil).Err()
	wantError(t, err, madcrow.KindServer, madcrow.ErrServer, madcrow.OutcomeUnknown, "boom")
}
