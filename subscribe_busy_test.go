package madcrow_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// receiving is a Subscribe of one channel. Its messages are dropped while none
// takes them, so that it delays no other.
type receiving struct {
	got    chan string
	ended  chan error
	cancel context.CancelFunc
}

// receiveOn returns when the subscription is confirmed.
func receiveOn(t *testing.T, r *madcrow.Redis, channel string) *receiving {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	v := &receiving{make(chan string, 1), make(chan error, 1), cancel}
	t.Cleanup(cancel)
	confirmed := make(chan struct{})
	once := sync.OnceFunc(func() { close(confirmed) })
	h := madcrow.Handler{OnSubscribed: func(string) { once() }, OnMessage: func(m madcrow.PubSubMessage) {
		select {
		case v.got <- m.Payload:
		default:
		}
	}}
	go func() { v.ended <- r.Subscribe(ctx, madcrow.Subscription{Channels: []string{channel}}, h) }()
	select {
	case <-confirmed:
	case <-time.After(5 * time.Second):
		t.Fatalf("a subscription to %s was not confirmed in 5 s", channel)
	}
	return v
}

func (v *receiving) wait(t *testing.T, what string) {
	t.Helper()
	select {
	case <-v.got:
	case err := <-v.ended:
		t.Fatalf("%s: it ended: %v", what, err)
	case <-time.After(5 * time.Second):
		t.Fatalf("%s: no message in 5 s", what)
	}
}

// noisy publishes to a channel from elsewhere, some 50,000 messages a second:
// more would fill the connection of a reader that is short of processor, and
// what is asked there would be answered behind all of it.
func noisy(t *testing.T, s *madcrowtest.Server, channel string) {
	other := open(t, s.Config())
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				cmds := make([]command, 8)
				for i := range cmds {
					cmds[i] = other.B().Publish().Channel(channel).Message("x").Build()
				}
				_, _ = other.DoMulti(context.Background(), cmds...)
				time.Sleep(time.Millisecond)
			}
		})
	}
	t.Cleanup(func() {
		close(done)
		wg.Wait()
	})
}

// The server tells of a channel before it has answered the second subscriber of
// it: what comes meanwhile must not stand in the way of that answer.
func TestSubscribe_SecondSubscriberOfABusyChannelDelaysNoOther(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	noisy(t, s, "busy")
	first := receiveOn(t, r, "busy")
	for range 30 {
		second := receiveOn(t, r, "busy")
		second.wait(t, "the second")
		<-first.got // perhaps an old one
		first.wait(t, "the first")
		beside := receiveOn(t, r, "quiet") // a command on the same connection
		s.Do(t, "PUBLISH", "quiet", "hello")
		beside.wait(t, "another channel")
		for _, v := range []*receiving{beside, second} {
			v.cancel()
			<-v.ended
		}
	}
	if n := s.Do(t, "PUBSUB", "NUMSUB", "busy").([]any)[1]; n != int64(1) {
		t.Errorf("%v subscriptions of one channel at the server", n)
	}
}

// Messages for a subscriber that leaves must not delay its UNSUBSCRIBE.
func TestSubscribe_LeavingABusyChannelDelaysNoOther(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	noisy(t, s, "busy")
	beside := receiveOn(t, r, "quiet")
	var late []time.Duration
	for range 15 {
		v := receiveOn(t, r, "busy")
		v.wait(t, "busy")
		v.cancel()
		<-v.ended
		start := time.Now()
		s.Do(t, "PUBLISH", "quiet", "hello")
		beside.wait(t, "quiet")
		late = append(late, time.Since(start))
	}
	slices.Sort(late)
	if half := late[len(late)/2]; half > 60*time.Millisecond {
		t.Errorf("half of the messages came after more than %v", half)
	}
}

// Who listens to several channels shares those that others have, and leaves
// them to others.
func TestSubscribe_OverlappingChannelsAreSubscribedOnce(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	receive := func(channels ...string) (got chan string, leave func()) {
		ctx, cancel := context.WithCancel(t.Context())
		got, ended := make(chan string, 10), make(chan error, 1)
		confirmed := make(chan string, 10)
		go func() {
			ended <- r.Subscribe(ctx, madcrow.Subscription{Channels: channels}, madcrow.Handler{
				OnMessage:    func(m madcrow.PubSubMessage) { got <- m.Channel + m.Payload },
				OnSubscribed: func(channel string) { confirmed <- channel },
			})
		}()
		notified := []string{}
		for range channels {
			notified = append(notified, <-confirmed)
		}
		if slices.Sort(notified); !slices.Equal(notified, channels) {
			t.Errorf("it was notified of %v, want %v", notified, channels)
		}
		return got, func() {
			cancel()
			wantError(t, <-ended, madcrow.KindCanceled, madcrow.ErrCanceled, madcrow.OutcomeNotApplied)
		}
	}
	subscribed := func(want ...int64) {
		t.Helper()
		list := s.Do(t, "PUBSUB", "NUMSUB", "a", "b", "c").([]any)
		if got := []int64{list[1].(int64), list[3].(int64), list[5].(int64)}; !slices.Equal(got, want) {
			t.Errorf("a, b and c have %v subscriptions at the server, want %v", got, want)
		}
	}
	hears := func(got chan string, want ...string) {
		t.Helper()
		heard := []string{}
		for range want {
			select {
			case m := <-got:
				heard = append(heard, m)
			case <-time.After(2 * time.Second):
				t.Fatalf("heard %v, want %v", heard, want)
			}
		}
		if slices.Sort(heard); !slices.Equal(heard, want) {
			t.Errorf("heard %v, want %v", heard, want)
		}
	}
	say := func(text string) {
		for _, channel := range []string{"a", "b", "c"} {
			s.Do(t, "PUBLISH", channel, text)
		}
	}
	first, leaveFirst := receive("a", "b")
	second, leaveSecond := receive("b", "c")
	subscribed(1, 1, 1)
	say("1")
	hears(first, "a1", "b1")
	hears(second, "b1", "c1")
	leaveFirst()
	say("2")
	hears(second, "b2", "c2")
	third, leaveThird := receive("a") // whose subscription there still is
	say("3")
	hears(third, "a3")
	hears(second, "b3", "c3")
	leaveSecond()
	leaveThird()
	subscribed(0, 0, 0)
	if len(first)+len(second)+len(third) > 0 {
		t.Errorf("heard too much: %d %d %d", len(first), len(second), len(third))
	}
}
