package madcrow_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/session"
)

// behindAName is a Redis whose name leads to another server once lead is called.
type behindAName struct {
	old, promoted *madcrowtest.Server
	target        atomic.Pointer[string]
	dials         atomic.Int64
}

func startBehindAName(t *testing.T) *behindAName {
	n := &behindAName{old: madcrowtest.StartRedis(t), promoted: madcrowtest.StartRedis(t)}
	n.lead(n.old)
	return n
}

func (n *behindAName) lead(s *madcrowtest.Server) { addr := s.Addr(); n.target.Store(&addr) }

func (n *behindAName) open(t *testing.T) *madcrow.Redis {
	r := open(t, madcrow.Config{Host: "redis.internal", Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
		n.dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, *n.target.Load())
	}})
	await(t, r, madcrow.StateUp, 5*time.Second)
	return r
}

// TestDemoted_IsLeftByEveryKindOfCall calls one kind alone, so that no other
// call finds it out: a script that met a demoted node stayed on it for ever.
func TestDemoted_IsLeftByEveryKindOfCall(t *testing.T) {
	n := startBehindAName(t)
	eval := func(r *madcrow.Redis, ctx context.Context) error {
		err := r.Eval(ctx, scriptWrite, []string{"a"}, []string{"1"}).Err()
		return err
	}
	// Each call is made ready while the node is a master, and says whether it
	// was served by a master.
	calls := map[string]func(t *testing.T, r *madcrow.Redis) func(ctx context.Context) error{
		"Do": func(_ *testing.T, r *madcrow.Redis) func(context.Context) error {
			return func(ctx context.Context) error { err := r.Do(ctx, set(r, "a", "1")).Err(); return err }
		},
		"Eval": func(_ *testing.T, r *madcrow.Redis) func(context.Context) error {
			return func(ctx context.Context) error { return eval(r, ctx) }
		},
		"DoMulti": func(_ *testing.T, r *madcrow.Redis) func(context.Context) error {
			return func(ctx context.Context) error {
				_, err := r.DoMulti(ctx, r.B().Get().Key("a").Build(), r.B().Incr().Key("n").Build())
				return err
			}
		},
		"DoMulti of a script in EXEC": func(_ *testing.T, r *madcrow.Redis) func(context.Context) error {
			return func(ctx context.Context) error {
				results, err := r.DoMulti(ctx, r.B().Multi().Build(), r.B().Eval().Script("return redis.call('INCR', KEYS[1])").Numkeys(1).Key("n").Build(), r.B().Exec().Build())
				if err != nil {
					return err
				}
				inside, err := results[2].Slice()
				if err != nil {
					return err
				}
				return inside[0].Err()
			}
		},
		"Tx": func(_ *testing.T, r *madcrow.Redis) func(context.Context) error {
			return func(ctx context.Context) error {
				_, err := r.Tx(ctx, []string{"a"}, func(tx *madcrow.Tx) error { tx.Queue(incr(tx, "n")); return nil })
				return err
			}
		},
		"Tx of a script": func(_ *testing.T, r *madcrow.Redis) func(context.Context) error {
			return func(ctx context.Context) error {
				_, err := r.Tx(ctx, nil, func(tx *madcrow.Tx) error {
					tx.Queue(tx.B().Eval().Script("return redis.call('INCR', KEYS[1])").Numkeys(1).Key("n").Build())
					return nil
				})
				return err
			}
		},
		"Client().Do of a script": func(_ *testing.T, r *madcrow.Redis) func(context.Context) error {
			return func(ctx context.Context) error {
				c := r.Client()
				return c.Do(ctx, c.B().Eval().Script("return redis.call('INCR', KEYS[1])").Numkeys(1).Key("n").Build()).Error()
			}
		},
		"session": func(t *testing.T, r *madcrow.Redis) func(context.Context) error {
			m, err := session.New(r, "web", session.Options[int]{})
			if err != nil {
				t.Fatal(err)
			}
			return func(ctx context.Context) error {
				return m.Open("").Update(ctx, func(v *int) error { *v++; return nil })
			}
		},
		"cache.Set": func(t *testing.T, r *madcrow.Redis) func(context.Context) error {
			c := newIntCache(t, r, "set")
			return func(ctx context.Context) error { return c.Set(ctx, "k", 1) }
		},
		"GetOrLoad": func(t *testing.T, r *madcrow.Redis) func(context.Context) error {
			c := newIntCache(t, r, "load")
			key := 0
			return func(ctx context.Context) error {
				key++
				_, err := c.GetOrLoad(ctx, "k", func(context.Context) (int, error) { return 1, nil })
				if err == nil && len(n.promoted.Do(t, "KEYS", "*m1:cache:load*").([]any)) == 0 {
					err = madcrow.ErrReadOnly // not stored: the old one answers
				}
				return err
			}
		},
	}
	for name, algorithm := range map[string]ratelimit.Algorithm{
		"SlidingLog": ratelimit.SlidingLog(), "GCRA": ratelimit.GCRA(1000), "SlidingWindow": ratelimit.SlidingWindow(10),
	} {
		for how, fail := range map[string]madcrow.FailPolicy{"": madcrow.FailClosed, ", open": madcrow.FailOpen} {
			calls["limit "+name+how] = func(t *testing.T, r *madcrow.Redis) func(context.Context) error {
				l, err := ratelimit.New(r, "l", ratelimit.Options{Rate: ratelimit.PerMinute(1000000), FailPolicy: fail, Algorithm: algorithm})
				if err != nil {
					t.Fatal(err)
				}
				return func(ctx context.Context) error {
					d, err := l.Allow(ctx, "s")
					if err == nil && d.Degraded {
						err = madcrow.ErrReadOnly
					}
					return err
				}
			}
		}
	}
	for name, prepare := range calls {
		t.Run(name, func(t *testing.T) {
			n.old.Do(t, "REPLICAOF", "NO", "ONE")
			n.old.Do(t, "FLUSHALL")
			n.promoted.Do(t, "FLUSHALL")
			n.lead(n.old)
			r := n.open(t)
			call := prepare(t, r)
			n.old.Do(t, "REPLICAOF", "127.0.0.1", "1")
			n.lead(n.promoted)
			start := time.Now()
			for {
				err := call(t.Context())
				if err == nil {
					break
				}
				var e *madcrow.Error
				if errors.As(err, &e) && e.Outcome == madcrow.OutcomeUnknown && e.Kind == madcrow.KindReadOnly {
					t.Errorf("the outcome is unknown: %v", err)
				}
				if time.Since(start) > testkit.Slack(500*time.Millisecond) {
					t.Fatalf("still on the demoted server after %v: %v", time.Since(start), err)
				}
				time.Sleep(2 * time.Millisecond)
			}
			t.Logf("left after %v", time.Since(start))
			if v := r.Status().ReadOnly; v {
				await(t, r, madcrow.StateUp, 5*time.Second)
			}
		})
	}
}

func newIntCache(t *testing.T, r *madcrow.Redis, name string) *cache.Cache[int] {
	c, err := cache.New(r, name, cache.Options[int]{TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// TestDemoted_IsLeftByReadsAlone: no reply tells a reader that its node was
// demoted, only INFO does. It stayed there with old data. Until the name leads
// to a master, no connection is cut off.
func TestDemoted_IsLeftByReadsAlone(t *testing.T) {
	n := startBehindAName(t)
	n.old.Do(t, "SET", "a", "old")
	n.promoted.Do(t, "SET", "a", "new")
	r := n.open(t)
	mustGet(t, r, "a", "old")
	connection := func() string {
		msg, err := r.Do(t.Context(), r.B().ClientId().Build()).Message()
		if err != nil {
			t.Fatal(err)
		}
		return msg.String()
	}
	before := connection()
	n.old.Do(t, "REPLICAOF", "127.0.0.1", "1")
	await(t, r, madcrow.StateDegraded, 10*time.Second)
	time.Sleep(100 * time.Millisecond)
	if now := connection(); now != before {
		t.Error("a reader was cut off, and the name leads nowhere else")
	}
	n.lead(n.promoted)
	start := time.Now()
	for {
		msg, err := r.Do(t.Context(), get(r, "a")).Message()
		if err != nil {
			t.Fatalf("a read failed: %v", err)
		}
		if v, _ := msg.ToString(); v == "new" {
			break
		}
		if time.Since(start) > testkit.Slack(4*time.Second) {
			t.Fatal("reads are still those of the demoted server")
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("left after %v", time.Since(start))
	await(t, r, madcrow.StateUp, 5*time.Second)
}
