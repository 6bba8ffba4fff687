package madcrow_test

import (
	"context"
	"errors"
	"fmt"
	"net"
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

// sentinelSet starts the set and opens it.
func sentinelSet(t *testing.T, opts ...madcrowtest.Option) (*madcrowtest.SentinelSet, *madcrow.Redis) {
	t.Helper()
	set := madcrowtest.StartSentinel(t, opts...)
	r := open(t, set.Config())
	await(t, r, madcrow.StateUp, 10*time.Second)
	return set, r
}

func TestSentinel_EveryWay(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts []madcrowtest.Option
	}{
		{"plain", nil},
		{"passwords", []madcrowtest.Option{madcrowtest.WithPassword("data"), madcrowtest.WithSentinelPassword("watch")}},
		{"TLS", []madcrowtest.Option{madcrowtest.WithTLS(), madcrowtest.WithPassword("data")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			madcrowtest.CheckLeaks(t)
			set, r := sentinelSet(t, tc.opts...)
			exerciseAll(t, r)
			st := r.Status()
			for end := time.Now().Add(3 * time.Second); (st.Sentinels == nil || st.Sentinels.Reachable < 2) && time.Now().Before(end); st = r.Status() {
				time.Sleep(10 * time.Millisecond)
			}
			if st.Mode != "sentinel" || st.Master != set.Master().Addr() || st.Sentinels == nil || st.Sentinels.Quorum != 2 || st.Sentinels.Reachable < 2 || st.Sentinels.Known != 3 || st.Sentinels.Replicas != 2 {
				t.Errorf("status %+v, sentinels %+v", st, st.Sentinels)
			}
			for end := time.Now().Add(3 * time.Second); len(r.Status().Server.Replicas) != 2 && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			if st := r.Status(); st.Server.Role != "master" || len(st.Server.Replicas) != 2 || st.Server.Replicas[0].State != "online" {
				t.Errorf("server %+v", st.Server)
			}
		})
	}
}

// exerciseAll uses each way to reach Redis once.
func exerciseAll(t *testing.T, r *madcrow.Redis) {
	t.Helper()
	mustSet(t, r, "a", "1")
	mustGet(t, r, "a", "1")
	if _, err := r.Tx(t.Context(), []string{"a"}, func(tx *madcrow.Tx) error {
		if err := tx.Do(get(tx, "a")).Err(); err != nil {
			return err
		}
		tx.Queue(incr(tx, "a"))
		return nil
	}); err != nil {
		t.Errorf("Tx: %v", err)
	}
	if msg, err := r.Eval(t.Context(), madcrow.NewScript("get", "return redis.call('GET', KEYS[1])"), []string{"a"}, nil).Message(); err != nil {
		t.Errorf("Eval: %v", err)
	} else if v, _ := msg.ToString(); v != "2" {
		t.Errorf("Eval gave %q", v)
	}
	if _, err := r.DoMulti(t.Context(), r.B().Get().Key("a").Build(), r.B().Get().Key("b").Build(), r.B().Get().Key("c").Build()); err != nil {
		t.Errorf("DoMulti: %v", err)
	}
	big := fmt.Sprintf("%0100000d", 7)
	mustSet(t, r, "big", big)
	if msg, err := r.Do(t.Context(), get(r, "big"), madcrow.Dedicated).Message(); err != nil {
		t.Errorf("DoBulk: %v", err)
	} else if v, _ := msg.ToString(); v != big {
		t.Errorf("DoBulk gave %d bytes", len(v))
	}
	if msg, err := r.Do(t.Context(), r.B().Blpop().Key("none").Timeout(0.01).Build(), madcrow.Blocking(10*time.Millisecond)).Message(); err != nil || !msg.IsNil() {
		t.Errorf("DoBlocking: %v", err)
	}
}

// writers write with 40 goroutines until stop and note what was reported.
type writers struct {
	mu       sync.Mutex
	reported []outcome
	lastBad  atomic.Int64 // when a write last failed
	longest  atomic.Int64 // the longest time without a success, of all
	lastOK   atomic.Int64
	stop     chan struct{}
	wg       sync.WaitGroup
	kinds    sync.Map
	slowest  atomic.Int64
}

func startWriters(r *madcrow.Redis) *writers {
	w := &writers{stop: make(chan struct{})}
	w.lastOK.Store(time.Now().UnixNano())
	for g := range 40 {
		w.wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-w.stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				key := fmt.Sprintf("w%d-%d", g, n)
				start := time.Now()
				err := r.Do(context.Background(), set(r, key, key)).Err()
				w.note(key, err, time.Since(start))
			}
		})
	}
	return w
}

func (w *writers) note(key string, err error, took time.Duration) {
	now := time.Now().UnixNano()
	o := "ok"
	var e *madcrow.Error
	if errors.As(err, &e) {
		o = e.Outcome.String()
		w.lastBad.Store(now)
		n, _ := w.kinds.LoadOrStore(e.Kind, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	} else if gap := now - w.lastOK.Swap(now); gap > w.longest.Load() {
		w.longest.Store(gap)
	}
	w.mu.Lock()
	w.reported = append(w.reported, outcome{key, o})
	w.slowest.Store(max(w.slowest.Load(), int64(took)))
	w.mu.Unlock()
}

// end stops the writers and reports: how long no write succeeded, and what
// became of the acknowledged writes. Replication is asynchronous, so a
// failover may lose some: they are counted, not forbidden.
func (w *writers) end(t *testing.T, r *madcrow.Redis) (outage time.Duration) {
	t.Helper()
	close(w.stop)
	w.wg.Wait()
	if d := time.Duration(w.slowest.Load()); d > 500*time.Millisecond+testkit.Slack(50*time.Millisecond) {
		t.Errorf("a call took %v, want at most 500 ms", d)
	}
	count, lost := map[string]int{}, 0
	for batch := range slices.Chunk(w.reported, 1000) {
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
			if absent := results[i].IsNil(); o.reported == "ok" && absent {
				lost++
			} else if o.reported == "not applied" && !absent {
				t.Errorf("%s was reported as not applied and is there", o.key)
			}
		}
	}
	kinds := map[string]int64{}
	w.kinds.Range(func(k, v any) bool {
		kinds[fmt.Sprint(k)] = v.(*atomic.Int64).Load()
		return true
	})
	outage = time.Duration(w.longest.Load())
	t.Logf("no write for %v; reported %v, failures by kind %v; %d acknowledged writes were lost by the failover", outage, count, kinds, lost)
	return outage
}

func TestChaosSentinel_MasterKilled(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	set, r := sentinelSet(t)
	w := startWriters(r)
	time.Sleep(300 * time.Millisecond)
	old := set.Master()
	old.Kill()
	start := time.Now()
	for set.Master() == old {
		time.Sleep(5 * time.Millisecond)
		if time.Since(start) > 20*time.Second {
			t.Fatal("the Sentinels promoted none")
		}
	}
	failover := time.Since(start)
	time.Sleep(testkit.Slack(time.Second))
	outage := w.end(t, r)
	t.Logf("the Sentinels took %v", failover)
	if outage > failover+testkit.Slack(3*time.Second) {
		t.Errorf("writes came back after %v, the failover took %v", outage, failover)
	}
	if got := r.Status().Master; got != set.Master().Addr() {
		t.Errorf("connected to %s, the master is %s", got, set.Master().Addr())
	}
}

func TestChaosSentinel_FailoverWithTheOldMasterAlive(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	set, r := sentinelSet(t)
	w := startWriters(r)
	time.Sleep(300 * time.Millisecond)
	start := time.Now()
	set.Failover(t)
	failover := time.Since(start)
	for end := time.Now().Add(testkit.Slack(3 * time.Second)); r.Status().Master != set.Master().Addr() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	moved := time.Since(start) - failover
	if got := r.Status().Master; got != set.Master().Addr() {
		t.Errorf("still at %s, the master is %s", got, set.Master().Addr())
	}
	set.WaitReady(t)
	outage := w.end(t, r)
	t.Logf("the failover took %v, we followed after %v", failover, moved)
	if outage > testkit.Slack(3*time.Second) {
		t.Errorf("no write for %v", outage)
	}
}

// The Sentinel that would tell of the failover dies together with the master.
func TestChaosSentinel_MasterAndWatchedSentinelKilled(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	set, r := sentinelSet(t)
	w := startWriters(r)
	time.Sleep(300 * time.Millisecond)
	old := set.Master()
	start := time.Now()
	set.Sentinels()[0].Kill()
	old.Kill()
	for set.Master() == old {
		time.Sleep(5 * time.Millisecond)
		if time.Since(start) > 30*time.Second {
			t.Fatal("the Sentinels promoted none")
		}
	}
	failover := time.Since(start)
	time.Sleep(testkit.Slack(time.Second))
	outage := w.end(t, r)
	t.Logf("the Sentinels took %v", failover)
	if outage > failover+testkit.Slack(3*time.Second) {
		t.Errorf("writes came back after %v, the failover took %v", outage, failover)
	}
}

// A frozen Sentinel holds up nothing, Close included.
func TestChaosSentinel_FrozenSentinel(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	set := madcrowtest.StartSentinel(t)
	r, err := madcrow.Open(t.Context(), set.Config())
	if err != nil {
		t.Fatal(err)
	}
	await(t, r, madcrow.StateUp, 10*time.Second)
	time.Sleep(200 * time.Millisecond) // it is listened to
	set.Sentinels()[0].Pause()
	start := time.Now()
	set.Failover(t)
	for r.Status().Master != set.Master().Addr() {
		time.Sleep(time.Millisecond)
		if time.Since(start) > 20*time.Second {
			t.Fatalf("still at %s", r.Status().Master)
		}
	}
	t.Logf("followed %v after the failover began", time.Since(start))
	mustSet(t, r, "a", "1")
	start = time.Now()
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > testkit.Slack(500*time.Millisecond) {
		t.Errorf("Close took %v beside a frozen Sentinel", d)
	}
}

// Without Sentinels a healthy master goes on, even over a new connection.
func TestChaosSentinel_AllSentinelsGone(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	set, r := sentinelSet(t)
	for _, s := range set.Sentinels() {
		s.Kill()
	}
	w := startWriters(r)
	time.Sleep(testkit.Length(1500*time.Millisecond, 30*time.Second))
	if n := w.lastBad.Load(); n != 0 {
		t.Error("a write failed although the master is healthy")
	}
	set.Master().Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	time.Sleep(testkit.Slack(500 * time.Millisecond))
	if outage := w.end(t, r); outage > testkit.Slack(500*time.Millisecond) {
		t.Errorf("no write for %v", outage)
	}
	if r.State() != madcrow.StateUp {
		t.Errorf("state %v: %v", r.State(), r.Err())
	}
}

func TestSentinel_ErrorsNameTheCause(t *testing.T) {
	set := madcrowtest.StartSentinel(t, madcrowtest.WithSentinelPassword("right"))
	for _, tc := range []struct {
		name   string
		change func(*madcrow.Config)
		want   error
		text   string
	}{
		{"no Sentinel", func(c *madcrow.Config) {
			c.Sentinel.Addresses = []string{fmt.Sprintf("127.0.0.1:%d", madcrowtest.FreePort(t))}
		}, madcrow.ErrNoSentinel, "refused"},
		{"unknown master", func(c *madcrow.Config) { c.Sentinel.ServiceName = "no-one" }, madcrow.ErrUnknownMaster, "REDIS_SENTINEL_SERVICE_NAME"},
		{"wrong password", func(c *madcrow.Config) { c.Sentinel.Password = "wrong-one" }, madcrow.ErrNoSentinel, "REDIS_SENTINEL_PASSWORD"},
		// It was "NOAUTH Authentication required." without a setting.
		{"no password", func(c *madcrow.Config) { c.Sentinel.Password = "" }, madcrow.ErrNoSentinel, "NOAUTH Authentication required.; check REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := set.Config()
			tc.change(&cfg)
			r := open(t, cfg)
			await(t, r, madcrow.StateDown, 3*time.Second)
			err := r.Do(t.Context(), get(r, "a")).Err()
			wantError(t, err, madcrow.KindUnavailable, tc.want, madcrow.OutcomeNotApplied, tc.text)
			if !errors.Is(err, madcrow.ErrUnavailable) {
				t.Errorf("%v is not ErrUnavailable", err)
			}
		})
	}
}

// The client is cut off together with the master: no replica and no Sentinel
// hears of it any more. min-replicas-to-write makes the master refuse writes,
// so that none is acknowledged that a failover would lose.
func TestChaosSentinel_CutOffWithTheMaster(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	set, r := sentinelSet(t, madcrowtest.WithArgs("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"))
	mustSet(t, r, "before", "1")
	rest := append(set.Replicas(), set.Sentinels()...)
	for _, s := range rest {
		s.Pause()
	}
	start := time.Now()
	var err error
	for err == nil {
		if time.Since(start) > 10*time.Second {
			t.Fatal("the master still takes writes after 10 s alone")
		}
		err = r.Do(t.Context(), r.B().Set().Key("alone").Value("2").Build()).Err()
		time.Sleep(10 * time.Millisecond)
	}
	wantError(t, err, madcrow.KindReadOnly, madcrow.ErrReadOnly, madcrow.OutcomeNotApplied, "NOREPLICAS")
	t.Logf("writes were refused %v after the cut", time.Since(start))
	mustGet(t, r, "before", "1") // reads go on
	for _, s := range rest {
		s.Resume()
	}
	start = time.Now()
	for err != nil {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("after the cut: %v", err)
		}
		err = r.Do(t.Context(), r.B().Set().Key("after").Value("2").Build()).Err()
	}
	t.Logf("and taken again %v after it healed", time.Since(start))
}

// The time-out held for the dial, TLS, AUTH and the commands together, so that
// Sentinels behind 25 ms were never found with TLS and a password.
func TestSentinel_FarAwayIsFoundByDefault(t *testing.T) {
	set := madcrowtest.StartSentinel(t, madcrowtest.WithTLS(), madcrowtest.WithSentinelPassword("watch"))
	for _, rtt := range []time.Duration{90 * time.Millisecond, 150 * time.Millisecond} {
		cfg, proxies := set.Proxied(t)
		for _, p := range proxies {
			p.SetDelay(rtt)
		}
		through := cfg.Dialer
		cfg.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			select {
			case <-time.After(rtt):
				return through(ctx, network, addr)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		r := open(t, cfg)
		t.Logf("up after %v behind %v", await(t, r, madcrow.StateUp, 20*time.Second), rtt)
	}
}

// The error had "no answer in time" three times, without addresses and without
// the setting.
func TestSentinel_SilentOnesAreNamedWithTheSetting(t *testing.T) {
	a, b := startFakeSentinel(t, "", 1), startFakeSentinel(t, "", 1)
	a.mute, b.mute = true, true
	r := open(t, fakeSet(t, a, b))
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := r.Do(t.Context(), get(r, "k")).Err()
		if errors.Is(err, madcrow.ErrNoSentinel) {
			wantError(t, err, madcrow.KindUnavailable, madcrow.ErrNoSentinel, madcrow.OutcomeNotApplied, a.addr(), b.addr(), "REDIS_SENTINEL_SOCKET_TIMEOUT")
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// Sentinels name each other by address. Those that were configured by host name
// counted twice, 6 of 6, and had two connections each.
func TestSentinel_ByNameAndByAddressIsOne(t *testing.T) {
	set := madcrowtest.StartSentinel(t)
	byName := set.Config()
	for i, a := range byName.Sentinel.Addresses {
		byName.Sentinel.Addresses[i] = strings.Replace(a, "127.0.0.1", "localhost", 1)
	}
	both := set.Config()
	both.Sentinel.Addresses = slices.Concat(both.Sentinel.Addresses, byName.Sentinel.Addresses)
	one := set.Config()
	one.Sentinel.Addresses = byName.Sentinel.Addresses[:1]
	var all []*madcrow.Redis
	for _, cfg := range []madcrow.Config{byName, both, one} {
		r := open(t, cfg)
		await(t, r, madcrow.StateUp, 10*time.Second)
		all = append(all, r)
	}
	count := func(want int) {
		t.Helper()
		for range 3 { // they are asked whenever the connection is lost
			set.Master().Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			time.Sleep(250 * time.Millisecond)
		}
		for i, r := range all {
			if s := r.Status().Sentinels; s.Known != 3 || s.Reachable != want {
				t.Errorf("%d: %d of %d are reachable, want %d of 3", i, s.Reachable, s.Known, want)
			}
		}
	}
	count(3)
	for _, s := range set.Sentinels() {
		list, _ := s.Do(t, "CLIENT", "LIST").(string)
		if n := strings.Count(list, "cmd=subscribe"); n > len(all) {
			t.Errorf("%d connections of %d clients listen to one Sentinel", n, len(all))
		}
	}
	set.Sentinels()[0].Kill()
	count(2)
}

// Without SENTINEL REPLICAS no replica served reads, and no line said so.
func TestSentinel_ReplicasByTheOlderCommand(t *testing.T) {
	master := madcrowtest.StartRedis(t)
	replica := madcrowtest.StartRedis(t)
	replica.Do(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(master.Port()))
	f := startFakeSentinel(t, master.Addr(), 1)
	f.replicas = []string{replica.Addr()}
	f.refuse = map[string]string{"REPLICAS": "ERR Unknown sentinel subcommand 'REPLICAS'"}
	var log testkit.Log
	cfg := fakeSet(t, f)
	cfg.ReadReplicas, cfg.Logger = true, log.Logger()
	serving := func(r *madcrow.Redis, want int) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); r.Status().ReadReplicas != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d replicas serve, want %d", r.Status().ReadReplicas, want)
			}
		}
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	serving(r, 1)
	if lines := log.With("level=WARN"); len(lines) != 0 {
		t.Errorf("warned of what works: %q", lines)
	}

	f.set(func() { f.refuse = map[string]string{"REPLICAS": "NOPERM no", "SLAVES": "NOPERM no"} })
	var denied testkit.Log
	cfg.Logger = denied.Logger()
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	for range 5 { // each makes it ask again
		master.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		time.Sleep(50 * time.Millisecond)
		if err := r.Do(t.Context(), get(r, "k"), madcrow.Replica).Err(); err != nil {
			t.Error(err)
		}
	}
	serving(r, 0)
	if lines := denied.With("do not name the replicas"); len(lines) != 1 || !strings.Contains(lines[0], "grant the user") {
		t.Errorf("want one line with the reason: %q", denied.With(""))
	}
}
