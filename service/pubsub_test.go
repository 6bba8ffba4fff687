package service

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

// listen runs a subscriber and hands its events to the test.
func listen(t *testing.T, s *Service, channels ...string) (<-chan pubsub.Event[string], context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	events, done := make(chan pubsub.Event[string]), make(chan struct{})
	go func() {
		defer close(done)
		for ev, err := range s.Subscribe(ctx, channels...) {
			if err != nil {
				t.Error(err)
			}
			select {
			case events <- ev:
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Error("the subscriber does not end with its context")
		}
	})
	return events, cancel
}

func next(t *testing.T, events <-chan pubsub.Event[string]) pubsub.Event[string] {
	t.Helper()
	select {
	case ev := <-events:
		return ev
	case <-time.After(15 * time.Second):
		t.Fatal("no event within 15 s")
		return pubsub.Event[string]{}
	}
}

func TestSubscribe_DeliversEverythingAfterSubscribed(t *testing.T) {
	s, srv := start(t, func(c *madcrow.Config) { c.KeyPrefix = "app:" })
	events, _ := listen(t, s, "a", "b", "a")
	if ev := next(t, events); ev != (pubsub.Event[string]{Kind: pubsub.EventSubscribed}) {
		t.Fatalf("first event %+v", ev)
	}
	if n, err := s.Publish(t.Context(), "a", "one"); n != 1 || err != nil {
		t.Errorf("publish: %d %v", n, err)
	}
	if ev := next(t, events); ev != (pubsub.Event[string]{Channel: "a", Message: "one"}) {
		t.Errorf("%+v", ev)
	}
	if n := srv.Do(t, "PUBLISH", "app:b", "zwei ü"); n != int64(1) { // as FastAPI Madcrow does
		t.Errorf("%v receivers", n)
	}
	if ev := next(t, events); ev != (pubsub.Event[string]{Channel: "b", Message: "zwei ü"}) {
		t.Errorf("%+v", ev)
	}
	if n, err := s.Publish(t.Context(), "unheard", "x"); n != 0 || err != nil {
		t.Errorf("no subscriber: %d %v", n, err)
	}
}

// The confirmation of one subscriber is seen by all who share the connection.
func TestSubscribe_AnotherSubscriberIsNoGap(t *testing.T) {
	s, _ := start(t)
	first, _ := listen(t, s, "a", "b")
	next(t, first)
	second, _ := listen(t, s, "a")
	if ev := next(t, second); ev != (pubsub.Event[string]{Kind: pubsub.EventSubscribed}) {
		t.Errorf("the second subscriber begins with %+v", ev)
	}
	if n, err := s.Publish(t.Context(), "a", "hello"); n != 1 || err != nil {
		t.Errorf("publish: %d %v", n, err)
	}
	for _, events := range []<-chan pubsub.Event[string]{first, second} {
		if ev := next(t, events); ev != (pubsub.Event[string]{Channel: "a", Message: "hello"}) {
			t.Errorf("%+v", ev)
		}
	}
}

func TestSubscribe_SurvivesARestartAndReportsTheGap(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, srv := start(t)
	events, _ := listen(t, s, "a", "b")
	next(t, events)
	srv.Kill()
	if ev := next(t, events); ev.Kind != pubsub.EventInterrupted {
		t.Fatalf("after the kill: %+v", ev)
	}
	srv.Start()
	ev := next(t, events)
	if ev.Kind != pubsub.EventGap || !ev.Until.After(ev.Since) {
		t.Fatalf("after the restart: %+v", ev)
	}
	waitFor(t, s.Available)
	if n, err := s.Publish(t.Context(), "b", "again"); n != 1 || err != nil {
		t.Errorf("publish: %d %v", n, err)
	}
	if ev := next(t, events); ev.Message != "again" {
		t.Errorf("%+v", ev)
	}
}

func TestSubscribe_LeavingTheLoopUnsubscribes(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, srv := start(t)
	for ev, err := range s.Subscribe(t.Context(), "a") {
		if err != nil || ev.Kind != pubsub.EventSubscribed {
			t.Fatalf("%+v %v", ev, err)
		}
		break
	}
	waitFor(t, func() bool { return numsub(t, srv, "a") == 0 })
}

func TestSubscribe_WrongArgumentsAreTheOnlyYield(t *testing.T) {
	s, _ := start(t)
	for _, channels := range [][]string{nil, {"a", ""}} {
		n := 0
		for _, err := range s.Subscribe(t.Context(), channels...) {
			n++
			var v *madcrow.ArgumentError
			if !errors.As(err, &v) {
				t.Errorf("%v", err)
			}
		}
		if n != 1 {
			t.Errorf("%d yields", n)
		}
	}
}

func TestSubscribe_NoPermissionEndsIt(t *testing.T) {
	if madcrowtest.OlderThan(t, "6.2") {
		t.Skip("permissions for channels came with Redis 6.2")
	}
	s, srv := start(t)
	srv.Do(t, "ACL", "SETUSER", "mute", "on", ">pw", "~*", "+@all", "resetchannels")
	// With a prefix, and for the second channel, it was a 503.
	srv.Do(t, "ACL", "SETUSER", "mute", "&mine", "&app:mine")
	for _, prefix := range []string{"", "app:"} {
		denied := open(t, srv, func(c *madcrow.Config) { c.Username, c.Password, c.KeyPrefix = "mute", "pw", prefix })
		for _, channels := range [][]string{{"a"}, {"mine", "a"}} {
			var last error
			for _, err := range denied.Subscribe(t.Context(), channels...) {
				last = err
			}
			wantProblem(t, last, 500, "REDIS_ERROR", "subscribe", TablePubSub)
		}
	}
	_ = s
}

func TestSubscribe_SlowReaderLearnsWhereAndHowManyItMissed(t *testing.T) {
	s, srv := start(t)
	events, _ := listen(t, s, "a")
	if ev := next(t, events); ev.Kind != pubsub.EventSubscribed {
		t.Fatalf("%+v", ev)
	}
	publish := func(from, to int) {
		for i := from; i < to; i++ {
			srv.Do(t, "PUBLISH", "a", strconv.Itoa(i))
		}
	}
	const total = subscriberQueue + 50
	publish(0, total)
	time.Sleep(300 * time.Millisecond) // until all has come; the reader may hold the first
	received := 0
	ev := next(t, events)
	for ; ev.Kind == pubsub.EventMessage; ev = next(t, events) {
		if ev != (pubsub.Event[string]{Channel: "a", Message: strconv.Itoa(received)}) {
			t.Fatalf("got %+v, want %d", ev, received)
		}
		received++
	}
	if ev != (pubsub.Event[string]{Kind: pubsub.EventDropped, N: total - received}) || received < subscriberQueue {
		t.Errorf("%+v after %d messages", ev, received)
	}
	publish(total, total+1)
	if ev := next(t, events); ev.Message != strconv.Itoa(total) {
		t.Errorf("%+v", ev)
	}
}

// The bus that subscriptions share ends with the last of them, and with Redis.
func TestSubscribe_LeavesNoGoroutineBehind(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, srv := start(t)
	first, leaveFirst := listen(t, s, "a")
	second, leaveSecond := listen(t, s, "a", "b")
	next(t, first)
	next(t, second)
	if n := numsub(t, srv, "a"); n != 1 {
		t.Errorf("%d subscriptions of one channel", n)
	}
	leaveFirst()
	if n, err := s.Publish(t.Context(), "a", "x"); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if ev := next(t, second); ev.Message != "x" {
		t.Errorf("%+v", ev)
	}
	leaveSecond()
	waitFor(t, func() bool { return numsub(t, srv, "a") == 0 && s.bus() == nil })

	third, leaveThird := listen(t, s, "a")
	if ev := next(t, third); ev != (pubsub.Event[string]{Kind: pubsub.EventSubscribed}) {
		t.Errorf("the next one begins with %+v", ev)
	}
	leaveThird()

	ended := make(chan error, 1)
	go func() {
		var last error
		for _, err := range s.Subscribe(t.Context(), "c") {
			if err == nil {
				_ = s.redis.Close(t.Context())
			}
			last = err
		}
		ended <- last
	}()
	select {
	case err := <-ended:
		wantProblem(t, err, 503, "REDIS_UNAVAILABLE", "subscribe", TablePubSub)
		if !errors.Is(err, madcrow.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a subscription outlives Redis")
	}
}

func (s *Service) bus() any {
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	if s.listeners.bus == nil {
		return nil
	}
	return s.listeners.bus
}

func numsub(t *testing.T, srv *madcrowtest.Server, channel string) int64 {
	t.Helper()
	reply, _ := srv.Do(t, "PUBSUB", "NUMSUB", channel).([]any)
	if len(reply) != 2 {
		t.Fatalf("%v", reply)
	}
	n, _ := reply[1].(int64)
	return n
}
