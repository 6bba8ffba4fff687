package madcrow_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/madcrowtest"
)

// The server answers and the connection stands; only the one for pub/sub is
// made anew, and calls on the others notice nothing.
func TestRenewSubscriptions_EndsEachReceiveAndNothingElse(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	subscribe := func(b builder) command { return b.Subscribe().Channel("news").Build() }
	receive := func() (<-chan string, <-chan error) {
		ended, confirmed, got := make(chan error, 1), make(chan struct{}, 1), make(chan string, 1)
		ctx := rueidis.WithOnSubscriptionHook(t.Context(), func(rueidis.PubSubSubscription) {
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
		if _, err := r.Do(ctx, get("a")); err != nil {
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

// While the lanes are being made anew nothing is known against the connection
// for pub/sub: who leaves it then must unsubscribe all the same, or the server
// sends for ever what nobody hears.
func TestRegress_LastSubscriberUnsubscribesAlsoWhileTheLanesAreLost(t *testing.T) {
	s, r := server(t)
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		confirmed, done := make(chan struct{}, 2), make(chan error, 1)
		hooked := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { confirmed <- struct{}{} })
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
