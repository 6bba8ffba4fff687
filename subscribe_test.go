package madcrow_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/sealed"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

var news = madcrow.Subscription{Channels: []string{"news"}}

func drop(madcrow.PubSubMessage) {}

func TestSubscribe_LastSubscriberUnsubscribes(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	got := make(chan madcrow.PubSubMessage, 10)
	receive := func() (context.CancelFunc, chan error) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		subscribed := make(chan struct{})
		var once sync.Once
		go func() {
			done <- r.Subscribe(ctx, news, madcrow.Handler{
				OnMessage:    func(m madcrow.PubSubMessage) { got <- m },
				OnSubscribed: func(string) { once.Do(func() { close(subscribed) }) },
			})
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
		if m := <-got; m != (madcrow.PubSubMessage{Channel: "news", Payload: "hello"}) {
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

func TestSubscribe_EndsWithABrokenConnection(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	done := make(chan error, 1)
	subscribed := make(chan struct{})
	go func() {
		done <- r.Subscribe(t.Context(), news, madcrow.Handler{OnMessage: drop, OnSubscribed: func(string) { close(subscribed) }})
	}()
	<-subscribed
	s.Kill()
	select {
	case err := <-done:
		wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied)
	case <-time.After(2 * time.Second):
		t.Error("the subscriber was not notified in 2 s")
	}
	if err := r.Client().Receive(t.Context(), get(r, "a"), nil); err == nil {
		t.Error("the client's Receive took a GET")
	}
}

// The server answers and the connection stands; only the one for pub/sub is
// made again, and calls on the others notice nothing.
func TestRenewSubscriptions_EndsEachSubscribeAndNothingElse(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	receive := func() (<-chan string, <-chan error) {
		ended, confirmed, got := make(chan error, 1), make(chan struct{}, 1), make(chan string, 1)
		h := madcrow.Handler{OnMessage: func(m madcrow.PubSubMessage) { got <- m.Payload }, OnSubscribed: func(string) {
			select {
			case confirmed <- struct{}{}:
			default:
			}
		}}
		go func() { ended <- r.Subscribe(t.Context(), news, h) }()
		<-confirmed
		return got, ended
	}
	if at := r.SubscriptionNode(sealed.Key{}, news); at != s.Addr() {
		t.Errorf("it would be on %q, want %q", at, s.Addr())
	}
	for _, address := range []string{s.Addr(), ""} {
		_, ended := receive()
		mustSet(t, r, "a", "1")
		before := r.Status().Connections
		r.RenewSubscriptions(sealed.Key{}, "127.0.0.1:1") // another node's
		select {
		case err := <-ended:
			t.Errorf("ended by another node's: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		r.RenewSubscriptions(sealed.Key{}, address)
		select {
		case err := <-ended:
			if err == nil {
				t.Error("Subscribe returned no error")
			}
		case <-time.After(2 * time.Second):
			t.Fatal("Subscribe did not return")
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
func TestSubscribe_LastSubscriberUnsubscribesAlsoWhileSharedConnectionsAreLost(t *testing.T) {
	s, r := server(t)
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		confirmed, done := make(chan struct{}, 2), make(chan error, 1)
		go func() {
			done <- r.Subscribe(ctx, news, madcrow.Handler{OnMessage: drop, OnSubscribed: func(string) { confirmed <- struct{}{} }})
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

func TestSubscribe_PatternsHearWhatMatches(t *testing.T) {
	s, r := server(t)
	got, confirmed := make(chan madcrow.PubSubMessage, 1), make(chan string, 2)
	h := madcrow.Handler{OnMessage: func(m madcrow.PubSubMessage) { got <- m }, OnSubscribed: func(channel string) { confirmed <- channel }}
	go func() { _ = r.Subscribe(t.Context(), madcrow.Subscription{Patterns: []string{"news.*"}}, h) }()
	if channel := <-confirmed; channel != "news.*" {
		t.Errorf("%q was confirmed", channel)
	}
	s.Do(t, "PUBLISH", "news.de", "hallo")
	if m := <-got; m != (madcrow.PubSubMessage{Channel: "news.de", Pattern: "news.*", Payload: "hallo"}) {
		t.Errorf("got %+v", m)
	}
}

func TestSubscribe_RefusesWhatCannotBeSubscribed(t *testing.T) {
	_, r := server(t)
	one := []string{"a"}
	for name, c := range map[string]struct {
		s        madcrow.Subscription
		h        madcrow.Handler
		argument string
	}{
		"nothing":    {madcrow.Subscription{}, madcrow.Handler{OnMessage: drop}, "Subscription"},
		"two kinds":  {madcrow.Subscription{Channels: one, Patterns: one}, madcrow.Handler{OnMessage: drop}, "Subscription"},
		"no handler": {madcrow.Subscription{Channels: one}, madcrow.Handler{}, "Handler.OnMessage"},
	} {
		e := (*madcrow.ArgumentError)(nil)
		if err := r.Subscribe(t.Context(), c.s, c.h); !errors.As(err, &e) || e.Argument != c.argument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The builder of the command would panic.
func TestCluster_ShardedSubscriptionOfTwoSlotsIsRefused(t *testing.T) {
	_, r := startCluster(t)
	e := (*madcrow.ArgumentError)(nil)
	err := r.Subscribe(t.Context(), madcrow.Subscription{Sharded: []string{"a", "b"}}, madcrow.Handler{OnMessage: drop})
	if !errors.As(err, &e) || e.Argument != "Subscription.Sharded" {
		t.Errorf("%v", err)
	}
}
