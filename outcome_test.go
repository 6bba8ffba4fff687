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

// That a write may run twice does not say that it did not run.
func TestOutcome_OfAnIdempotentWriteIsUnknownTooAfterATimeout(t *testing.T) {
	s, r := server(t)
	s.Do(t, "CLIENT", "PAUSE", "900")
	write := func(b builder) command { return b.Set().Key("k").Value("1").Build().ToRetryable() }
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := r.Do(ctx, write(r.B())).Err()
	wantError(t, err, madcrow.KindTimeout, madcrow.ErrTimeout, madcrow.OutcomeUnknown)
	_, err = r.DoMulti(ctx, write(r.B()), r.B().Get().Key("k").Build())
	if err == nil {
		t.Error("in time")
	}
}

// It was reported as not applied.
func TestOutcome_OfAScriptThatFailedAfterAWriteIsUnknown(t *testing.T) {
	s, r := server(t)
	err := r.Eval(t.Context(), madcrow.NewScript("w", "redis.call('SET', KEYS[1], '1'); return redis.call('LPUSH', KEYS[1], 'x')"), []string{"half"}, nil).Err()
	var e *madcrow.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if v := s.Do(t, "GET", "half"); v != nil && e.Outcome == madcrow.OutcomeNotApplied {
		t.Errorf("reported as %v, but the key holds %v: %v", e.Outcome, v, err)
	}
}

// An error of the script that begins like one of Redis made it run again.
func TestEval_AScriptThatWroteIsNotRunAgain(t *testing.T) {
	s, r := server(t)
	for _, code := range []string{"BUSY", "TRYAGAIN", "NOSCRIPT"} {
		err := r.Eval(t.Context(), madcrow.NewScript("w", "redis.call('INCR', KEYS[1]); return redis.error_reply('"+code+" come back later')"), []string{code}, nil).Err()
		if v := s.Do(t, "GET", code); fmt.Sprint(v) != "1" {
			t.Errorf("%s: the script ran %v times: %v", code, v, err)
		}
	}
}

// eval in lower case was not known as a script.
func TestOutcome_OfEvalInLowerCaseIsUnknown(t *testing.T) {
	s, r := server(t)
	err := r.Do(t.Context(), arbitrary(r, "eval", "redis.call('SET', KEYS[1], '1'); error('boom')", "1", "half")).Err()
	var e *madcrow.Error
	errors.As(err, &e)
	if v := s.Do(t, "GET", "half"); v != nil && e.Outcome == madcrow.OutcomeNotApplied {
		t.Errorf("reported as %v, but the key holds %v: %v", e.Outcome, v, err)
	}
}

// slowConn lets a test hold a write of a connection.
type slowConn struct {
	net.Conn
	writes *atomic.Int64
	hold   func(n int64, p []byte)
}

func (c *slowConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.hold(c.writes.Add(1), p)
	return n, err
}

// A pipeline on a dedicated connection was half written when new connections
// were refused: the pool dropped its connections, those in use included. The
// pipeline was then reported as not applied, or applied twice.
func TestOutcome_OfAPipelineDroppedInTheMiddle(t *testing.T) {
	t.Run("still down: reported as not applied", func(t *testing.T) { droppedInTheMiddle(t, 0) })
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
		return &slowConn{Conn: c, writes: new(atomic.Int64), hold: func(_ int64, p []byte) {
			if strings.Contains(string(p), "counter") {
				once.Do(func() {
					close(held)
					// the uplink is slow: until the prober has seen one refusal
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
	sharedID := func() string {
		m, err := r.Do(t.Context(), arbitrary(r, "CLIENT", "ID")).Message()
		if err != nil {
			t.Fatal(err)
		}
		n, _ := m.AsInt64()
		return fmt.Sprint(n)
	}()
	go func() {
		<-held
		refuse.Store(true)
		s.Do(t, "CLIENT", "KILL", "ID", sharedID)
	}()
	big := strings.Repeat("x", 50<<10)
	calls := 0
	calls++
	cmds := []command{r.B().Incr().Key("counter").Build()}
	for i := range 8 {
		cmds = append(cmds, r.B().Set().Key(fmt.Sprint("k", i)).Value(big).Build())
	}
	_, err := r.DoMulti(t.Context(), cmds...)
	v := s.Do(t, "GET", "counter")
	t.Logf("counter %v, built %d times, err %v", v, calls, err)
	var e *madcrow.Error
	if errors.As(err, &e) && e.Outcome == madcrow.OutcomeNotApplied && v != nil {
		t.Errorf("reported as not applied, counter is %v: %v", v, err)
	}
	if fmt.Sprint(v) != "1" {
		t.Errorf("INCR was applied %v times", v)
	}
}
