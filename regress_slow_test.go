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
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// A slow network, and callers of whom some give up early: the patient ones
// must all be served.
func TestRegress_ImpatientCallersHurtPatientOnes(t *testing.T) {
	for _, tc := range []struct{ patient, impatient int }{{20, 20}, {20, int(length(400, 6000))}, {int(length(1000, 4500)), 0}} {
		t.Run(fmt.Sprint(tc.patient, " ", tc.impatient), func(t *testing.T) {
			s := madcrowtest.StartRedis(t)
			p := madcrowtest.StartProxy(t, s.Addr())
			r := open(t, madcrow.Config{Host: "127.0.0.1", Port: p.Port(), CommandTimeout: 3 * time.Second})
			await(t, r, madcrow.StateUp, 5*time.Second)
			mustSet(t, r, "a", "1")
			p.SetDelay(150 * time.Millisecond)
			time.Sleep(20 * time.Millisecond)
			// A round trip that grows a thousandfold is taken for an outage at
			// first, until the connector has measured it.
			const settled = time.Second
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), settled+length(time.Second, 4*time.Second))
			defer cancel()
			late := measureLateness()
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
						_, err := r.Do(c, get("a"))
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
			t.Logf("patient: %d ok, %d failed %v; overshoot %v, scheduler %v", ok.Load(), bad.Load(), kinds, time.Duration(over.Load()), late.end())
			if bad.Load() > 0 {
				t.Errorf("%d patient calls failed on a healthy, slow server", bad.Load())
			}
		})
	}
}
