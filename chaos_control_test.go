package madcrow_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// The controls show the fault with the protection off: a bound that holds
// without it would prove nothing.

// TestChaosControl_BareClientOutlivesItsDeadlines is TestChaos_FrozenRedis on
// the bare client below us.
func TestChaosControl_BareClientOutlivesItsDeadlines(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var worst atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4000 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rand.IntN(1000)) * time.Millisecond):
				}
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				start := time.Now()
				_ = c.Do(ctx, c.B().Get().Key("a").Build()).Error()
				cancel()
				for over := int64(time.Since(start) - 50*time.Millisecond); ; {
					old := worst.Load()
					if over <= old || worst.CompareAndSwap(old, over) {
						break
					}
				}
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	late := testkit.MeasureLateness()
	s.Pause()
	time.Sleep(testkit.Length(1500*time.Millisecond, 5*time.Second))
	s.Resume()
	close(stop)
	wg.Wait()
	over, behind := time.Duration(worst.Load()), late.Stop()
	t.Logf("the bare client: worst overshoot %v, of which the scheduler %v", over, behind)
	if over-behind < 50*time.Millisecond {
		t.Error("the bare client kept its deadlines: TestChaos_FrozenRedis shows nothing")
	}
}

// TestChaos_SlowWire sends large values over a wire of 1 MB a second beside
// small reads: with a connection of their own the small ones do not notice, without
// it they wait behind the large ones.
func TestChaos_SlowWire(t *testing.T) {
	slowest := func(threshold int) time.Duration {
		s := madcrowtest.StartRedis(t)
		p := madcrowtest.StartProxy(t, s.Addr())
		r := open(t, madcrow.Config{Host: "127.0.0.1", Port: p.Port(), CommandTimeout: 3 * time.Second, BulkThreshold: threshold})
		await(t, r, madcrow.StateUp, 5*time.Second)
		mustSet(t, r, "a", "1")
		p.SetBandwidth(1 << 20)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		for i := range 3 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_ = r.Do(ctx, set(r, "big"+strconv.Itoa(i), strings.Repeat("x", 300<<10))).Err()
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		var most time.Duration
		for end := time.Now().Add(testkit.Length(time.Second, 4*time.Second)); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			start := time.Now()
			if err := r.Do(ctx, get(r, "a")).Err(); err != nil {
				t.Errorf("a small read: %v", err)
			}
			most = max(most, time.Since(start))
		}
		return most
	}
	with, without := slowest(0), slowest(32<<20)
	t.Logf("slowest small read: %v with connections of their own, %v without", with, without)
	if with > testkit.Slack(100*time.Millisecond) {
		t.Errorf("a small read took %v beside large values", with)
	}
	if without < 2*with {
		t.Error("the control is not slower: nothing was shown")
	}
}

// TestChaosControl_BareSentinelClient is TestChaosSentinel_FrozenSentinel on
// the Sentinel client below us, as it comes.
func TestChaosControl_BareSentinelClient(t *testing.T) {
	set := madcrowtest.StartSentinel(t)
	addrs := set.Config().Sentinel.Addresses
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addrs, Sentinel: rueidis.SentinelOption{MasterSet: "mymaster"}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	set.Sentinels()[0].Pause()
	start := time.Now()
	set.Failover(t)
	master := set.Master()
	limit := testkit.Length(4*time.Second, 15*time.Second)
	followed := time.Duration(0)
	for n := 0; followed == 0 && time.Since(start) < limit; n++ {
		key := "bare" + strconv.Itoa(n)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := c.Do(ctx, c.B().Set().Key(key).Value("1").Build()).Error()
		cancel()
		if err == nil && master.Do(t, "GET", key) == "1" {
			followed = time.Since(start)
		}
		time.Sleep(20 * time.Millisecond)
	}
	closed := make(chan struct{})
	start = time.Now()
	go func() { c.Close(); close(closed) }()
	hung := false
	select {
	case <-closed:
	case <-time.After(2 * time.Second):
		hung = true
	}
	t.Logf("the bare client: followed after %v (0: not within %v); Close took %v, still under way: %v", followed, limit, time.Since(start), hung)
	if followed != 0 && followed < 2*time.Second && !hung {
		t.Error("the bare client did as well: TestChaosSentinel_FrozenSentinel shows nothing")
	}
	set.Sentinels()[0].Resume()
	<-closed
}
