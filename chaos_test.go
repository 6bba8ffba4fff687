package madcrow_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestChaos_StartsWithoutRedisAndConnectsWhenItAppears(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	port := madcrowtest.FreePort(t)
	start := time.Now()
	r := open(t, madcrow.Config{Host: "127.0.0.1", Port: port})
	if d := time.Since(start); d > testkit.Slack(100*time.Millisecond) {
		t.Errorf("Open took %v without a Redis, want under 100 ms", d)
	} else {
		t.Logf("Open without Redis: %v", d)
	}
	await(t, r, madcrow.StateDown, time.Second)
	var most time.Duration
	for range 200 {
		start := time.Now()
		err := r.Do(t.Context(), get(r, "a")).Err()
		most = max(most, time.Since(start))
		var e *madcrow.Error
		if !errors.Is(err, madcrow.ErrUnavailable) || !errors.As(err, &e) || e.Outcome != madcrow.OutcomeNotApplied || e.Op != "GET" {
			t.Fatalf("error of a call while Redis is away: %#v", err)
		}
	}
	t.Logf("slowest of 200 failed calls: %v", most)
	if most > testkit.Slack(time.Millisecond) {
		t.Errorf("a call to a Redis known to be away took %v, want under 1 ms", most)
	}
	time.Sleep(700 * time.Millisecond) // so that the prober is in its longest pause
	s := madcrowtest.StartRedis(t, madcrowtest.WithPort(port))
	d := await(t, r, madcrow.StateUp, 5*time.Second)
	t.Logf("usable %v after Redis answered", d)
	if d > testkit.Slack(time.Second) {
		t.Errorf("usable %v after Redis appeared, want within 1 s", d)
	}
	mustSet(t, r, "a", "1")
	_ = s
}

// TestChaos_FrozenRedis stops Redis with SIGSTOP under load. No call may
// outlive its deadline by more than 50 ms, and all is well soon after SIGCONT.
func TestChaos_FrozenRedis(t *testing.T) {
	type load struct {
		callers  int
		deadline func(i int) time.Duration
		name     string
	}
	equal := func(int) time.Duration { return 50 * time.Millisecond }
	// With the race detector, and other tests beside them, thousands that wake
	// in one instant measure the machine.
	loads := []load{
		{500, equal, "500 callers, equal deadlines"},
		{500, mixedDeadlines, "500 callers, mixed deadlines"},
	}
	if testkit.Chaos {
		loads = []load{
			{4000, equal, "4000 callers, equal deadlines"},
			{4000, mixedDeadlines, "4000 callers, mixed deadlines"},
			{100, equal, "100 callers, equal deadlines"},
			{100, mixedDeadlines, "100 callers, mixed deadlines"},
		}
	}
	for _, tc := range loads {
		t.Run(tc.name, func(t *testing.T) {
			madcrowtest.CheckLeaks(t)
			s, r := server(t)
			frozenRedis(t, s, r, tc.callers, tc.deadline)
		})
	}
}

// mixedDeadlines goes from 20 ms to 420 ms; every fifth caller has none but
// may cancel, which leaves the default of 500 ms.
func mixedDeadlines(i int) time.Duration {
	if i%5 == 4 {
		return 0
	}
	return 20*time.Millisecond + time.Duration(i%5)*100*time.Millisecond
}

func frozenRedis(t *testing.T, s *madcrowtest.Server, r *madcrow.Redis, callers int, deadline func(int) time.Duration) {
	for i := range 100 {
		mustSet(t, r, "k"+strconv.Itoa(i), "v"+strconv.Itoa(i))
	}
	var overshoot, calls, failed atomic.Int64
	var firstGood atomic.Int64
	var resumed atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			d := deadline(i)
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rand.IntN(callers/4+5)) * time.Millisecond):
				}
				ctx, cancel := context.WithCancel(context.Background())
				limit := 500 * time.Millisecond
				if d > 0 {
					ctx, cancel = context.WithTimeout(context.Background(), d)
					limit = d
				}
				start := time.Now()
				msg, err := r.Do(ctx, get(r, "k"+strconv.Itoa(n%100))).Message()
				took := time.Since(start)
				cancel()
				calls.Add(1)
				if over := int64(took - limit); over > overshoot.Load() {
					overshoot.Store(over)
				}
				if err != nil {
					failed.Add(1)
					if !errors.Is(err, madcrow.ErrTimeout) && !errors.Is(err, madcrow.ErrUnavailable) {
						t.Errorf("unexpected error: %v", err)
					}
				} else if v, _ := msg.ToString(); v != "v"+strconv.Itoa(n%100) {
					t.Errorf("key k%d has the reply of another: %q", n%100, v)
				} else if at := resumed.Load(); at != 0 {
					firstGood.CompareAndSwap(0, int64(time.Since(time.Unix(0, at))))
				}
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	late := testkit.MeasureLateness()
	s.Pause()
	time.Sleep(testkit.Length(1500*time.Millisecond, 5*time.Second))
	resumed.Store(time.Now().UnixNano())
	s.Resume()
	for end := time.Now().Add(testkit.Slack(time.Second)); firstGood.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	wg.Wait()
	behind := late.Stop()
	over := time.Duration(overshoot.Load())
	back := time.Duration(firstGood.Load())
	t.Logf("%d calls, %d failed; worst overshoot %v, of which the scheduler %v; first answer %v after SIGCONT", calls.Load(), failed.Load(), over, behind, back)
	if over-behind > testkit.Slack(50*time.Millisecond) {
		t.Errorf("a call outlived its deadline by %v", over)
	}
	if back == 0 || back > testkit.Slack(time.Second) {
		t.Errorf("first answer %v after SIGCONT, want within 1 s", back)
	}
	if failed.Load() == 0 {
		t.Error("no call failed: nothing was tested")
	}
}

type outcome struct{ key, reported string }

// TestChaos_KilledUnderLoad kills Redis with SIGKILL and starts it again.
// Redis writes every command to disk here, so a reported outcome can be
// checked: what was acknowledged is there, what was NotApplied is not.
func TestChaos_KilledUnderLoad(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t, madcrowtest.WithArgs("--appendonly", "yes", "--appendfsync", "always"))
	var mu sync.Mutex
	var reported []outcome
	var slowest, firstGood, back atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				key := fmt.Sprintf("w%d-%d", w, n)
				start := time.Now()
				err := r.Do(context.Background(), set(r, key, key)).Err()
				slowest.Store(max(slowest.Load(), int64(time.Since(start))))
				o := "ok"
				var e *madcrow.Error
				if errors.As(err, &e) {
					o = e.Outcome.String()
				} else if at := back.Load(); at != 0 {
					firstGood.CompareAndSwap(0, int64(time.Since(time.Unix(0, at))))
				}
				mu.Lock()
				reported = append(reported, outcome{key, o})
				mu.Unlock()
			}
		})
	}
	for range int(testkit.Length(2, 5)) {
		time.Sleep(300 * time.Millisecond)
		s.Kill()
		time.Sleep(400 * time.Millisecond)
		firstGood.Store(0)
		s.Start()
		back.Store(time.Now().UnixNano())
		for end := time.Now().Add(testkit.Slack(time.Second)); firstGood.Load() == 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		d := time.Duration(firstGood.Load())
		t.Logf("first write %v after Redis was back", d)
		if d == 0 || d > testkit.Slack(time.Second) {
			t.Errorf("first write %v after Redis was back, want within 1 s", d)
		}
		back.Store(0)
	}
	close(stop)
	wg.Wait()
	if d := time.Duration(slowest.Load()); d > 500*time.Millisecond+testkit.Slack(50*time.Millisecond) {
		t.Errorf("slowest call took %v, want at most 500 ms", d)
	}
	checkOutcomes(t, r, reported)
}

func checkOutcomes(t *testing.T, r *madcrow.Redis, reported []outcome) {
	t.Helper()
	count := map[string]int{}
	there := 0
	for batch := range slices.Chunk(reported, 1000) {
		cmds := make([]command, len(batch))
		for i, o := range batch {
			cmds[i] = r.B().Get().Key(o.key).Build()
		}
		results, err := r.DoMulti(t.Context(), cmds...)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range batch {
			count[o.reported]++
			absent := results[i].IsNil()
			switch {
			case o.reported == "ok" && absent:
				t.Errorf("%s was acknowledged and is gone", o.key)
			case o.reported == "not applied" && !absent:
				t.Errorf("%s was reported as not applied and is there", o.key)
			case o.reported == "unknown" && !absent:
				there++
			}
		}
	}
	t.Logf("reported: %v; of the unknown, %d were applied", count, there)
	if count["ok"] == 0 || count["not applied"] == 0 {
		t.Error("nothing was tested")
	}
}

func TestChaos_ConnectionsStayWithinTheirBound(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	for _, bound := range []int{3, 6, 20} {
		t.Run(strconv.Itoa(bound), func(t *testing.T) {
			s := madcrowtest.StartRedis(t)
			cfg := s.Config()
			cfg.MaxConnections = bound
			cfg.ClientName = "bounded"
			r := open(t, cfg)
			await(t, r, madcrow.StateUp, 5*time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), testkit.Length(time.Second, 4*time.Second))
			defer cancel()
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() { everythingAtOnce(ctx, r, i) })
			}
			most := 0
			for ctx.Err() == nil {
				list, _ := s.Do(t, "CLIENT", "LIST").(string)
				most = max(most, strings.Count(list, "name=bounded"))
				if i := rand.IntN(20); i == 0 {
					s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
				}
				time.Sleep(5 * time.Millisecond)
			}
			wg.Wait()
			t.Logf("at most %d connections of %d", most, bound)
			if most > bound || most < 3 {
				t.Errorf("saw %d connections, want 3 to %d", most, bound)
			}
		})
	}
}

// everythingAtOnce uses all that can open a connection.
func everythingAtOnce(ctx context.Context, r *madcrow.Redis, i int) {
	big := strings.Repeat("x", 100<<10)
	for ctx.Err() == nil {
		switch i % 5 {
		case 0:
			_ = r.Do(ctx, get(r, "a")).Err()
		case 1:
			_ = r.Do(ctx, set(r, "big", big)).Err()
		case 2:
			_, _ = r.Tx(ctx, []string{"n"}, func(tx *madcrow.Tx) error {
				tx.Queue(incr(tx, "n"))
				return nil
			})
		case 3:
			_ = r.Do(ctx, r.B().Blpop().Key("nothing").Timeout(0.05).Build(), madcrow.Blocking(50*time.Millisecond)).Err()
		case 4:
			sub, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			_ = r.Subscribe(sub, madcrow.Subscription{Channels: []string{"c" + strconv.Itoa(i)}}, madcrow.Handler{OnMessage: drop})
			cancel()
		}
	}
}

func TestChaos_KilledConnectionsDoNotFailReads(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	mustSet(t, r, "a", "1")
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Length(2*time.Second, 30*time.Second))
	defer cancel()
	var reads, bad, writes, unknown atomic.Int64
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if i%10 == 0 {
					writes.Add(1)
					if err := r.Do(context.Background(), set(r, "w", "1")).Err(); err != nil {
						unknown.Add(1)
					}
					continue
				}
				reads.Add(1)
				if msg, err := r.Do(context.Background(), get(r, "a")).Message(); err != nil {
					bad.Add(1)
					if testkit.Chaos {
						t.Errorf("read: %v", err)
					}
				} else if v, _ := msg.ToString(); v != "1" {
					t.Errorf("read %q", v)
				}
			}
		})
	}
	kills := 0
	for ctx.Err() == nil {
		s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		kills++
		time.Sleep(100 * time.Millisecond)
	}
	wg.Wait()
	t.Logf("%d kills: %d reads, %d failed; %d writes, %d of unknown outcome", kills, reads.Load(), bad.Load(), writes.Load(), unknown.Load())
	// Under the race detector the prober may be starved for long enough to
	// hold the server for away.
	if bad.Load() > reads.Load()/1000 {
		t.Errorf("%d of %d reads failed", bad.Load(), reads.Load())
	}
	if most := int64(kills * 6); unknown.Load() > most {
		t.Errorf("%d writes failed, want at most those in flight, %d", unknown.Load(), most)
	}
}

func TestChaos_ServerThatNeverAnswers(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := madcrowtest.StartRedis(t)
	p := madcrowtest.StartProxy(t, s.Addr())
	p.BlackHole(true)
	r := open(t, madcrow.Config{Host: "127.0.0.1", Port: p.Port()})
	late := testkit.MeasureLateness()
	var over atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			for range 20 {
				d := 20 * time.Millisecond
				if i%2 == 0 {
					d = 5 * time.Second // longer than the command timeout
				}
				ctx, cancel := context.WithTimeout(t.Context(), d)
				start := time.Now()
				err := r.Do(ctx, get(r, "a")).Err()
				over.Store(max(over.Load(), int64(time.Since(start)-min(d, 500*time.Millisecond))))
				cancel()
				if err == nil {
					t.Error("a black hole answered")
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	worst, behind := time.Duration(over.Load()), late.Stop()
	t.Logf("worst overshoot %v, of which the scheduler %v", worst, behind)
	if worst-behind > testkit.Slack(50*time.Millisecond) {
		t.Errorf("a call outlived its deadline by %v", worst)
	}
	p.BlackHole(false)
	t.Logf("usable %v after the network was back", await(t, r, madcrow.StateUp, testkit.Slack(2*time.Second)))
}

func TestChaos_ReplyCutInTheMiddle(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := madcrowtest.StartRedis(t)
	p := madcrowtest.StartProxy(t, s.Addr())
	big := strings.Repeat("0123456789abcdef", 1<<16)
	direct := open(t, s.Config())
	if err := direct.Do(t.Context(), set(direct, "big", big)).Err(); err != nil {
		t.Fatal(err)
	}
	r := open(t, madcrow.Config{Host: "127.0.0.1", Port: p.Port(), CommandTimeout: 3 * time.Second})
	await(t, r, madcrow.StateUp, 5*time.Second)
	for i := range 10 {
		p.CutAfter(int64(1000 + i*100_000))
		time.AfterFunc(20*time.Millisecond, func() { p.CutAfter(-1) })
		msg, err := r.Do(t.Context(), get(r, "big")).Message()
		if err != nil {
			t.Errorf("cut %d: %v", i, err)
			continue
		}
		if v, _ := msg.ToString(); v != big {
			t.Fatalf("cut %d: %d bytes came, want %d", i, len(v), len(big))
		}
	}
}
