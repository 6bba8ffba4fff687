package madcrow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestDo_AbsenceIsNoError(t *testing.T) {
	_, r := server(t)
	msg, err := r.Do(t.Context(), get("nothing"))
	if err != nil || !msg.IsNil() {
		t.Errorf("GET of an absent key: %v, %v", msg, err)
	}
}

func TestDo_CancelledBeforeAndDuring(t *testing.T) {
	s, r := server(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Do(ctx, set("a", "1"))
	wantError(t, err, madcrow.KindCanceled, madcrow.ErrCanceled, madcrow.OutcomeNotApplied)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not context.Canceled", err)
	}
	s.Pause()
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, cancel)
	start := time.Now()
	_, err = r.Do(ctx, set("a", "1"))
	if d := time.Since(start); d > 30*time.Millisecond+slack(50*time.Millisecond) {
		t.Errorf("cancelled after 30 ms, returned after %v", d)
	}
	wantError(t, err, madcrow.KindCanceled, madcrow.ErrCanceled, madcrow.OutcomeUnknown)
	s.Resume()
}

func TestDo_TimeoutOfAReadChangedNothingOfAWriteIsUnknown(t *testing.T) {
	s, r := server(t)
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Millisecond)
	defer cancel()
	s.Pause()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := r.Do(ctx, get("a"))
		wantError(t, err, madcrow.KindTimeout, madcrow.ErrTimeout, madcrow.OutcomeNotApplied)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v is not context.DeadlineExceeded", err)
		}
	})
	_, err := r.Do(ctx, set("a", "1"))
	wantError(t, err, madcrow.KindTimeout, madcrow.ErrTimeout, madcrow.OutcomeUnknown)
	wg.Wait()
	s.Resume()
}

func TestDo_LargeValuesHaveTheirOwnConnectionAndABound(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxValueSize = 1 << 20
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	mustSet(t, r, "a", "1")
	before := r.Status().Connections
	big := strings.Repeat("x", 200<<10)
	mustSet(t, r, "big", big)
	if after := r.Status().Connections; after != before+1 {
		t.Errorf("%d connections before a large value and %d after it, want one more", before, after)
	}
	msg, err := r.DoBulk(t.Context(), get("big"))
	if v, _ := msg.ToString(); err != nil || v != big {
		t.Errorf("DoBulk: %d bytes, %v", len(v), err)
	}
	_, err = r.Do(t.Context(), set("big", strings.Repeat("x", 1<<20)))
	wantError(t, err, madcrow.KindTooLarge, madcrow.ErrTooLarge, madcrow.OutcomeNotApplied, "MaxValueSize")
	_, err = r.DoMulti(t.Context(), func(b builder) []command {
		return []command{b.Set().Key("x").Value(big + big + big).Build(), b.Set().Key("y").Value(big + big + big).Build()}
	})
	wantError(t, err, madcrow.KindTooLarge, madcrow.ErrTooLarge, madcrow.OutcomeNotApplied)
}

// TestDo_SmallCallsDoNotWaitBehindLargeOnes sends large values over a slow
// wire: the small ones have a connection of their own.
func TestDo_SmallCallsDoNotWaitBehindLargeOnes(t *testing.T) {
	_, r := server(t)
	mustSet(t, r, "a", "1")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	big := strings.Repeat("x", 8<<20)
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _ = r.Do(ctx, set("big", big))
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	var most time.Duration
	for range 50 {
		start := time.Now()
		mustGet(t, r, "a", "1")
		most = max(most, time.Since(start))
		time.Sleep(2 * time.Millisecond)
	}
	cancel()
	wg.Wait()
	t.Logf("slowest small call beside large ones: %v", most)
	if most > slack(200*time.Millisecond) {
		t.Errorf("a small call took %v", most)
	}
}

func TestDoMulti_ResultsKeepTheirOrderAndTheirOwnErrors(t *testing.T) {
	_, r := server(t)
	results, err := r.DoMulti(t.Context(), func(b builder) []command {
		return []command{
			b.Set().Key("a").Value("1").Build(),
			b.Lpush().Key("a").Element("x").Build(),
			b.Get().Key("nothing").Build(),
			b.Incr().Key("a").Build(),
		}
	})
	wantError(t, err, madcrow.KindWrongType, madcrow.ErrWrongType, madcrow.OutcomeNotApplied)
	if len(results) != 4 || results[0].Err != nil || !errors.Is(results[1].Err, madcrow.ErrWrongType) || !results[2].Message.IsNil() || results[2].Err != nil {
		t.Fatalf("results: %+v", results)
	}
	if n, _ := results[3].Message.AsInt64(); n != 2 {
		t.Errorf("INCR gave %d", n)
	}
	if results, err := r.DoMulti(t.Context(), func(builder) []command { return nil }); err != nil || results != nil {
		t.Errorf("an empty pipeline: %v, %v", results, err)
	}
}

func TestDoMulti_ThousandsOfCommands(t *testing.T) {
	_, r := server(t)
	for _, n := range []int{1999, 2000, 10_000} {
		results, err := r.DoMulti(t.Context(), func(b builder) []command {
			cmds := make([]command, n)
			for i := range cmds {
				cmds[i] = b.Echo().Message(fmt.Sprint(i)).Build()
			}
			return cmds
		})
		if err != nil || len(results) != n {
			t.Fatalf("%d commands: %d results, %v", n, len(results), err)
		}
		for i := range results {
			if v, _ := results[i].Message.ToString(); v != fmt.Sprint(i) {
				t.Fatalf("result %d is %q", i, v)
			}
		}
	}
}

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
	if d := time.Since(start); d > 20*time.Millisecond+slack(50*time.Millisecond) {
		t.Errorf("cancelled after 20 ms, returned after %v", d)
	}
}

func TestEval_SurvivesScriptFlush(t *testing.T) {
	s, r := server(t)
	script := madcrow.NewScript("add", "return redis.call('INCRBY', KEYS[1], ARGV[1])")
	for i := int64(1); i <= 6; i++ {
		msg, err := r.Eval(t.Context(), script, []string{"n"}, []string{"2"})
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
	_, err := r.Eval(t.Context(), madcrow.NewScript("bad", "redis.call('SET', KEYS[1], '1'); error('boom')"), []string{"half"}, nil)
	wantError(t, err, madcrow.KindServer, madcrow.ErrServer, madcrow.OutcomeUnknown, "boom")
}

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
					msg, err := tx.Do(get("counter"))
					if err != nil {
						return err
					}
					n := int64(0)
					if !msg.IsNil() {
						n, _ = msg.AsInt64()
					}
					tx.Queue(set("counter", fmt.Sprint(n+1)))
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
		tx.Queue(set("a", "mine"))
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
		tx.Queue(set("a", "1"))
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
		tx.Queue(set("b", "1"))
		return nil
	}); err != nil {
		t.Error(err)
	}
	mustGet(t, r, "a", "other")
	mustGet(t, r, "b", "1")
}

func TestTx_RefusedCommandSaysWhy(t *testing.T) {
	_, r := server(t)
	_, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error {
		tx.Queue(set("a", "1"))
		tx.Queue(arbitrary("NOSUCHCOMMAND"))
		return nil
	})
	wantError(t, err, madcrow.KindServer, madcrow.ErrServer, madcrow.OutcomeNotApplied, "NOSUCHCOMMAND")
	_, err = r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error {
		tx.Queue(set("a", "1"))
		tx.Queue(arbitrary("LPUSH", "a", "x"))
		return nil
	})
	wantError(t, err, madcrow.KindWrongType, madcrow.ErrWrongType, madcrow.OutcomeUnknown)
	mustGet(t, r, "a", "1")
}

func TestReceive_LastSubscriberUnsubscribes(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	got := make(chan rueidis.PubSubMessage, 10)
	receive := func() (context.CancelFunc, chan error) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		subscribed := make(chan struct{})
		var once sync.Once
		hooked := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { once.Do(func() { close(subscribed) }) })
		go func() {
			done <- r.Receive(hooked, func(b builder) command { return b.Subscribe().Channel("news").Build() }, func(m rueidis.PubSubMessage) { got <- m })
		}()
		<-subscribed
		return cancel, done
	}
	cancel1, done1 := receive()
	cancel2, done2 := receive()
	if n := s.Do(t, "PUBLISH", "news", "hello"); n != int64(1) {
		t.Errorf("%v server subscriptions for one channel, want 1", n)
	}
	for range 2 {
		if m := <-got; m.Channel != "news" || m.Message != "hello" {
			t.Errorf("got %+v", m)
		}
	}
	cancel1()
	wantError(t, <-done1, madcrow.KindCanceled, madcrow.ErrCanceled, madcrow.OutcomeNotApplied)
	if n := s.Do(t, "PUBLISH", "news", "again"); n != int64(1) {
		t.Errorf("the other subscriber lost its subscription: %v", n)
	}
	<-got
	cancel2()
	<-done2
	if n := s.Do(t, "PUBLISH", "news", "nobody"); n != int64(0) {
		t.Errorf("%v subscriptions are left at the server", n)
	}
}

func TestReceive_TellsOfABrokenConnection(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	done := make(chan error, 1)
	subscribed := make(chan struct{})
	ctx := rueidis.WithOnSubscriptionHook(t.Context(), func(rueidis.PubSubSubscription) { close(subscribed) })
	go func() {
		done <- r.Receive(ctx, func(b builder) command { return b.Subscribe().Channel("news").Build() }, func(rueidis.PubSubMessage) {})
	}()
	<-subscribed
	s.Kill()
	select {
	case err := <-done:
		wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied)
	case <-time.After(2 * time.Second):
		t.Error("the subscriber was not told in 2 s")
	}
	if err := r.Receive(t.Context(), get("a"), nil); err == nil {
		t.Error("Receive took a GET")
	}
}

func TestClient_IsAWholeRueidisClient(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	c := r.Client()
	ctx := t.Context()
	if err := c.Do(ctx, c.B().Set().Key("a").Value("1").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if v, err := c.DoCache(ctx, c.B().Get().Key("a").Cache(), time.Minute).ToString(); v != "1" || err != nil {
		t.Errorf("DoCache: %q, %v", v, err)
	}
	if err := c.Do(ctx, c.B().Get().Key("nothing").Build()).Error(); !rueidis.IsRedisNil(err) {
		t.Errorf("absence is %v", err)
	}
	for _, res := range c.DoMulti(ctx, c.B().Incr().Key("a").Build(), c.B().Incr().Key("a").Build()) {
		if res.Error() != nil {
			t.Error(res.Error())
		}
	}
	var b strings.Builder
	stream := c.DoStream(ctx, c.B().Get().Key("a").Build())
	if _, err := stream.WriteTo(&b); err != nil || b.String() != "3" {
		t.Errorf("DoStream: %q, %v", b.String(), err)
	}
	if err := c.Dedicated(func(d rueidis.DedicatedClient) error { return d.Do(ctx, d.B().Watch().Key("a").Build()).Error() }); err != nil {
		t.Error(err)
	}
	s.Kill()
	await(t, r, madcrow.StateDown, 2*time.Second)
	err := c.Do(ctx, c.B().Get().Key("a").Build()).Error()
	wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied)
	d, release := c.Dedicate()
	wantError(t, d.Do(ctx, d.B().Get().Key("a").Build()).Error(), madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied)
	release()
}

func TestClose_FinishesWhatRunsAndRefusesTheRest(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	running := make(chan error, 1)
	go func() {
		_, err := r.DoBlocking(context.Background(), 300*time.Millisecond, func(b builder) command {
			return b.Blpop().Key("queue").Timeout(0.3).Build()
		})
		running <- err
	}()
	time.Sleep(50 * time.Millisecond)
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-running; err != nil {
		t.Errorf("a call in flight failed at Close: %v", err)
	}
	_, err := r.Do(t.Context(), get("a"))
	wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied)
	if !errors.Is(err, madcrow.ErrClosed) {
		t.Errorf("%v is not ErrClosed", err)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if r.State() != madcrow.StateClosed || r.Available() {
		t.Errorf("state after Close: %v", r.State())
	}
	time.Sleep(20 * time.Millisecond)
	if n := s.ConnectedClients(t); n > 1 { // the one that asks
		t.Errorf("%d connections are left", n)
	}
}

func TestClose_OfAFrozenServerDoesNotHang(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := madcrowtest.StartRedis(t)
	r, err := madcrow.Open(t.Context(), s.Config())
	if err != nil {
		t.Fatal(err)
	}
	mustSet(t, r, "a", "1")
	s.Pause()
	go func() { _, _ = r.Do(context.Background(), get("a")) }()
	time.Sleep(20 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	if d := time.Since(start); d > 100*time.Millisecond+slack(200*time.Millisecond) {
		t.Errorf("Close took %v", d)
	}
}

func TestWatch_YieldsEachChange(t *testing.T) {
	s, r := server(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ch := r.Watch(ctx)
	if st := <-ch; st.State != madcrow.StateUp || st.Err != nil || st.Mode != "standalone" || st.Address != s.Addr() {
		t.Errorf("first status: %+v", st)
	}
	s.Kill()
	if st := <-ch; st.State != madcrow.StateDown || !errors.Is(st.Err, madcrow.ErrUnavailable) {
		t.Errorf("after the kill: %+v", st)
	}
	s.Start()
	for st := range ch { // a new reason to be down is a change, too
		if st.State == madcrow.StateUp {
			break
		}
		if st.State != madcrow.StateDown {
			t.Errorf("after the start: %+v", st)
		}
	}
	cancel()
	for range ch { //nolint:revive // drained until it is closed
	}
	deadline := time.Now().Add(2 * time.Second)
	for r.Status().Server.Version == "" && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if st := r.Status(); st.Server.Version == "" || st.Server.UsedMemoryHuman == "" || st.Server.ConnectedClients == 0 || st.RTT == 0 || st.Connections == 0 {
		t.Errorf("status: %+v", st)
	}
}

type recorder struct {
	madcrow.NopRecorder
	mu     sync.Mutex
	ops    []madcrow.Operation
	dials  int
	states []string
}

func (r *recorder) Operation(o madcrow.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, o)
}

func (r *recorder) Dial(madcrow.Dial) {
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
	_, _ = r.Do(t.Context(), arbitrary("LPUSH", "a", "x"))
	_, _ = r.Eval(t.Context(), madcrow.NewScript("mine", "return 1"), nil, nil)
	_, _ = r.DoMulti(t.Context(), func(b builder) []command { return []command{b.Ping().Build(), b.Ping().Build()} })
	_, _ = r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error { tx.Queue(incr("n")); return nil })
	rec.mu.Lock()
	defer rec.mu.Unlock()
	var seen []string
	for _, o := range rec.ops {
		seen = append(seen, fmt.Sprintf("%s %d %v", o.Name, o.Commands, o.Kind))
		if o.Duration <= 0 {
			t.Errorf("%+v has no duration", o)
		}
	}
	want := "SET 1 unknown|LPUSH 1 wrong type|mine 1 unknown|PIPELINE 2 unknown|TX 1 unknown"
	if got := strings.Join(seen, "|"); got != want {
		t.Errorf("operations:\n %s\nwant\n %s", got, want)
	}
	if rec.dials < 2 || strings.Join(rec.states, " ") != "connecting>up" {
		t.Errorf("%d dials, states %v", rec.dials, rec.states)
	}
}
