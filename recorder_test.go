package madcrow_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

type recorder struct {
	madcrow.NopRecorder
	mu     sync.Mutex
	ops    []madcrow.Operation
	dials  int
	states []string
}

func (r *recorder) Operation(_ context.Context, o madcrow.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, o)
}

func (r *recorder) Dial(context.Context, madcrow.Dial) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dials++
}

func (r *recorder) StateChange(from, to madcrow.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states = append(r.states, from.String()+">"+to.String())
}

func TestRecorder_SeesOperationsDialsAndStates(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	rec := &recorder{}
	cfg := s.Config()
	cfg.Recorder = rec
	r := open(t, cfg)
	mustSet(t, r, "a", "1")
	_ = r.Do(t.Context(), arbitrary(r, "LPUSH", "a", "x")).Err()
	_ = r.Eval(t.Context(), madcrow.NewScript("mine", "return 1"), nil, nil).Err()
	_, _ = r.DoMulti(t.Context(), r.B().Ping().Build(), r.B().Ping().Build())
	_, _ = r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error { tx.Queue(incr(tx, "n")); return nil })
	// A call may be back before the change of state that let it pass is reported.
	testkit.Eventually(t, "two dials, and the state is up", func() bool {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		return rec.dials >= 2 && len(rec.states) > 0
	})
	rec.mu.Lock()
	defer rec.mu.Unlock()
	var seen []string
	for _, o := range rec.ops {
		seen = append(seen, fmt.Sprintf("%s %d %v", o.Name, o.Commands, o.Kind))
		if o.Duration <= 0 {
			t.Errorf("%+v has no duration", o)
		}
	}
	want := "SET 1 none|LPUSH 1 wrong type|mine 1 none|PIPELINE 2 none|TX 1 none"
	if got := strings.Join(seen, "|"); got != want {
		t.Errorf("operations:\n %s\nwant\n %s", got, want)
	}
	if strings.Join(rec.states, " ") != "connecting>up" {
		t.Errorf("states %v", rec.states)
	}
}

type contextsOf struct {
	madcrow.NopRecorder
	all []context.Context
}

func (c *contextsOf) Operation(ctx context.Context, _ madcrow.Operation) { c.all = append(c.all, ctx) }

// The calls of Client gave the context that is used again for the next call: a
// recorder that kept it panicked.
func TestRecorder_GetsTheContextOfTheCall(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	rec := &contextsOf{}
	cfg := s.Config()
	cfg.Recorder = rec
	r := open(t, cfg)
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "the caller's")
	for _, call := range []func(){
		func() { _ = r.Do(ctx, get(r, "a")) },
		func() { _ = r.Do(ctx, get(r, "a"), madcrow.Timeout(time.Second/10)) },
		func() { _ = r.Do(ctx, get(r, "a"), madcrow.Blocking(time.Second)) },
		func() { _, _ = r.DoMulti(ctx, get(r, "a")) },
		func() { _ = r.Eval(ctx, madcrow.NewScript("one", "return 1"), nil, nil) },
		func() { _, _ = r.Tx(ctx, nil, func(*madcrow.Tx) error { return nil }) },
		func() { _ = r.GetTracked(ctx, []string{"a"}) },
		func() { _ = r.Client().Do(ctx, get(r, "a")) },
		func() { _ = r.Client().DoMulti(ctx, get(r, "a"), get(r, "b")) },
	} {
		call()
		if got := rec.all[len(rec.all)-1]; got != ctx {
			t.Errorf("operation %d has the context %T", len(rec.all), got)
		}
	}
	if len(rec.all) != 9 {
		t.Errorf("%d operations", len(rec.all))
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

// It waited for a lock that its caller held.
func TestRecorder_MayAskForTheStateInStateChange(t *testing.T) {
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
	testkit.Within(t, "Close", time.Second, func() { _ = r.Close(ctx) })
}
