package embedded

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
)

// The two ways in which the client writes: at once by the caller, or through a
// queue.
var writing = map[string]func(*rueidis.ClientOption){
	"direct": func(*rueidis.ClientOption) {},
	"queued": func(o *rueidis.ClientOption) { o.AlwaysPipelining = true },
}

func TestServer_ServesManyAtOnce(t *testing.T) {
	long := 2 * time.Second
	if testing.Short() {
		long = 200 * time.Millisecond
	}
	for name, way := range writing {
		t.Run(name, func(t *testing.T) {
			c := connect(t, start(t), way)
			for i := range 64 {
				must(t, c.Do(t.Context(), c.B().Set().Key(fmt.Sprint("k", i)).Value(fmt.Sprint("v", i)).Build()))
			}
			var done atomic.Int64
			var wg sync.WaitGroup
			end := time.Now().Add(long)
			for i := range 64 {
				wg.Go(func() {
					key, want := fmt.Sprint("k", i), fmt.Sprint("v", i)
					for time.Now().Before(end) {
						ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
						got, err := c.Do(ctx, c.B().Get().Key(key).Build()).ToString()
						cancel()
						if err != nil || got != want {
							t.Errorf("GET %s = %q, %v", key, got, err)
							return
						}
						done.Add(1)
					}
				})
			}
			wg.Wait()
			t.Logf("%d GETs in %v by 64 goroutines", done.Load(), long)
		})
	}
}

// Through an unbuffered pipe the client waits for the server to read, and the
// server for the client.
func TestServer_TakesLongPipelines(t *testing.T) {
	for name, way := range writing {
		t.Run(name, func(t *testing.T) {
			c := connect(t, start(t), way)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			value := strings.Repeat("x", 1000)
			var cmds []rueidis.Completed
			for i := range 2000 {
				key := fmt.Sprint("k", i)
				cmds = append(cmds, c.B().Set().Key(key).Value(value).Build(), c.B().Get().Key(key).Build())
			}
			for i, r := range c.DoMulti(ctx, cmds...) {
				if got, err := r.ToString(); err != nil || i%2 == 1 && got != value {
					t.Fatalf("reply %d: %d bytes, %v", i, len(got), err)
				}
			}
			big := strings.Repeat("y", 16<<20)
			must(t, c.Do(ctx, c.B().Set().Key("big").Value(big).Build()))
			if got, err := c.Do(ctx, c.B().Get().Key("big").Build()).ToString(); got != big {
				t.Errorf("a value of 16 MiB came as %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestServer_DeadlinesEndACall(t *testing.T) {
	for name, way := range writing {
		t.Run(name, func(t *testing.T) {
			c := connect(t, start(t), way)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			begin := time.Now()
			err := c.Do(ctx, c.B().Blpop().Key("never").Timeout(0).Build()).Error()
			if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 2*time.Second {
				t.Errorf("after %v: %v", took, err)
			}
			must(t, c.Do(t.Context(), c.B().Ping().Build()))
		})
	}
}

// The client pings idle connections; a missing answer would close them.
func TestServer_IdleConnectionsStay(t *testing.T) {
	s := start(t)
	c := connect(t, s, func(o *rueidis.ClientOption) {
		o.AlwaysPipelining, o.Dialer.KeepAlive, o.ConnWriteTimeout = true, 50*time.Millisecond, 500*time.Millisecond
	})
	ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
	defer cancel()
	must(t, c.Do(t.Context(), c.B().Ping().Build()))
	before := s.redis.TotalConnectionCount()
	sub := connect(t, s, func(o *rueidis.ClientOption) {
		o.Dialer.KeepAlive, o.ConnWriteTimeout = 50*time.Millisecond, 500*time.Millisecond
	})
	err := sub.Receive(ctx, sub.B().Subscribe().Channel("news").Build(), func(rueidis.PubSubMessage) {})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an idle subscription ended: %v", err)
	}
	must(t, c.Do(t.Context(), c.B().Ping().Build()))
	if after := s.redis.TotalConnectionCount(); after != before+1 {
		t.Errorf("%d connections were made in idle time", after-before-1)
	}
}
