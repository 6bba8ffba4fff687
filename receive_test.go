package madcrow_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestReceive_LastSubscriberUnsubscribes(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	got := make(chan rueidis.PubSubMessage, 10)
	receive := func() (context.CancelFunc, chan error) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		subscribed := make(chan struct{})
		var once sync.Once
		hooked := madcrow.WithSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { once.Do(func() { close(subscribed) }) })
		go func() {
			done <- r.Receive(hooked, func(b builder) command { return b.Subscribe().Channel("news").Build() }, func(m rueidis.PubSubMessage) { got <- m })
		}()
		<-subscribed
		return cancel, done
	}
	cancel1, done1 := receive()
	cancel2, done2 := receive()
	if n := s.Do(t, "PUBLISH", "news", "hello"); n != int64(1) {
		t.Errorf("%v server subscriptions for one channel, want 1", n)
	}
	for range 2 {
		if m := <-got; m.Channel != "news" || m.Message != "hello" {
			t.Errorf("got %+v", m)
		}
	}
	cancel1()
	wantError(t, <-done1, madcrow.KindCanceled, madcrow.ErrCanceled, madcrow.OutcomeNotApplied)
	if n := s.Do(t, "PUBLISH", "news", "again"); n != int64(1) {
		t.Errorf("the other subscriber lost its subscription: %v", n)
	}
	<-got
	cancel2()
	<-done2
	if n := s.Do(t, "PUBLISH", "news", "no one"); n != int64(0) {
		t.Errorf("%v subscriptions are left at the server", n)
	}
}

func TestReceive_EndsWithABrokenConnection(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	done := make(chan error, 1)
	subscribed := make(chan struct{})
	ctx := madcrow.WithSubscriptionHook(t.Context(), func(rueidis.PubSubSubscription) { close(subscribed) })
	go func() {
		done <- r.Receive(ctx, func(b builder) command { return b.Subscribe().Channel("news").Build() }, func(rueidis.PubSubMessage) {})
	}()
	<-subscribed
	s.Kill()
	select {
	case err := <-done:
		wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied)
	case <-time.After(2 * time.Second):
		t.Error("the subscriber was not notified in 2 s")
	}
	if err := r.Receive(t.Context(), func(b builder) command { return b.Get().Key("a").Build() }, nil); err == nil {
		t.Error("Receive took a GET")
	}
}

// The server answers and the connection stands; only the one for pub/sub is
// made again, and calls on the others notice nothing.
func TestRenewSubscriptions_EndsEachReceiveAndNothingElse(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	subscribe := func(b builder) command { return b.Subscribe().Channel("news").Build() }
	receive := func() (<-chan string, <-chan error) {
		ended, confirmed, got := make(chan error, 1), make(chan struct{}, 1), make(chan string, 1)
		ctx := madcrow.WithSubscriptionHook(t.Context(), func(rueidis.PubSubSubscription) {
			select {
			case confirmed <- struct{}{}:
			default:
			}
		})
		go func() { ended <- r.Receive(ctx, subscribe, func(m rueidis.PubSubMessage) { got <- m.Message }) }()
		<-confirmed
		return got, ended
	}
	if at := r.SubscriptionNode(subscribe); at != s.Addr() {
		t.Errorf("it would be on %q, want %q", at, s.Addr())
	}
	for _, address := range []string{s.Addr(), ""} {
		_, ended := receive()
		mustSet(t, r, "a", "1")
		before := r.Status().Connections
		r.RenewSubscriptions("127.0.0.1:1") // another node's
		select {
		case err := <-ended:
			t.Errorf("ended by another node's: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		r.RenewSubscriptions(address)
		select {
		case err := <-ended:
			if err == nil {
				t.Error("Receive returned no error")
			}
		case <-time.After(2 * time.Second):
			t.Fatal("Receive did not return")
		}
		if n := r.Status().Connections; n != before-1 {
			t.Errorf("%d connections, of %d; want one less", n, before)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if err := r.Do(ctx, get(r, "a")).Err(); err != nil {
			t.Errorf("a call beside it: %v", err)
		}
		cancel()
	}
	got, _ := receive()
	if n := s.Do(t, "PUBLISH", "news", "hello"); n != int64(1) {
		t.Errorf("%v subscriptions after it, want 1", n)
	}
	if m := <-got; m != "hello" {
		t.Errorf("got %q", m)
	}
}

// While the shared connections were made again, the last subscriber left without
// UNSUBSCRIBE, and the server went on sending.
func TestReceive_LastSubscriberUnsubscribesAlsoWhileSharedConnectionsAreLost(t *testing.T) {
	s, r := server(t)
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		confirmed, done := make(chan struct{}, 2), make(chan error, 1)
		hooked := madcrow.WithSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { confirmed <- struct{}{} })
		go func() {
			done <- r.Receive(hooked, func(b builder) command { return b.Subscribe().Channel("news").Build() }, func(rueidis.PubSubMessage) {})
		}()
		<-confirmed
		s.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		cancel()
		<-done
		left := any(int64(1))
		for end := time.Now().Add(2 * time.Second); left != int64(0) && time.Now().Before(end); time.Sleep(time.Millisecond) {
			left = s.Do(t, "PUBSUB", "NUMSUB", "news").([]any)[1]
		}
		if left != int64(0) {
			t.Fatalf("%v subscriptions are left at the server", left)
		}
	}
}
