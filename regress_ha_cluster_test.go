package madcrow_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func otherMaster(t *testing.T, c *madcrowtest.Cluster, key string) *madcrowtest.Server {
	from := c.MasterOf(t, key)
	for _, n := range c.Nodes() {
		if n != from && isMaster(t, n) {
			return n
		}
	}
	return nil
}

// A seed that is a cluster node without a map (new, reset, lost its nodes.conf).
func TestRegressHA_BlankSeedFirst(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	blank := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--cluster-enabled", "yes"))
	cfg := c.Config()
	cfg.Cluster.Addresses = append([]string{blank.Addr()}, cfg.Cluster.Addresses...)
	r := open(t, cfg)
	var err error
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err = r.Do(t.Context(), set("foo", "1")); err == nil {
			return
		}
	}
	t.Errorf("4 s, six healthy seeds behind one blank one: %v; state %v, covered %d", err, r.State(), r.Status().SlotsCovered)
}

func TestRegressHA_MultiExecFollowsItsSlot(t *testing.T) {
	c, r := startCluster(t)
	c.MoveSlot(t, c.Slot("counter"), otherMaster(t, c, "counter"))
	start := time.Now()
	n := 0
	for {
		_, err := r.DoMulti(t.Context(), func(b builder) []command {
			return []command{b.Multi().Build(), b.Incr().Key("counter").Build(), b.Exec().Build()}
		})
		if err == nil {
			break
		}
		if n++; n == 1 {
			t.Errorf("after the slot moved: %v", err)
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("for ever")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n > 0 {
		t.Errorf("%d pipelines failed over %v", n, time.Since(start))
	}
}

func TestRegressHA_ShardedSubscribeFollowsItsSlot(t *testing.T) {
	c, r := startCluster(t)
	c.MoveSlot(t, c.Slot("news"), otherMaster(t, c, "news"))
	start := time.Now()
	n := 0
	for time.Since(start) < 20*time.Second {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		var subscribed atomic.Bool // the hook also hears the farewell, which Receive does not wait for
		err := r.Receive(rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { subscribed.Store(true); cancel() }),
			func(b builder) command { return b.Ssubscribe().Channel("news").Build() }, func(rueidis.PubSubMessage) {})
		cancel()
		if subscribed.Load() {
			break
		}
		if n++; n == 1 {
			t.Errorf("after the slot moved: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n > 0 {
		t.Errorf("%d subscriptions failed over %v", n, time.Since(start))
	}
}

func TestRegressHA_TxWhileItsSlotMoves(t *testing.T) {
	c, r := startCluster(t)
	c.BeginMove(t, c.Slot("counter"), otherMaster(t, c, "counter"))
	mustSet(t, r, "counter", "1") // by ASK
	_, err := r.Tx(t.Context(), []string{"counter"}, func(tx *madcrow.Tx) error { tx.Queue(incr("counter")); return nil })
	if err != nil {
		t.Errorf("Tx: %v", err)
	}
	_, err = r.DoMulti(t.Context(), func(b builder) []command {
		return []command{b.Multi().Build(), b.Incr().Key("counter").Build(), b.Exec().Build()}
	})
	if err != nil {
		t.Errorf("MULTI: %v", err)
	}
}

// A command whose key the Builder does not know is redirected; that must not
// become a storm of dials.
func TestRegressHA_MovedIsNoDialStorm(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	cfg := c.Config()
	var mu sync.Mutex
	dials := map[string]int{}
	cfg.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		mu.Lock()
		dials[addr]++
		mu.Unlock()
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	mu.Lock()
	clear(dials)
	mu.Unlock()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		_, _ = r.Do(t.Context(), arbitrary("GET", "foo"))
	}
	mu.Lock()
	defer mu.Unlock()
	for a, n := range dials {
		if n > 20 {
			t.Errorf("%s was dialled %d times in 3 s, in a healthy cluster", a, n)
		}
	}
}

// A token service takes 400 ms.
func TestRegressHA_SlowCredentials(t *testing.T) {
	for _, mode := range []string{"cluster", "sentinel", "standalone"} {
		t.Run(mode, func(t *testing.T) {
			var cfg madcrow.Config
			switch mode {
			case "cluster":
				cfg = madcrowtest.StartCluster(t, madcrowtest.WithPassword("pw")).Config()
			case "sentinel":
				cfg = madcrowtest.StartSentinel(t, madcrowtest.WithPassword("pw")).Config()
			default:
				cfg = madcrowtest.StartRedis(t, madcrowtest.WithPassword("pw")).Config()
			}
			cfg.Password, cfg.Cluster.Password = "", ""
			cfg.Credentials = func(ctx context.Context, q madcrow.CredentialsRequest) (madcrow.Credentials, error) {
				time.Sleep(400 * time.Millisecond)
				if q.Sentinel {
					return madcrow.Credentials{}, nil
				}
				return madcrow.Credentials{Password: "pw"}, nil
			}
			r := open(t, cfg)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
			defer cancel()
			for st := range r.Watch(ctx) {
				if st.State == madcrow.StateUp {
					t.Logf("up after %v", time.Since(start))
					return
				}
			}
			t.Errorf("not up after %v: %v", time.Since(start), r.Err())
		})
	}
}

func TestRegressHA_DeafCredentialsAndClose(t *testing.T) {
	for _, mode := range []string{"cluster", "sentinel", "standalone"} {
		t.Run(mode, func(t *testing.T) {
			var cfg madcrow.Config
			a := fmt.Sprintf("127.0.0.1:%d", madcrowtest.StartRedis(t).Port())
			switch mode {
			case "cluster":
				cfg.Cluster = madcrow.Cluster{Enabled: true, Addresses: []string{a}}
			case "sentinel":
				cfg.Sentinel = madcrow.Sentinel{Enabled: true, ServiceName: "m", Addresses: []string{a}}
			default:
				cfg.Host, cfg.Port = "127.0.0.1", 0
				_, p, _ := net.SplitHostPort(a)
				fmt.Sscan(p, &cfg.Port)
			}
			cfg.Credentials = func(ctx context.Context, q madcrow.CredentialsRequest) (madcrow.Credentials, error) {
				time.Sleep(5 * time.Second)
				return madcrow.Credentials{}, nil
			}
			r, err := madcrow.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_ = r.Close(ctx)
			if d := time.Since(start); d > slack(time.Second) {
				t.Errorf("Close took %v", d)
			}
		})
	}
}

// 150 ms one way is slow, and standalone works with it.
func TestRegressHA_SlowLink(t *testing.T) {
	c := madcrowtest.StartCluster(t, madcrowtest.WithPassword("pw"))
	cfg, proxies := c.Proxied(t)
	for _, p := range proxies {
		p.SetDelay(140 * time.Millisecond)
	}
	cfg.CommandTimeout = 3 * time.Second
	r := open(t, cfg)
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	for st := range r.Watch(ctx) {
		if st.State == madcrow.StateUp {
			t.Logf("up after %v", time.Since(start))
			return
		}
	}
	t.Errorf("not up after %v: %v", time.Since(start), r.Err())
}

// Up means: every node serves.
func TestRegressHA_UpWithAMasterThatNeverConnected(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	frozen := c.MasterOf(t, "foo")
	cfg, proxies := c.Proxied(t)
	proxies[frozen.Addr()].BlackHole(true)
	var seeds []string
	for _, a := range cfg.Cluster.Addresses {
		if a != frozen.Addr() {
			seeds = append(seeds, a)
		}
	}
	cfg.Cluster.Addresses = seeds
	r := open(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	for st := range r.Watch(ctx) {
		t.Logf("%v %v", st.State, st.Err)
		if st.State == madcrow.StateUp {
			t.Errorf("up, and %s never answered", frozen.Addr())
		}
	}
}

// Two writes in one pipeline, built by Arbitrary without Keys, and published messages, keep their order.
func TestRegressHA_KeylessOrder(t *testing.T) {
	_, r := startCluster(t)
	wrong := 0
	for i := range 200 {
		k := fmt.Sprint("k", i)
		_, err := r.DoMulti(t.Context(), func(b builder) []command {
			return []command{b.Arbitrary("SET", k, "1").Build(), b.Arbitrary("SET", k, "2").Build()}
		})
		if err != nil {
			t.Fatal(err)
		}
		msg, _ := r.Do(t.Context(), get(k))
		if v, _ := msg.ToString(); v != "2" {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d of 200 pipelines were applied in the wrong order", wrong)
	}
	var got []string
	var mu sync.Mutex
	ready := make(chan struct{})
	var once sync.Once // it may be subscribed again, on a busy machine
	ctx := rueidis.WithOnSubscriptionHook(t.Context(), func(rueidis.PubSubSubscription) { once.Do(func() { close(ready) }) })
	go func() {
		_ = r.Receive(ctx, func(b builder) command { return b.Subscribe().Channel("c").Build() }, func(m rueidis.PubSubMessage) {
			mu.Lock()
			got = append(got, m.Message)
			mu.Unlock()
		})
	}()
	<-ready
	for i := range 200 {
		_, _ = r.DoMulti(t.Context(), func(b builder) []command {
			return []command{b.Publish().Channel("c").Message(fmt.Sprint(2 * i)).Build(), b.Publish().Channel("c").Message(fmt.Sprint(2*i + 1)).Build()}
		})
	}
	time.Sleep(200 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	bad := 0
	for i := range got {
		if got[i] != fmt.Sprint(i) {
			bad++
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d messages out of order", bad, len(got))
	}
}

// Close with calls under way and nodes frozen or half of them gone.
func TestRegressHA_CloseWithFrozenNodes(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	c := madcrowtest.StartCluster(t)
	r, err := madcrow.Open(t.Context(), c.Config())
	if err != nil {
		t.Fatal(err)
	}
	await(t, r, madcrow.StateUp, 5*time.Second)
	var slow atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var calls, other atomic.Int64 // of the other nodes, and those that failed
	var why atomic.Value
	frozen := c.MasterOf(t, "foo")
	var free string
	for i := 0; free == ""; i++ {
		if k := fmt.Sprint("f", i); c.MasterOf(t, k) != frozen {
			free = k
		}
	}
	for g := range 30 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				key := "foo"
				if g%2 == 0 {
					key = free
				}
				ctx, cancel := context.WithTimeout(context.Background(), 60*time.Millisecond)
				start := time.Now()
				_, err := r.Do(ctx, set(key, "1"))
				if d := int64(time.Since(start)); d > slow.Load() {
					slow.Store(d)
				}
				if key == free && !errors.Is(err, madcrow.ErrClosed) && r.State() != madcrow.StateClosed {
					if calls.Add(1); err != nil {
						other.Add(1)
						why.Store(err.Error())
					}
				}
				cancel()
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	frozen.Pause()
	time.Sleep(700 * time.Millisecond)
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err = r.Close(ctx)
	t.Logf("Close took %v, %v; slowest call %v; %d of %d calls of the other nodes failed: %v", time.Since(start), err, time.Duration(slow.Load()), other.Load(), calls.Load(), why.Load())
	// A busy machine may hold up a call or two of the other nodes.
	if time.Since(start) > slack(1500*time.Millisecond) || slow.Load() > int64(60*time.Millisecond+slack(50*time.Millisecond)) || other.Load() > calls.Load()/100 {
		t.Error("broken")
	}
	close(stop)
	wg.Wait()
	frozen.Resume()
}
