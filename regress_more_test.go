package madcrow_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestRegress_MonitorThroughDoOnAQuietLane(t *testing.T) { // kills the process
	s, r := server(t)
	_, err := r.Do(t.Context(), arbitrary("MONITOR"))
	t.Log(err)
	s.Do(t, "PING")
	time.Sleep(50 * time.Millisecond)
	_, err = r.Do(t.Context(), get("a"))
	t.Log(err)
}

// A connection that once served a context without a deadline is pipelined for
// ever, and giving it back takes a round trip that hears no context.
func TestRegress_TxOutlivesItsDeadlineInRelease(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	d, release := r.Client().Dedicate()
	ctx, cancel := context.WithCancel(t.Context()) // such as that of an HTTP request
	defer cancel()
	_ = d.Do(ctx, d.B().Get().Key("a").Build()).Error()
	release()
	short, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	start := time.Now()
	_, err := r.Tx(short, nil, func(tx *madcrow.Tx) error {
		s.Pause()
		return nil
	})
	if d := time.Since(start); d > slack(400*time.Millisecond) {
		t.Errorf("Tx with 100 ms took %v: %v", d, err)
	}
	s.Resume()
}

func TestRegress_RefreshAfterInThePast(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("pw"))
	cfg := s.Config()
	cfg.Password = ""
	var asked atomic.Int64
	cfg.Credentials = func(context.Context, madcrow.CredentialsRequest) (madcrow.Credentials, error) {
		asked.Add(1)
		return madcrow.Credentials{Password: "pw", RefreshAfter: time.Now().Add(-time.Second)}, nil
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	time.Sleep(300 * time.Millisecond)
	if n := asked.Load(); n > 20 {
		t.Errorf("credentials were asked for %d times in 0.3 s", n)
	}
}

// The token service fails once; Redis is well.
func TestRegress_FailedRefreshEndsAHealthyConnection(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("pw"))
	cfg := s.Config()
	cfg.Password = ""
	var asked atomic.Int64
	cfg.Credentials = func(context.Context, madcrow.CredentialsRequest) (madcrow.Credentials, error) {
		if asked.Add(1) > 1 {
			return madcrow.Credentials{}, fmt.Errorf("token service is away")
		}
		return madcrow.Credentials{Password: "pw", RefreshAfter: time.Now().Add(200 * time.Millisecond)}, nil
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	time.Sleep(500 * time.Millisecond)
	if _, err := r.Do(t.Context(), get("a")); err != nil {
		t.Error(err)
	}
}

func TestRegress_DoBesideClose(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	for range int(length(15, 60)) {
		r, err := madcrow.Open(t.Context(), s.Config())
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 200 {
					_, _ = r.Do(context.Background(), get("a"))
				}
			})
		}
		wg.Go(func() { _ = r.Close(context.Background()) })
		wg.Wait()
	}
}

// MULTI without EXEC in a pipeline; WATCH through Do.
func TestRegress_PipelineLeavesMultiOn(t *testing.T) {
	_, r := server(t)
	_, _ = r.DoMulti(t.Context(), func(b builder) []command {
		return []command{b.Multi().Build(), b.Set().Key("a").Value("1").Build()}
	})
	msg, err := r.Do(t.Context(), get("b"))
	if v, _ := msg.ToString(); v == "QUEUED" {
		t.Errorf("GET gave %q, %v", v, err)
	}
}

func TestRegress_WatchThroughDoBreaksOthers(t *testing.T) {
	s, r := server(t)
	_, _ = r.Do(t.Context(), arbitrary("WATCH", "a"))
	s.Do(t, "SET", "a", "2")
	res, _ := r.DoMulti(t.Context(), func(b builder) []command {
		return []command{b.Multi().Build(), b.Set().Key("b").Value("1").Build(), b.Exec().Build()}
	})
	if res[2].Message.IsNil() {
		t.Errorf("a transaction of somebody else, on other keys, was not applied")
	}
}

func TestRegress_ThousandsOfCallersOnASlowServer(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	p := madcrowtest.StartProxy(t, s.Addr())
	r := open(t, madcrow.Config{Host: "127.0.0.1", Port: p.Port(), CommandTimeout: 2 * time.Second})
	await(t, r, madcrow.StateUp, 5*time.Second)
	p.SetDelay(150 * time.Millisecond)
	var ok, bad, wrong, over atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), length(1500*time.Millisecond, 4*time.Second))
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
				msg, err := r.Do(c, get(key))
				d := int64(time.Since(start) - limit)
				stop()
				if d > over.Load() {
					over.Store(d)
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
	t.Logf("ok %d, failed %d, wrong %d, worst overshoot %v", ok.Load(), bad.Load(), wrong.Load(), time.Duration(over.Load()))
	p.SetDelay(0)
	time.Sleep(300 * time.Millisecond)
	for range 20 {
		mustGet(t, r, "k1", "k1")
	}
	if wrong.Load() != 0 {
		t.Error("wrong replies")
	}
}

// Race hunt: everything at once, with cancellations, kills and Close.
func TestRegress_RaceHunt(t *testing.T) {
	for range int(length(1, 4)) {
		s := madcrowtest.StartRedis(t)
		r, err := madcrow.Open(t.Context(), s.Config())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() { everythingAtOnce(ctx, r, i) })
			wg.Go(func() {
				for ctx.Err() == nil {
					c, stop := context.WithCancel(ctx)
					time.AfterFunc(time.Duration(i*20)*time.Microsecond, stop)
					_, _ = r.Do(c, get("a"))
					stop()
					_ = r.Status()
					_ = r.Err()
				}
			})
		}
		for ctx.Err() == nil {
			s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			time.Sleep(50 * time.Millisecond)
		}
		short, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
		_ = r.Close(short)
		stop()
		cancel()
		wg.Wait()
	}
	time.Sleep(300 * time.Millisecond)
	buf := make([]byte, 1<<20)
	t.Log(runtime.NumGoroutine(), len(buf[:runtime.Stack(buf, true)]))
}
