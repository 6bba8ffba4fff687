package madcrow_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestRegress_ScriptThatWroteIsToldNotApplied(t *testing.T) {
	s, r := server(t)
	_, err := r.Eval(t.Context(), madcrow.NewScript("w", "redis.call('SET', KEYS[1], '1'); return redis.call('LPUSH', KEYS[1], 'x')"), []string{"half"}, nil)
	var e *madcrow.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if v := s.Do(t, "GET", "half"); v != nil && e.Outcome == madcrow.OutcomeNotApplied {
		t.Errorf("told %v, but the key holds %v: %v", e.Outcome, v, err)
	}
}

func TestRegress_ScriptThatWroteIsRunAgain(t *testing.T) {
	s, r := server(t)
	for _, code := range []string{"BUSY", "TRYAGAIN", "NOSCRIPT"} {
		_, err := r.Eval(t.Context(), madcrow.NewScript("w", "redis.call('INCR', KEYS[1]); return redis.error_reply('"+code+" come back later')"), []string{code}, nil)
		if v := s.Do(t, "GET", code); fmt.Sprint(v) != "1" {
			t.Errorf("%s: the script ran %v times: %v", code, v, err)
		}
	}
}

func TestRegress_LowerCaseEvalIsToldNotApplied(t *testing.T) {
	s, r := server(t)
	_, err := r.Do(t.Context(), arbitrary("eval", "redis.call('SET', KEYS[1], '1'); error('boom')", "1", "half"))
	var e *madcrow.Error
	errors.As(err, &e)
	if v := s.Do(t, "GET", "half"); v != nil && e.Outcome == madcrow.OutcomeNotApplied {
		t.Errorf("told %v, but the key holds %v: %v", e.Outcome, v, err)
	}
}

// gateConn lets a test hold the second write of a connection.
type gateConn struct {
	net.Conn
	writes *atomic.Int64
	hold   func(n int64, p []byte)
}

func (c *gateConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.hold(c.writes.Add(1), p)
	return n, err
}

// A pipeline on a borrowed connection is half written when the connector finds
// that new connections are refused, and drops the pool's connections, those in
// use included.
func TestRegress_BulkPipelineDroppedInTheMiddle(t *testing.T) {
	t.Run("still down: told not applied", func(t *testing.T) { droppedInTheMiddle(t, 0) })
	t.Run("up again: applied twice", func(t *testing.T) { droppedInTheMiddle(t, 800*time.Millisecond) })
}

func droppedInTheMiddle(t *testing.T, pause time.Duration) {
	s := madcrowtest.StartRedis(t)
	var refuse atomic.Bool
	var refused atomic.Int64
	cfg := s.Config()
	cfg.CommandTimeout = 5 * time.Second
	held := make(chan struct{})
	var once sync.Once
	cfg.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if refuse.Load() {
			refused.Add(1)
			return nil, errors.New("connection refused by the network")
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &gateConn{Conn: c, writes: new(atomic.Int64), hold: func(_ int64, p []byte) {
			if strings.Contains(string(p), "counter") {
				once.Do(func() {
					close(held)
					// the uplink is slow: until the connector has seen one refusal
					for end := time.Now().Add(3 * time.Second); refused.Load() == 0 && time.Now().Before(end); {
						time.Sleep(time.Millisecond)
					}
					time.Sleep(100 * time.Millisecond)
					refuse.Store(false)
					time.Sleep(pause)
				})
			}
		}}, nil
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	mustSet(t, r, "warm", strings.Repeat("x", 100<<10)) // a pool connection
	laneID := func() string {
		m, err := r.Do(t.Context(), arbitrary("CLIENT", "ID"))
		if err != nil {
			t.Fatal(err)
		}
		n, _ := m.AsInt64()
		return fmt.Sprint(n)
	}()
	go func() {
		<-held
		refuse.Store(true)
		s.Do(t, "CLIENT", "KILL", "ID", laneID)
	}()
	big := strings.Repeat("x", 50<<10)
	calls := 0
	_, err := r.DoMulti(t.Context(), func(b builder) []command {
		calls++
		cmds := []command{b.Incr().Key("counter").Build()}
		for i := range 8 {
			cmds = append(cmds, b.Set().Key(fmt.Sprint("k", i)).Value(big).Build())
		}
		return cmds
	})
	v := s.Do(t, "GET", "counter")
	t.Logf("counter %v, built %d times, err %v", v, calls, err)
	var e *madcrow.Error
	if errors.As(err, &e) && e.Outcome == madcrow.OutcomeNotApplied && v != nil {
		t.Errorf("told not applied, counter is %v: %v", v, err)
	}
	if fmt.Sprint(v) != "1" {
		t.Errorf("INCR was applied %v times", v)
	}
}

// Calls cut off by Close.
func TestRegress_CloseCutsOffAndSaysNotApplied(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	wrong, total := 0, 0
	for round := range int(length(4, 25)) {
		r, err := madcrow.Open(t.Context(), s.Config())
		if err != nil {
			t.Fatal(err)
		}
		await(t, r, madcrow.StateUp, 5*time.Second)
		var mu sync.Mutex
		var not []string
		var wg sync.WaitGroup
		for w := range 3000 {
			wg.Go(func() {
				for n := 0; ; n++ {
					key := fmt.Sprintf("r%d-w%d-%d", round, w, n)
					_, err := r.Do(context.Background(), set(key, "1"))
					if err == nil {
						continue
					}
					var e *madcrow.Error
					errors.As(err, &e)
					if e.Outcome == madcrow.OutcomeNotApplied {
						mu.Lock()
						not = append(not, key)
						mu.Unlock()
					}
					return
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx)
		wg.Wait()
		time.Sleep(50 * time.Millisecond)
		total += len(not)
		if len(not) == 0 {
			continue
		}
		n := s.Do(t, append([]string{"EXISTS"}, not...)...)
		if n != int64(0) {
			wrong++
			t.Logf("round %d: of %d told not applied, %v are there", round, len(not), n)
		}
	}
	t.Logf("%d told not applied", total)
	if wrong > 0 {
		t.Errorf("wrong outcomes in %d rounds", wrong)
	}
}
