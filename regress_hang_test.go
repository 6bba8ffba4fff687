package madcrow_test

import (
	"bytes"
	"context"
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

func within(t *testing.T, what string, limit time.Duration, fn func()) {
	t.Helper()
	limit = slack(limit)
	start := time.Now()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(limit + 8*time.Second):
	}
	if d := time.Since(start); d > limit {
		t.Errorf("%s took %v, want at most %v", what, d, limit)
	}
}

func TestRegress_PanicInBuildHangsClose(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r, err := madcrow.Open(t.Context(), s.Config())
	if err != nil {
		t.Fatal(err)
	}
	mustSet(t, r, "a", "1")
	func() {
		defer func() { _ = recover() }()
		_, _ = r.Do(t.Context(), func(builder) command { panic("bug of a handler") })
	}()
	within(t, "Close", 2*time.Second, func() { _ = r.Close(context.Background()) })
}

func TestRegress_CommandUsedTwiceHangsClose(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r, err := madcrow.Open(t.Context(), s.Config())
	if err != nil {
		t.Fatal(err)
	}
	mustSet(t, r, "a", "1")
	c := r.Client()
	cmd := c.B().Get().Key("a").Build()
	func() {
		defer func() { t.Log(recover()) }()
		_ = c.Do(t.Context(), cmd)
		_ = c.Do(t.Context(), cmd)
	}()
	within(t, "Close", 2*time.Second, func() { _ = r.Close(context.Background()) })
}

func TestRegress_ReceiveFrozenIgnoresCancel(t *testing.T) {
	s, r := server(t)
	s.Pause()
	defer s.Resume()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, cancel)
	within(t, "Receive cancelled after 30 ms", 300*time.Millisecond, func() {
		_ = r.Receive(ctx, func(b builder) command { return b.Subscribe().Channel("x").Build() }, func(rueidis.PubSubMessage) {})
	})
}

func TestRegress_ManyReceiversLeaveAFrozenServer(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r, err := madcrow.Open(t.Context(), s.Config())
	if err != nil {
		t.Fatal(err)
	}
	await(t, r, madcrow.StateUp, 5*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	var ready, wg sync.WaitGroup
	var last atomic.Int64
	for i := range 20 {
		ready.Add(1)
		var once sync.Once
		sub := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { once.Do(ready.Done) })
		wg.Go(func() {
			_ = r.Receive(sub, func(b builder) command { return b.Subscribe().Channel(fmt.Sprint("c", i)).Build() }, func(rueidis.PubSubMessage) {})
			last.Store(time.Now().UnixNano())
		})
	}
	ready.Wait()
	s.Pause()
	start := time.Now()
	cancel()
	time.Sleep(5 * time.Millisecond)
	short, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer stop()
	within(t, "Close(50 ms)", 400*time.Millisecond, func() { _ = r.Close(short) })
	wg.Wait()
	if d := time.Duration(last.Load() - start.UnixNano()); d > slack(400*time.Millisecond) {
		t.Errorf("the last Receive returned %v after it was cancelled", d)
	}
	s.Resume()
}

func TestRegress_HundredsOfReceiversOnAFrozenServer(t *testing.T) {
	s, r := server(t)
	up := make(chan struct{})
	var once sync.Once
	go func() {
		_ = r.Receive(rueidis.WithOnSubscriptionHook(t.Context(), func(rueidis.PubSubSubscription) { once.Do(func() { close(up) }) }),
			func(b builder) command { return b.Subscribe().Channel("first").Build() }, func(rueidis.PubSubMessage) {})
	}()
	<-up
	s.Pause()
	defer s.Resume()
	var worst atomic.Int64
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			_ = r.Receive(ctx, func(b builder) command { return b.Subscribe().Channel(fmt.Sprint("c", i)).Build() }, func(rueidis.PubSubMessage) {})
			for d := int64(time.Since(start)); ; {
				old := worst.Load()
				if d <= old || worst.CompareAndSwap(old, d) {
					break
				}
			}
		})
	}
	wg.Wait()
	if d := time.Duration(worst.Load()); d > slack(300*time.Millisecond) {
		t.Errorf("a Receive with a deadline of 50 ms took %v", d)
	}
}

func TestRegress_DedicateOnAFrozenServer(t *testing.T) {
	s, r := server(t)
	s.Pause()
	defer s.Resume()
	within(t, "Dedicate", 700*time.Millisecond, func() {
		_, release := r.Client().Dedicate()
		release()
	})
}

// A cancelled DoBlocking must give its connection up.
func TestRegress_CancelledBlockingKeepsItsConnection(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3 // one for the pool
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := r.DoBlocking(ctx, 30*time.Second, func(b builder) command { return b.Blpop().Key("queue").Timeout(30).Build() })
	t.Log(err)
	time.Sleep(500 * time.Millisecond)
	s.Do(t, "RPUSH", "other", "x")
	_, err = r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error { tx.Queue(incr("n")); return nil })
	if err != nil {
		t.Errorf("500 ms after the cancellation the only connection is still taken: %v", err)
	}
	s.Do(t, "RPUSH", "queue", "job")
	if n := s.Do(t, "LLEN", "queue"); n != int64(1) {
		t.Errorf("the job was taken by a call that ended 1 s ago")
	}
}

func TestRegress_DoBlockingOfAnUnmarkedCommand(t *testing.T) {
	_, r := server(t)
	start := time.Now()
	msg, err := r.DoBlocking(t.Context(), 3*time.Second, arbitrary("BLPOP", "queue", "3"))
	if err != nil || !msg.IsNil() {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

func TestRegress_SlowCredentials(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("pw"))
	cfg := s.Config()
	cfg.Password = ""
	cfg.Credentials = func(ctx context.Context, _ madcrow.CredentialsRequest) (madcrow.Credentials, error) {
		select {
		case <-time.After(150 * time.Millisecond): // a token service
		case <-ctx.Done():
		}
		return madcrow.Credentials{Password: "pw"}, ctx.Err()
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 4*time.Second)
}

func TestRegress_CloseWaitsForCredentials(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("pw"))
	cfg := s.Config()
	cfg.Password = ""
	asked := make(chan struct{}, 100)
	cfg.Credentials = func(ctx context.Context, _ madcrow.CredentialsRequest) (madcrow.Credentials, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return madcrow.Credentials{}, ctx.Err()
	}
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	within(t, "Close(100 ms)", time.Second, func() { _ = r.Close(ctx) })
}

// deafConn stops passing anything once INFO was written: a firewall that
// forgot the flow.
type deafConn struct {
	net.Conn
	on   *atomic.Bool
	deaf atomic.Bool
	end  chan struct{}
	once sync.Once
}

func (c *deafConn) Write(p []byte) (int, error) {
	if c.deaf.Load() || c.on.Load() && bytes.Contains(p, []byte("$4\r\nINFO\r\n")) {
		c.on.Store(false)
		c.deaf.Store(true)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.deaf.Load() {
		<-c.end
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.end) })
	return c.Conn.Close()
}

func TestRegress_ConnectorStuckInInfo(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.CommandTimeout = 5 * time.Second
	var on atomic.Bool
	on.Store(true)
	cfg.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &deafConn{Conn: c, on: &on, end: make(chan struct{})}, nil
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := r.Do(ctx, get("a"))
		cancel()
		if err == nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal(err)
		}
	}
	if d := time.Since(start); d > slack(time.Second) {
		t.Errorf("one flow was lost, Redis and the network were fine: calls failed for %v", d)
	}
}
