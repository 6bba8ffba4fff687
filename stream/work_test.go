package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
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

// trap is a message whose decoding does what it says.
type trap struct{ what string }

func (m *trap) UnmarshalJSON(data []byte) error {
	switch m.what = strings.Trim(string(data), `"`); m.what {
	case "decode panics":
		panic("no such shape")
	case "decode exits":
		runtime.Goexit()
	}
	return nil
}

func (m trap) MarshalJSON() ([]byte, error) { return []byte(`"` + m.what + `"`), nil }

// mute is an error that cannot say what it is.
type mute struct{ exits bool }

func (m mute) Error() string {
	if m.exits {
		runtime.Goexit()
	}
	panic(m)
}

// trickyError has methods that panic, which errors.Is and errors.As call.
type trickyError struct{}

func (trickyError) Error() string { return "tricky" }
func (trickyError) Unwrap() error { panic("unwrapped") }
func (trickyError) As(any) bool   { panic("asked what it is") }
func (trickyError) Is(error) bool { panic("compared") }

// badRecorder panics at every event.
type badRecorder struct{ counter }

func (*badRecorder) Event(context.Context, madcrow.Event) { panic("the recorder") }

// What a user's code does never ends the process and never leaves a message in
// hands that are empty. A panic while a message was decoded ended the process,
// and a worker that ended its goroutine kept the message for ever.
func TestWork_WhateverUsersCodeDoesTheMessageGoesOn(t *testing.T) {
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	cfg := srv.Config()
	cfg.Recorder = &badRecorder{}
	s, err := stream.New(openConfig(t, cfg), "s", stream.Options[trap]{})
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{ // and how often it is tried
		"decode panics": "1 the message cannot be decoded: panic: no such shape",
		"decode exits":  "1 the message cannot be decoded: it ended its goroutine",
		"panics":        "2 panic: at work",
		"exits":         "2 the worker: it ended its goroutine",
		"mute panics":   "2 its text could not be made",
		"mute exits":    "2 its text could not be made",
		"panics mute":   "2 panic: its text could not be made",
		"fails":         "2 why",
		"tricky":        "2 tricky",
	}
	for what := range reasons {
		if _, err := s.Publish(t.Context(), trap{what}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Publish(t.Context(), trap{"fine"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	fine := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- s.Work(ctx, "g", func(_ context.Context, d stream.Delivery[trap]) error {
			switch d.Message.what {
			case "panics":
				panic("at work")
			case "exits":
				runtime.Goexit()
			case "mute panics":
				return mute{}
			case "mute exits":
				return mute{exits: true}
			case "panics mute":
				panic(mute{})
			case "tricky":
				return trickyError{}
			case "fine":
				close(fine)
				return nil
			}
			return errors.New("why")
		}, stream.WorkOptions{Workers: 1, MaxDeliveries: 2, RetryDelay: 10 * time.Millisecond, ClaimAfter: time.Second})
	}()
	testkit.Eventually(t, "all are put aside", func() bool {
		l, err := s.Lag(t.Context(), "g")
		return err == nil && l.Dead == int64(len(reasons)) && l.Pending == 0
	})
	<-fine
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	entries, _ := srv.Do(t, "XRANGE", "m1:stream:{s}:dead:g", "-", "+").([]any)
	for _, entry := range entries {
		f, _ := entry.([]any)[1].([]any)
		field := func(i int) string { s, _ := f[i].(string); return s }
		what := strings.Trim(field(7), `"`)
		if got := field(5) + " " + field(3); got != reasons[what] {
			t.Errorf("%s: %q, not %q", what, got, reasons[what])
		}
	}
}

// A panic is logged with its stack, and not with each try.
func TestWork_PanicIsLoggedOnceWithItsStack(t *testing.T) {
	needStreams(t)
	var out strings.Builder
	var mu sync.Mutex
	log := logTo(func(line string) {
		mu.Lock()
		defer mu.Unlock()
		out.WriteString(line)
	})
	srv := madcrowtest.StartRedis(t)
	s, err := stream.New(openConfig(t, srv.Config()), "s", stream.Options[int]{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if _, err := s.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Work(ctx, "g", func(context.Context, stream.Delivery[int]) error { panic("at work") },
			stream.WorkOptions{MaxDeliveries: 2, RetryDelay: 10 * time.Millisecond, ClaimAfter: time.Second})
	}()
	testkit.Eventually(t, "all are put aside", func() bool {
		l, err := s.Lag(t.Context(), "g")
		return err == nil && l.Dead == 3
	})
	cancel()
	<-ended
	mu.Lock()
	defer mu.Unlock()
	if text := out.String(); strings.Count(text, "stack=") != 1 || strings.Count(text, "panic: at work") != 6 || !strings.Contains(text, "work_test.go") {
		t.Errorf("logged: %s", text)
	}
}

// watchedConn calls before what is written that holds a word.
type watchedConn struct {
	net.Conn
	word   string
	before func()
}

func (c watchedConn) Write(p []byte) (int, error) {
	if strings.Contains(string(p), c.word) {
		c.before()
	}
	return c.Conn.Write(p)
}

// A late read may take a message for a consumer just before that is removed: the
// message was deleted with the consumer, and no one did it.
func TestWork_MessageDeliveredToALeavingConsumerIsKept(t *testing.T) {
	t.Parallel()
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	var leaving atomic.Bool
	atEnd, goOn := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() {
		close(atEnd)
		<-goOn
	})
	cfg := srv.Config()
	cfg.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return watchedConn{c, "DELCONSUMER", func() {
			if leaving.Load() {
				once()
			}
		}}, err
	}
	s, err := stream.New(openConfig(t, cfg), "s", stream.Options[int]{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Publish(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	did, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- s.Work(ctx, "g", func(context.Context, stream.Delivery[int]) error {
			did <- struct{}{}
			return nil
		}, stream.WorkOptions{})
	}()
	<-did
	consumers, _ := srv.Do(t, "XINFO", "CONSUMERS", shopLog, "g").([]any)
	name, _ := consumers[0].([]any)[1].(string)
	leaving.Store(true)
	cancel()
	select {
	case <-atEnd:
	case err := <-ended:
		t.Fatalf("ended before it left: %v", err)
	}
	srv.Do(t, "XADD", shopLog, "*", "d", "2")
	srv.Do(t, "XREADGROUP", "GROUP", "g", name, "STREAMS", shopLog, ">")
	close(goOn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if l, err := s.Lag(t.Context(), "g"); l.Pending != 1 || l.Waiting != 0 || err != nil {
		t.Errorf("%+v %v", l, err)
	}
}

// calls counts those of one script.
type calls struct {
	madcrow.NopRecorder
	of           string
	done, failed atomic.Int64
}

func (c *calls) Operation(_ context.Context, o madcrow.Operation) {
	switch {
	case o.Name != c.of:
	case o.Kind == 0:
		c.done.Add(1)
	default:
		c.failed.Add(1)
	}
}

// twoSides is a stream behind a wire that can be spoilt, with its calls counted,
// and the same one without.
func twoSides(t testing.TB, counted *calls) (near, far *stream.Stream[int], wire *madcrowtest.Proxy, srv *madcrowtest.Server) {
	needStreams(t)
	t.Helper()
	srv = madcrowtest.StartRedis(t)
	wire = madcrowtest.StartProxy(t, srv.Addr())
	cfg := srv.Config()
	cfg.Port, cfg.Recorder = wire.Port(), counted
	near, _ = stream.New(openConfig(t, cfg), "s", stream.Options[int]{})
	far, _ = stream.New(openConfig(t, srv.Config()), "s", stream.Options[int]{})
	return near, far, wire, srv
}

// The reason of a dead letter was lost when Redis was away as the last try failed,
// and the message was tried once more.
func TestWork_ReasonOfADeadLetterOutlivesAnOutage(t *testing.T) {
	dead := &calls{of: "stream_dead"}
	near, far, proxy, _ := twoSides(t, dead)
	if _, err := far.Publish(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	has, goOn := make(chan struct{}, 10), make(chan struct{})
	go func() {
		ended <- near.Work(ctx, "g", func(context.Context, stream.Delivery[int]) error {
			has <- struct{}{}
			<-goOn
			return errors.New("the reason")
		}, stream.WorkOptions{MaxDeliveries: 1})
	}()
	<-has
	proxy.Refuse(true)
	proxy.ResetAll()
	close(goOn)
	testkit.Eventually(t, "it could not be put aside", func() bool { return dead.failed.Load() > 0 })
	proxy.Refuse(false)
	testkit.Eventually(t, "the dead letter with its reason", func() bool {
		dead, err := far.Dead(t.Context(), "g", "", 10)
		return err == nil && len(dead) == 1 && dead[0].Reason == "the reason"
	})
	cancel()
	if err := <-ended; err != nil || len(has) > 0 {
		t.Errorf("%d further tries, %v", len(has), err)
	}
}

// A worker that came back took messages from the one that had claimed them
// meanwhile, by its heartbeats or by a failure, and made dead letters of them.
func TestWork_ReturningWorkerTakesNothingFromALivingOne(t *testing.T) {
	t.Parallel()
	beats := &calls{of: "stream_keep"}
	near, far, proxy, srv := twoSides(t, beats)
	for n := range 2 {
		if _, err := far.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	// Both get both messages. The first fails at once when it is back, the other
	// one is worked on meanwhile.
	type hand struct {
		has  chan int64 // the deliveries
		goOn [2]chan error
	}
	work := func(s *stream.Stream[int]) (h hand, stop func()) {
		h = hand{has: make(chan int64, 100), goOn: [2]chan error{make(chan error, 100), make(chan error, 100)}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- s.Work(ctx, "g", func(_ context.Context, d stream.Delivery[int]) error {
				h.has <- d.Deliveries
				return <-h.goOn[d.Message]
			}, stream.WorkOptions{ClaimAfter: 3 * time.Second, RetryDelay: 50 * time.Millisecond, MaxDeliveries: 2})
		}()
		return h, func() {
			t.Helper()
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("work: %v", err)
			}
		}
	}
	owners := func() string {
		var names []any
		list, _ := srv.Do(t, "XPENDING", shopLog, "g", "-", "+", "10").([]any)
		for _, p := range list {
			names = append(names, p.([]any)[1])
		}
		return fmt.Sprint(names)
	}
	silent, stopSilent := work(near)
	<-silent.has
	<-silent.has
	proxy.BlackHole(true)
	living, stopLiving := work(far)
	<-living.has
	<-living.has
	taken := owners()
	proxy.BlackHole(false)
	beats.done.Store(0)
	silent.goOn[0] <- errors.New("of the silent one")
	testkit.Eventually(t, "signs of life of the one that is back", func() bool {
		if now := owners(); now != taken {
			t.Fatalf("they were of %s and are of %s", taken, now)
		}
		return beats.done.Load() >= 3 // one of them is of the failure
	})
	living.goOn[0] <- nil
	living.goOn[1] <- errors.New("of the living one")
	testkit.Eventually(t, "the living one is done with both", func() bool {
		l, err := far.Lag(t.Context(), "g")
		return err == nil && l.Pending == 0
	})
	silent.goOn[1] <- nil
	stopSilent()
	stopLiving()
	dead, err := far.Dead(t.Context(), "g", "", 10)
	if err != nil || len(dead) != 1 || dead[0].Message != 1 || dead[0].Reason != "of the living one" {
		t.Errorf("%+v %v", dead, err)
	}
	if n := len(silent.has) + len(living.has); n > 0 {
		t.Errorf("%d further tries", n)
	}
}

// It took up to 0.8 s: the read that waits in Redis went on to its end.
func TestWork_EndsAtOnceWhenItIsIdle(t *testing.T) {
	needStreams(t)
	r := open(t)
	s, err := stream.New(r, "idle", stream.Options[note]{})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- s.Work(ctx, "g", func(context.Context, stream.Delivery[note]) error { return nil }, stream.WorkOptions{})
		}()
		time.Sleep(300 * time.Millisecond) // it waits in Redis by then
		begin := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		took := time.Since(begin)
		t.Log(took)
		if took > testkit.Slack(100*time.Millisecond) {
			t.Errorf("it ended after %v", took)
		}
	}
	// The connection of the read is still good for others.
	for range 3 {
		if m, err := r.Do(t.Context(), r.B().Blpop().Key("nothing").Timeout(0.05).Build(), madcrow.Blocking(50*time.Millisecond)).Message(); err != nil || !m.IsNil() {
			t.Error(m, err)
		}
	}
}

// A message that comes in the moment of the end is done, or not given to anyone: it
// does not wait as pending for a worker that has gone.
func TestWork_TheEndLeavesNoMessagePending(t *testing.T) {
	needStreams(t)
	s, err := stream.New(open(t), "ending", stream.Options[note]{})
	if err != nil {
		t.Fatal(err)
	}
	var done atomic.Int64
	rounds := long(40, 2000)
	for i := range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- s.Work(ctx, "g", func(context.Context, stream.Delivery[note]) error { done.Add(1); return nil }, stream.WorkOptions{Workers: 2})
		}()
		time.Sleep(20 * time.Millisecond)
		go cancel()
		time.Sleep(time.Duration(i%8) * 100 * time.Microsecond)
		if _, err := s.Publish(t.Context(), note{i}); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		cancel()
		if l, err := s.Lag(t.Context(), "g"); err != nil || l.Pending != 0 || l.Workers != 0 {
			t.Fatalf("round %d: %+v %v", i, l, err)
		}
	}
	l, err := s.Lag(t.Context(), "g")
	if err != nil || done.Load()+max(l.Waiting, 0) != int64(rounds) {
		t.Errorf("%d done, %+v, %v", done.Load(), l, err)
	}
}
