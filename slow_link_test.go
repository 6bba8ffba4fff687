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

// On a slow network, callers that gave up early made calls of the patient ones
// fail.
func TestSlowLink_PatientCallersAreAllServed(t *testing.T) {
	for _, tc := range []struct{ patient, impatient int }{{20, 20}, {20, int(testkit.Length(400, 6000))}, {int(testkit.Length(1000, 4500)), 0}} {
		t.Run(fmt.Sprint(tc.patient, " ", tc.impatient), func(t *testing.T) {
			s := madcrowtest.StartRedis(t)
			p := madcrowtest.StartProxy(t, s.Addr())
			r := open(t, madcrow.Config{Host: "127.0.0.1", Port: p.Port(), CommandTimeout: 3 * time.Second})
			await(t, r, madcrow.StateUp, 5*time.Second)
			mustSet(t, r, "a", "1")
			p.SetDelay(150 * time.Millisecond)
			time.Sleep(20 * time.Millisecond)
			// A round trip that grows a thousandfold is taken for an outage at
			// first, until the prober has measured it.
			const settled = time.Second
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), settled+testkit.Length(time.Second, 4*time.Second))
			defer cancel()
			late := testkit.MeasureLateness()
			var ok, bad, over atomic.Int64
			var mu sync.Mutex
			kinds := map[string]int{}
			var wg sync.WaitGroup
			for i := range tc.patient + tc.impatient {
				wg.Go(func() {
					limit := 1500 * time.Millisecond
					if i >= tc.patient {
						limit = 100 * time.Millisecond
					}
					time.Sleep(time.Duration(i%200) * time.Millisecond)
					for ctx.Err() == nil {
						c, stop := context.WithTimeout(context.Background(), limit)
						start := time.Now()
						err := r.Do(c, get(r, "a")).Err()
						d := int64(time.Since(start) - limit)
						stop()
						for {
							old := over.Load()
							if d <= old || over.CompareAndSwap(old, d) {
								break
							}
						}
						if i < tc.patient {
							if err == nil {
								ok.Add(1)
							} else if time.Since(began) > settled {
								bad.Add(1)
								var e *madcrow.Error
								errors.As(err, &e)
								mu.Lock()
								kinds[fmt.Sprint(e.Kind, " ", e.Err)]++
								mu.Unlock()
							}
						}
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
			wg.Wait()
			t.Logf("patient: %d ok, %d failed %v; overshoot %v, scheduler %v", ok.Load(), bad.Load(), kinds, time.Duration(over.Load()), late.Stop())
			if bad.Load() > 0 {
				t.Errorf("%d patient calls failed on a healthy, slow server", bad.Load())
			}
		})
	}
}

// Replies for callers that had given up went to others.
func TestSlowLink_ThousandsOfCallersGetTheirOwnRepliesInTime(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	p := madcrowtest.StartProxy(t, s.Addr())
	r := open(t, madcrow.Config{Host: "127.0.0.1", Port: p.Port(), CommandTimeout: 2 * time.Second})
	await(t, r, madcrow.StateUp, 5*time.Second)
	p.SetDelay(150 * time.Millisecond)
	var ok, bad, wrong, over atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Length(1500*time.Millisecond, 4*time.Second))
	defer cancel()
	for i := range 100 {
		mustSet(t, r, fmt.Sprint("k", i), fmt.Sprint("k", i))
		if i > 2 {
			s.Do(t, "SET", fmt.Sprint("k", i), fmt.Sprint("k", i))
		}
		if i == 2 {
			p.SetDelay(0)
		}
	}
	p.SetDelay(150 * time.Millisecond)
	late := testkit.MeasureLateness()
	var wg sync.WaitGroup
	for i := range 8000 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprint("k", (i+n)%100)
				limit := time.Second
				if i%3 == 0 {
					limit = 100 * time.Millisecond // gives up always
				}
				c, stop := context.WithTimeout(context.Background(), limit)
				start := time.Now()
				msg, err := r.Do(c, get(r, key)).Message()
				d := int64(time.Since(start) - limit)
				stop()
				for most := over.Load(); d > most && !over.CompareAndSwap(most, d); most = over.Load() {
				}
				if err != nil {
					bad.Add(1)
				} else if v, _ := msg.ToString(); v != key {
					wrong.Add(1)
				} else {
					ok.Add(1)
				}
			}
		})
	}
	wg.Wait()
	overshoot, scheduler := time.Duration(over.Load()), late.Stop()
	t.Logf("ok %d, failed %d, wrong %d, worst overshoot %v, scheduler %v", ok.Load(), bad.Load(), wrong.Load(), overshoot, scheduler)
	if ok.Load() == 0 {
		t.Error("no call was answered")
	}
	if overshoot > testkit.Slack(200*time.Millisecond)+3*scheduler { // 8,000 goroutines wait for a processor too
		t.Errorf("a call returned %v after its deadline", overshoot)
	}
	p.SetDelay(0)
	time.Sleep(300 * time.Millisecond)
	for range 20 {
		mustGet(t, r, "k1", "k1")
	}
	if wrong.Load() != 0 {
		t.Error("wrong replies")
	}
}

// 140 ms one way is slow; a standalone Redis came up with it and a cluster did
// not.
func TestSlowLink_AClusterComesUpAsAStandaloneRedisDoes(t *testing.T) {
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
