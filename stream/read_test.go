package stream_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/stream"
)

// What every group has done leaves the stream, and nothing else does. It stayed
// until MaxLen: a million messages.
func TestStream_WhatEveryGroupHasDoneIsTrimmed(t *testing.T) {
	t.Parallel()
	s := openShop(t, stream.Options[int]{})
	s.order(t, 1, 250)
	s.srv.Do(t, "XGROUP", "CREATE", shopLog, "slow", "0")
	s.srv.Do(t, "XREADGROUP", "GROUP", "slow", "c", "COUNT", "120", "STREAMS", shopLog, ">")
	stop := s.work(t, func(context.Context, stream.Delivery[int]) error { return nil }, stream.WorkOptions{})
	testkit.Eventually(t, "all are done", func() bool { l := s.lag(t); return l.Waiting == 0 && l.Pending == 0 && l.Workers > 0 })
	stop()
	if n := s.srv.Do(t, "XLEN", shopLog); n != int64(250) {
		t.Errorf("%v are left; the slow group has done none", n)
	}
	pending, _ := s.srv.Do(t, "XPENDING", shopLog, "slow", "-", "+", "120").([]any)
	for i, p := range pending { // all but the 100th
		if id, _ := p.([]any)[0].(string); i != 99 {
			s.srv.Do(t, "XACK", shopLog, "slow", id)
		}
	}
	stop = s.work(t, func(context.Context, stream.Delivery[int]) error { return nil }, stream.WorkOptions{})
	s.order(t, 251, 251)
	testkit.Eventually(t, "what the slow group has done is gone", func() bool { return s.srv.Do(t, "XLEN", shopLog) == int64(251-99) })
	stop()
	s.srv.Do(t, "XGROUP", "DESTROY", shopLog, "slow")
	stop = s.work(t, func(context.Context, stream.Delivery[int]) error { return nil }, stream.WorkOptions{})
	s.order(t, 252, 252)
	testkit.Eventually(t, "all is gone", func() bool { return s.srv.Do(t, "XLEN", shopLog) == int64(0) })
	stop()
	if l := s.lag(t); l.Waiting != 0 || l.Lost != 0 || l.Pending != 0 || s.events.count("lost") != 0 {
		t.Errorf("%+v", l)
	}
}

func TestStream_KeepDoneKeepsThem(t *testing.T) {
	t.Parallel()
	s := openShop(t, stream.Options[int]{KeepDone: true})
	s.order(t, 1, 50)
	stop := s.work(t, func(context.Context, stream.Delivery[int]) error { return nil }, stream.WorkOptions{})
	testkit.Eventually(t, "all are done", func() bool { l := s.lag(t); return l.Waiting == 0 && l.Pending == 0 && l.Workers > 0 })
	stop()
	if l := s.lag(t); l.Length != 50 || l.Waiting != 0 || l.Lost != 0 {
		t.Errorf("%+v", l)
	}
}

// What MaxLen took from a slow group is counted, each message once, and logged; and
// the lag says how many really wait. It said 4,866 where 1,000 were there, then 0,
// and no one heard of the rest.
func TestStream_LossesOfASlowGroupAreCountedAndLogged(t *testing.T) {
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	var logged atomic.Int32
	events := &counter{}
	cfg := srv.Config()
	cfg.Recorder = events
	s, err := stream.New(openConfig(t, cfg), "s", stream.Options[int]{MaxLen: 1000, Logger: logTo(func(line string) {
		if strings.Contains(line, "too slow") {
			logged.Add(1)
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	const total = 5000
	ctx, cancel := context.WithCancel(t.Context())
	goOn := make(chan struct{})
	var done atomic.Int64
	begun := make(chan struct{}, total)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Work(ctx, "g", func(context.Context, stream.Delivery[int]) error {
			begun <- struct{}{}
			<-goOn
			done.Add(1)
			return nil
		}, stream.WorkOptions{Workers: 8})
	}()
	if _, err := s.Publish(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	<-begun
	var all sync.WaitGroup
	for part := range 10 {
		all.Go(func() {
			for n := range (total - 1) / 10 {
				if _, err := s.Publish(t.Context(), 1+part*total+n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	published := int64(1 + (total-1)/10*10)
	lag, err := s.Lag(t.Context(), "g")
	if err != nil || lag.Waiting != lag.Length || lag.Waiting > 1200 || lag.Waiting < 1000 {
		t.Errorf("while they wait: %+v %v", lag, err)
	}
	if lag.Lost+lag.Waiting+8 < published { // those eight have, which are lost too once no one has them
		t.Errorf("%+v of %d", lag, published)
	}
	close(goOn)
	testkit.Eventually(t, "the rest is done", func() bool {
		lag, err = s.Lag(t.Context(), "g")
		return err == nil && lag.Waiting == 0 && lag.Pending == 0
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if done.Load()+lag.Lost != published || int64(events.count("lost")) != lag.Lost || lag.Lost < 3000 {
		t.Errorf("%d done and %d lost of %d, %d notified", done.Load(), lag.Lost, published, events.count("lost"))
	}
	if logged.Load() != 1 {
		t.Errorf("logged %d times", logged.Load())
	}
}

// oldServer lets a server refuse what Redis 6.0 does not know.
type oldServer struct{ net.Conn }

func (c oldServer) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("\r\nIDLE\r\n")) {
		q := bytes.ReplaceAll(p, []byte("$8\r\nXPENDING\r\n"), []byte("$3\r\nSET\r\n")) // which is a syntax error
		if _, err := c.Conn.Write(q); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// A server without XPENDING IDLE is refused by name. A message that failed once
// was never tried again there, and nothing said so.
func TestStream_ServerThatIsTooOldIsRefusedByName(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	cfg := srv.Config()
	cfg.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return oldServer{c}, err
	}
	s, err := stream.New(openConfig(t, cfg), "s", stream.Options[int]{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, stream.ErrTooOld) || !strings.Contains(err.Error(), "streams need Redis 6.2 or later") {
			t.Errorf("%s: %v", what, err)
		}
		var e *madcrow.Error
		if !errors.As(err, &e) {
			t.Fatalf("%s: %T", what, err)
		}
		if p := e.Problem(); p.Code != "REDIS_TOO_OLD" || p.RetryAfter != 0 {
			t.Errorf("%s: %+v", what, p)
		}
	}
	_, err = s.Publish(ctx, 1)
	check("publish", err)
	check("work", s.Work(ctx, "g", func(context.Context, stream.Delivery[int]) error { return nil }, stream.WorkOptions{}))
	if n := srv.Do(t, "EXISTS", shopLog); n != int64(0) || ctx.Err() != nil {
		t.Errorf("the stream is there: %v", n)
	}
}

// A message that MaxLen overtook while it was worked on, and that failed then,
// was neither tried again nor counted, and could leave its reason behind: the sign
// of life takes it from the worker, since Redis 7. One that succeeds is not lost.
func TestStream_OvertakenMessageInHandIsLostUnlessItSucceeds(t *testing.T) {
	failure := errors.New("not today")
	for name, tc := range map[string]struct {
		claimAfter time.Duration // three signs of life in that time
		tries      int
		err        error
		lost       int64
	}{
		"fails":                            {30 * time.Second, 5, failure, 1},
		"fails after a sign of life":       {100 * time.Millisecond, 5, failure, 1},
		"fails for good":                   {30 * time.Second, 1, failure, 1},
		"fails for good, after a sign":     {100 * time.Millisecond, 1, failure, 1},
		"succeeds":                         {30 * time.Second, 5, nil, 0},
		"succeeds after a sign of life":    {100 * time.Millisecond, 5, nil, 0},
		"fails with an error without text": {30 * time.Second, 5, errors.New(""), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, stream.Options[int]{})
			s.order(t, 1, 1)
			begun, goOn := make(chan struct{}, 9), make(chan struct{})
			var tries atomic.Int32
			stop := s.work(t, func(context.Context, stream.Delivery[int]) error {
				tries.Add(1)
				begun <- struct{}{}
				<-goOn
				return tc.err
			}, stream.WorkOptions{ClaimAfter: tc.claimAfter, MaxDeliveries: tc.tries})
			<-begun
			if n := s.srv.Do(t, "XTRIM", shopLog, "MAXLEN", "0"); n != int64(1) {
				t.Fatalf("%v were trimmed", n)
			}
			if tc.claimAfter < time.Second {
				testkit.Eventually(t, "a sign of life", func() bool { return s.lag(t).Pending == 0 })
			}
			close(goOn)
			testkit.Eventually(t, "it is over", func() bool {
				l := s.lag(t)
				over := s.events.count("lost")
				if tc.err == nil {
					over = s.events.count("done")
				}
				return l.Pending == 0 && l.Lost == tc.lost && over == 1
			})
			stop()
			if l := s.lag(t); l.Lost != tc.lost || l.Dead != 0 || tries.Load() != 1 || int64(s.events.count("lost")) != tc.lost {
				t.Errorf("%+v, %d tries, %d notified", l, tries.Load(), s.events.count("lost"))
			}
			if n := s.srv.Do(t, "EXISTS", "m1:stream:{s}:why:g"); n != int64(0) {
				t.Error("the reason of a message that is gone is left")
			}
		})
	}
}

// A group that was set back has messages to do again before those that are pending:
// they were trimmed.
func TestStream_WhatAGroupWasSetBackToIsNotTrimmed(t *testing.T) {
	t.Parallel()
	s := openShop(t, stream.Options[int]{})
	var ids []string
	for n := range 30 {
		id, err := s.Publish(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	s.srv.Do(t, "XGROUP", "CREATE", shopLog, "back", "0")
	s.srv.Do(t, "XREADGROUP", "GROUP", "back", "c", "COUNT", "30", "STREAMS", shopLog, ">")
	for i, id := range ids {
		if i != 20 {
			s.srv.Do(t, "XACK", shopLog, "back", id)
		}
	}
	s.srv.Do(t, "XGROUP", "SETID", shopLog, "back", ids[4])
	stop := s.work(t, func(context.Context, stream.Delivery[int]) error { return nil }, stream.WorkOptions{})
	testkit.Eventually(t, "all are done", func() bool { return s.events.count("done") == 30 })
	stop()
	if n := s.srv.Do(t, "XLEN", shopLog); n != int64(25) {
		t.Errorf("%v are left, of 25 that the group was set back to", n)
	}
}

// inlineConns counts what comes back over connections on which no one waits for new
// messages.
type inlineConns struct{ shared atomic.Int64 }

type inlineConn struct {
	net.Conn
	of    *inlineConns
	waits atomic.Bool
}

func (c *inlineConn) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("\r\nXREADGROUP\r\n")) {
		c.waits.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *inlineConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.waits.Load() {
		c.of.shared.Add(int64(n))
	}
	return n, err
}

// The read that trims and counts brought all messages that there was room for over
// the connection that every call shares: others waited behind many megabytes, and
// the read ran into CommandTimeout itself.
func TestStream_LargeMessagesDoNotComeBeforeOtherCalls(t *testing.T) {
	t.Parallel()
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	var of inlineConns
	cfg := srv.Config()
	cfg.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &inlineConn{Conn: c, of: &of}, err
	}
	s, err := stream.New(openConfig(t, cfg), "s", stream.Options[string]{MaxLen: 1})
	if err != nil {
		t.Fatal(err)
	}
	const total, size = 64, 256 << 10 // MaxLen takes whole nodes, of which there is none
	srv.Do(t, "CONFIG", "SET", "stream-node-max-bytes", "0")
	text := strings.Repeat("x", size)
	for range total {
		if _, err := s.Publish(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	of.shared.Store(0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var done atomic.Int32
	ended := make(chan error, 1)
	go func() {
		ended <- s.Work(ctx, "g", func(context.Context, stream.Delivery[string]) error {
			done.Add(1)
			return nil
		}, stream.WorkOptions{Workers: total})
	}()
	testkit.Eventually(t, "all are done", func() bool { return done.Load() == total })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := of.shared.Load(); n > 8*size {
		t.Errorf("%d KB of %d came before other calls", n>>10, total*size>>10)
	}
}
