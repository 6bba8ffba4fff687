package madcrow_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// A call with two keys of a slot that is being moved was tried again until the
// deadline; only then could its caller take another way, with a deadline of its
// own: the call took twice Config.CommandTimeout.
func TestSplitKeys_TakesTheOtherWayAtOnceAndWithinTheSameDeadline(t *testing.T) {
	c, r := startCluster(t)
	mustSet(t, r, "{split}1", "a")
	mustSet(t, r, "{split}2", "b")
	to, slot := otherMaster(t, c, "{split}"), c.Slot("{split}")
	script := madcrow.NewScript("two", "redis.call('SET', KEYS[1], 'x') return redis.call('SET', KEYS[2], 'x')")
	mset := func(b builder) command {
		return b.Mset().KeyValue().KeyValue("{split}1", "x").KeyValue("{split}2", "x").Build()
	}
	forms := map[string]func(context.Context) error{
		"Do":     func(ctx context.Context) error { return r.Do(ctx, mset(r.B())).Err() },
		"DoBulk": func(ctx context.Context) error { return r.Do(ctx, mset(r.B()), madcrow.Dedicated).Err() },
		"Eval": func(ctx context.Context) error {
			return r.Eval(ctx, script, []string{"{split}1", "{split}2"}, nil).Err()
		},
		"derived": func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			return r.Do(ctx, mset(r.B())).Err()
		},
		"DoMulti": func(ctx context.Context) error {
			_, err := r.DoMulti(ctx, mset(r.B()), r.B().Get().Key("elsewhere").Build())
			return err
		},
		"MULTI": func(ctx context.Context) error {
			_, err := r.DoMulti(ctx, r.B().Multi().Build(), mset(r.B()), r.B().Exec().Build())
			return err
		},
		"Tx": func(ctx context.Context) error {
			_, err := r.Tx(ctx, []string{"{split}2"}, func(tx *madcrow.Tx) error { tx.Queue(mset(tx.B())); return nil })
			return err
		},
	}
	c.BeginMove(t, slot, to)
	c.MoveKeys(t, to, "{split}1")
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			time.Sleep(1100 * time.Millisecond) // the slot is not remembered any more
			together, split := 0, 0
			for range 2 {
				began := time.Now()
				err := r.SplitKeys(t.Context(), "{split}1", func(ctx context.Context) error {
					together++
					err := form(ctx)
					if !errors.Is(err, madcrow.ErrSlotMoving) || !errors.Is(err, madcrow.ErrUnavailable) {
						t.Errorf("refused with %v", err)
					}
					return err
				}, func(ctx context.Context) error {
					split++
					if err := r.Do(ctx, set(r, "{split}1", "y")).Err(); err != nil {
						return err
					}
					err := r.Do(ctx, set(r, "{split}2", "y")).Err()
					return err
				})
				if took := time.Since(began); err != nil || took > testkit.Slack(100*time.Millisecond) {
					t.Errorf("%v after %v", err, took)
				}
			}
			if together != 1 || split != 2 {
				t.Errorf("together %d times, split %d times; the second call knows that the slot moves", together, split)
			}
		})
	}
	c.FinishMove(t, slot, to)
	time.Sleep(1100 * time.Millisecond)
	together := 0
	if err := r.SplitKeys(t.Context(), "{split}1", func(ctx context.Context) error { together++; return forms["Eval"](ctx) }, nil); err != nil || together != 1 {
		t.Errorf("after the move: %v, together %d times", err, together)
	}
}

// The two forms together end by Config.CommandTimeout, or by the caller's
// deadline. Without a cluster, Within gives the one form that deadline.
func TestSplitKeys_HasOneDeadline(t *testing.T) {
	_, many := startCluster(t)
	_, one := server(t)
	for name, r := range map[string]*madcrow.Redis{"cluster": many, "one node": one} {
		for _, within := range []time.Duration{0, 50 * time.Millisecond} {
			ctx, cancel := context.WithCancel(t.Context())
			want := r.Config().CommandTimeout
			if within > 0 {
				ctx, cancel = context.WithTimeout(t.Context(), within)
				want = within
			}
			began := time.Now()
			wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
			split := func(ctx context.Context) error { return r.SplitKeys(ctx, "k", wait, wait) }
			if r == one {
				bare := split
				split = func(ctx context.Context) error { return r.Within(ctx, bare) }
			}
			if err := split(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			if err := r.Within(ctx, wait); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(began); took > testkit.Slack(2*want+100*time.Millisecond) {
				t.Errorf("%s: two calls of %v took %v", name, want, took)
			}
			cancel()
		}
	}
	_ = one.SplitKeys(t.Context(), "k", func(ctx context.Context) error {
		if ctx != t.Context() {
			t.Error("without a cluster, the form got a context of its own")
		}
		return nil
	}, nil)
}

// A callback that kept its context, as the refresh in the background of a cache
// does with context.WithoutCancel, used that of another call later, or panicked.
func TestWithin_AContextThatIsKeptIsNoOtherCalls(t *testing.T) {
	_, many := startCluster(t)
	_, one := server(t)
	type key struct{}
	for name, r := range map[string]*madcrow.Redis{"cluster": many, "one node": one} {
		var kept []context.Context
		keep := func(ctx context.Context) error { kept = append(kept, ctx); return nil }
		ctx := context.WithValue(t.Context(), key{}, "mine")
		for range 20 {
			testkit.NoError(t, r.Within(ctx, keep))
			testkit.NoError(t, r.SplitKeys(ctx, "k", keep, keep))
			mustSet(t, r, "k", "v") // its context is one that is reused
		}
		for _, ctx := range kept {
			if got := ctx.Value(key{}); got != "mine" {
				t.Errorf("%s: the context has %v of another call", name, got)
			}
			background := context.WithoutCancel(ctx)
			if got := background.Value(key{}); got != "mine" {
				t.Errorf("%s: %v", name, got)
			}
			if err := r.Do(background, get(r, "k")).Err(); err != nil {
				t.Errorf("%s: a call in the background: %v", name, err)
			}
		}
	}
}
