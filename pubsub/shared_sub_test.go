package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

var (
	soaking = testkit.Soak
	strict  = testkit.Chaos
)

// long is for what a test does more of in `make soak`.
func long[T any](usual, soak T) T {
	if soaking {
		return soak
	}
	return usual
}

// ear collects the events of one subscription, from a goroutine of its own.
type ear[E any] struct {
	stop   context.CancelFunc
	ended  chan struct{}
	err    error
	events chan E
}

func hearing[E any](t testing.TB, subscribe func(context.Context) iter.Seq2[E, error]) *ear[E] {
	ctx, cancel := context.WithCancel(t.Context())
	l := &ear[E]{stop: cancel, ended: make(chan struct{}), events: make(chan E, 100_000)}
	go func() {
		defer close(l.ended)
		for e, err := range subscribe(ctx) {
			if err != nil {
				l.err = err
				return
			}
			select {
			case l.events <- e:
			case <-ctx.Done(): // the test is over, and did not take them all
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-l.ended
	})
	return l
}

// next returns the next event that ok accepts, and fails without one.
func (l *ear[E]) next(t testing.TB, what string, ok func(E) bool) E {
	t.Helper()
	for late := time.After(15 * time.Second); ; {
		select {
		case e := <-l.events:
			if ok(e) {
				return e
			}
		case <-l.ended:
			t.Fatalf("ended before %s: %v", what, l.err)
		case <-late:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func is[T any](kind pubsub.EventKind) func(pubsub.Event[T]) bool {
	return func(e pubsub.Event[T]) bool { return e.Kind == kind }
}

func topicOf[T any](t testing.TB, b *pubsub.Bus, name string, opt pubsub.TopicOptions[T]) *pubsub.Topic[T] {
	t.Helper()
	topic, err := pubsub.NewTopic(b, name, opt)
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

func subscribeTo[T any](topic *pubsub.Topic[T], opts ...pubsub.SubscribeOption) func(context.Context) iter.Seq2[pubsub.Event[T], error] {
	return func(ctx context.Context) iter.Seq2[pubsub.Event[T], error] { return topic.Subscribe(ctx, opts...) }
}

func numsub(t testing.TB, srv *madcrowtest.Server, channel string) int64 {
	t.Helper()
	n, _ := srv.Do(t, "PUBSUB", "NUMSUB", channel).([]any)[1].(int64)
	return n
}

// counter is a Recorder that counts events and calls.
type counter struct {
	madcrow.NopRecorder
	mu     sync.Mutex
	events map[string]int
	calls  atomic.Int64
}

func (c *counter) Operation(context.Context, madcrow.Operation) { c.calls.Add(1) }

func (c *counter) Event(_ context.Context, ev madcrow.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.events == nil {
		c.events = map[string]int{}
	}
	c.events[ev.Type.String()] += ev.N
}

func (c *counter) count(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.events["pubsub."+name]
}

// Subscribers come and go all the time, and one stays away from the others'
// UNSUBSCRIBE: who got EventSubscribed gets what is published then, and
// after the last one the server has no subscription.
func TestTopic_ComingAndGoingLosesNothingAndLeavesNothing(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	srv := madcrowtest.StartRedis(t)
	r := openConfig(t, srv.Config())
	buses := []*pubsub.Bus{newBus(t, r, pubsub.Options{}), newBus(t, r, pubsub.Options{})}
	end := time.Now().Add(long(time.Second, 30*time.Second))
	var wg sync.WaitGroup
	var rounds atomic.Int64
	for i := range 24 {
		wg.Go(func() {
			topic := topicOf(t, buses[i%2], fmt.Sprint("c", i%3), pubsub.TopicOptions[string]{Plain: i%5 == 0})
			for n := 0; time.Now().Before(end); n++ {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				mine, got := fmt.Sprint(i, " ", n), false
				for e, err := range topic.Subscribe(ctx) {
					if err != nil {
						t.Error(err)
						break
					}
					if e.Kind == pubsub.EventSubscribed {
						if _, err := topic.Publish(ctx, mine); err != nil {
							t.Error(err)
						}
					}
					if got = got || e.Kind == pubsub.EventMessage && strings.HasSuffix(e.Message, mine); got {
						break
					}
				}
				cancel()
				if !got {
					t.Errorf("%s did not come", mine)
					return
				}
				rounds.Add(1)
				if rand.IntN(3) == 0 {
					time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
				}
			}
		})
	}
	wg.Wait()
	for i := range 3 {
		testkit.Eventually(t, "the end of the subscription", func() bool { return numsub(t, srv, fmt.Sprint("c", i)) == 0 })
	}
	t.Logf("%d subscriptions came and went", rounds.Load())
}

// With 64 goroutines that publish at once, messages overtake one another from
// the first on. None is lost, and none counts as missed.
func TestTopic_ConcurrentPublishersAreNotMissed(t *testing.T) {
	r := open(t)
	b, far := newBus(t, r, pubsub.Options{}), newBus(t, open(t), pubsub.Options{})
	total := long(6_400, 640_000)
	for round := range 4 { // each begins with a publisher that is new to the subscriber
		name := fmt.Sprint("t", round)
		l := hearing(t, subscribeTo(topicOf(t, b, name, pubsub.TopicOptions[int]{}), pubsub.WithQueue(1_000_000)))
		l.next(t, "subscribed", is[int](pubsub.EventSubscribed))
		source := topicOf(t, far, name, pubsub.TopicOptions[int]{})
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				for k := range total / 4 / 64 {
					if _, err := source.Publish(t.Context(), i*total+k); err != nil {
						t.Error(err)
					}
				}
			})
		}
		got := map[int]bool{}
		for range total / 4 {
			e := l.next(t, "a message", func(e pubsub.Event[int]) bool { return true })
			if e.Kind != pubsub.EventMessage || got[e.Message] {
				t.Fatalf("%+v", e)
			}
			got[e.Message] = true
		}
		wg.Wait()
		l.stop()
	}
}

// A subscriber that was added while the connection was lost got the gap of the
// others in the place of EventSubscribed.
func TestTopic_SubscriberAddedDuringAnInterruptionGetsSubscribed(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	topic := topicOf(t, b, "t", pubsub.TopicOptions[string]{})
	first := hearing(t, subscribeTo(topic))
	first.next(t, "subscribed", is[string](pubsub.EventSubscribed))
	srv.Kill()
	first.next(t, "interrupted", is[string](pubsub.EventInterrupted))
	second := hearing(t, subscribeTo(topic))
	time.Sleep(50 * time.Millisecond)
	srv.Restart()
	if e := second.next(t, "an event", func(pubsub.Event[string]) bool { return true }); e.Kind != pubsub.EventSubscribed {
		t.Errorf("the second was notified: %v", e.Kind)
	}
	if e := first.next(t, "an event", func(pubsub.Event[string]) bool { return true }); e.Kind != pubsub.EventGap || !e.Until.After(e.Since) {
		t.Errorf("the first was notified: %+v", e)
	}
	if srv.Do(t, "PUBLISH", "t", "hello") != int64(1) {
		t.Error("not one subscription")
	}
	first.next(t, "a message", is[string](pubsub.EventMessage))
	second.next(t, "a message", is[string](pubsub.EventMessage))
}

// A subscription with a full queue yielded all of it after its context had ended.
func TestTopic_SubscriptionEndsWithItsContextThoughItsQueueIsFull(t *testing.T) {
	b := newBus(t, open(t), pubsub.Options{})
	topic := topicOf(t, b, "t", pubsub.TopicOptions[int]{})
	ctx, cancel := context.WithCancel(t.Context())
	after := 0
	err := topic.Handle(ctx, func(_ context.Context, e pubsub.Event[int]) {
		if e.Kind == pubsub.EventSubscribed {
			for i := range 500 {
				_, _ = topic.Publish(t.Context(), i)
			}
			time.Sleep(50 * time.Millisecond)
			cancel()
			return
		}
		after++
	})
	if err != nil || after > 0 {
		t.Errorf("%d events after the end, %v", after, err)
	}
}

// More channels than may subscribe at once are subscribed again after each loss,
// and all messages come: no turn is lost.
func TestTopic_ThousandsOfChannelsAreSubscribedAgain(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	srv := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	const channels = 1200
	var live, gaps atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range channels {
		wg.Go(func() {
			for e, err := range topicOf(t, b, fmt.Sprint("c", i), pubsub.TopicOptions[string]{}).Subscribe(ctx) {
				switch {
				case err != nil:
					t.Error(err)
				case e.Kind == pubsub.EventSubscribed:
					live.Add(1)
				case e.Kind == pubsub.EventInterrupted:
					live.Add(-1)
				case e.Kind == pubsub.EventGap:
					live.Add(1)
					gaps.Add(1)
				}
			}
		})
	}
	for round := range 3 {
		start := time.Now()
		testkit.Eventually(t, "all are subscribed", func() bool { return live.Load() == channels && gaps.Load() == int64(round*channels) })
		t.Logf("%d channels subscribed after %v", channels, time.Since(start))
		if n := len(srv.Do(t, "PUBSUB", "CHANNELS", "c*").([]any)); n != channels {
			t.Errorf("the server has %d", n)
		}
		if round < 2 {
			srv.Do(t, "CLIENT", "KILL", "TYPE", "pubsub")
		}
	}
	cancel()
	wg.Wait()
	testkit.Eventually(t, "the end of all subscriptions", func() bool { return len(srv.Do(t, "PUBSUB", "CHANNELS").([]any)) == 0 })
}

// A channel that may not be subscribed to ends the subscription, by name; the
// next one tries again.
func TestTopic_DeniedChannelIsAnErrorAndNoLoop(t *testing.T) {
	if madcrowtest.OlderThan(t, "6.2") {
		t.Skip("users have rules for channels from Redis 6.2 on")
	}
	srv := madcrowtest.StartRedis(t, madcrowtest.WithUser("app", "secret", "+@all", "~*", "resetchannels", "&mine*"))
	cfg := srv.Config()
	cfg.Username, cfg.Password = "app", "secret"
	b := newBus(t, openConfig(t, cfg), pubsub.Options{})
	for range 2 {
		var last error
		for _, err := range topicOf(t, b, "theirs", pubsub.TopicOptions[string]{}).Subscribe(t.Context()) {
			last = err
		}
		var e *madcrow.Error
		if !errors.Is(last, madcrow.ErrPermission) || !errors.As(last, &e) || e.Name != "theirs" {
			t.Errorf("%v", last)
		}
	}
	l := hearing(t, subscribeTo(topicOf(t, b, "mine", pubsub.TopicOptions[string]{})))
	l.next(t, "subscribed", is[string](pubsub.EventSubscribed))
}

func TestBus_CloseEndsEverySubscription(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	srv := madcrowtest.StartRedis(t)
	r := openConfig(t, srv.Config())
	b := newBus(t, r, pubsub.Options{})
	topic := topicOf(t, b, "t", pubsub.TopicOptions[int]{})
	history, _ := pubsub.NewRecoverable(b, "t", pubsub.RecoverableOptions[int]{})
	l := hearing(t, subscribeTo(topic))
	h := hearing(t, func(ctx context.Context) iter.Seq2[pubsub.Event[int], error] {
		return history.Subscribe(ctx, pubsub.Position{})
	})
	l.next(t, "subscribed", is[int](pubsub.EventSubscribed))
	srv.Kill() // also those that wait for Redis end
	l.next(t, "interrupted", is[int](pubsub.EventInterrupted))
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	<-l.ended
	<-h.ended
	for what, err := range map[string]error{"topic": l.err, "history": h.err} {
		if !errors.Is(err, pubsub.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := topic.Publish(t.Context(), 1); !errors.Is(err, pubsub.ErrClosed) {
		t.Errorf("publish: %v", err)
	}
	for _, err := range topic.Subscribe(t.Context()) {
		if !errors.Is(err, pubsub.ErrClosed) {
			t.Errorf("subscribe: %v", err)
		}
	}
}

// The connection for pub/sub falls into a black hole: TCP stays up, the server
// is well, and nothing comes. It is noticed, reported and replaced.
func TestProbe_FindsAConnectionThatBringsNothing(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	srv := madcrowtest.StartRedis(t)
	proxy := madcrowtest.StartProxy(t, srv.Addr())
	var viaProxy atomic.Bool
	cfg := srv.Config()
	events := &counter{}
	cfg.Recorder = events
	cfg.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		if viaProxy.Load() {
			address = proxy.Addr()
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	r := openConfig(t, cfg)
	b := newBus(t, r, pubsub.Options{Probe: 300 * time.Millisecond})
	topic := topicOf(t, b, "t", pubsub.TopicOptions[string]{})
	viaProxy.Store(true) // the next connection is that for pub/sub
	l := hearing(t, subscribeTo(topic))
	l.next(t, "subscribed", is[string](pubsub.EventSubscribed))
	viaProxy.Store(false)
	testkit.Eventually(t, "the bus' own subscription", func() bool { return len(srv.Do(t, "PUBSUB", "CHANNELS", "m1:probe:*").([]any)) == 1 })
	time.Sleep(500 * time.Millisecond) // several probes that find all well
	if n := events.count("renewed"); n != 0 {
		t.Errorf("a connection that was well was replaced %d times", n)
	}
	proxy.BlackHole(true)
	dark := time.Now()
	if _, err := topic.Publish(t.Context(), "lost"); err != nil {
		t.Error(err)
	}
	l.next(t, "interrupted", is[string](pubsub.EventInterrupted))
	took := time.Since(dark)
	gap := l.next(t, "gap", is[string](pubsub.EventGap))
	t.Logf("noticed after %v, replaced after %v; the gap was reported as %v", took, time.Since(dark), gap.Until.Sub(gap.Since))
	if n := events.count("renewed"); n != 1 || took > 2*time.Second {
		t.Errorf("replaced %d times, %v", n, took)
	}
	if gap.Since.After(dark) {
		t.Errorf("the gap is reported from %v after its begin", gap.Since.Sub(dark))
	}
	if srv.Do(t, "PUBLISH", "t", "hello") != int64(2) { // the server does not know yet that the old one is dead
		t.Log("the server has noticed")
	}
	l.next(t, "a message", is[string](pubsub.EventMessage))
	l.stop()
	<-l.ended
	proxy.BlackHole(false)
	testkit.Eventually(t, "no subscription where no one listens", func() bool { return len(srv.Do(t, "PUBSUB", "CHANNELS").([]any)) == 0 })
	calls := events.calls.Load()
	time.Sleep(500 * time.Millisecond)
	if n := events.calls.Load() - calls; n > 0 {
		t.Errorf("%d calls though no one listens", n)
	}
}

// deaf swallows messages and passes everything else: what a connection looks
// like whose server forgot the subscription.
type deaf struct {
	net.Conn
	on *atomic.Bool
}

func (d deaf) Read(p []byte) (int, error) {
	for {
		n, err := d.Conn.Read(p)
		if err != nil || !d.on.Load() || !strings.Contains(string(p[:n]), "message\r\n") {
			return n, err
		}
	}
}

// The client's PING is answered, and only the probe can see that messages do not
// come.
func TestProbe_SeesWhatPingDoesNot(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	var on atomic.Bool
	var dials atomic.Int64
	cfg := srv.Config()
	cfg.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if on.Load() {
			dials.Add(1)
			return c, err
		}
		return deaf{c, &on}, err
	}
	r := openConfig(t, cfg)
	// Without it nothing is noticed.
	without := hearing(t, subscribeTo(topicOf(t, newBus(t, r, pubsub.Options{Probe: -1}), "a", pubsub.TopicOptions[string]{})))
	without.next(t, "subscribed", is[string](pubsub.EventSubscribed))
	on.Store(true)
	time.Sleep(long(500*time.Millisecond, 10*time.Second))
	select {
	case e := <-without.events:
		t.Errorf("noticed without a probe: %+v", e)
	default:
	}
	on.Store(false)
	with := hearing(t, subscribeTo(topicOf(t, newBus(t, r, pubsub.Options{Probe: 200 * time.Millisecond}), "b", pubsub.TopicOptions[string]{})))
	with.next(t, "subscribed", is[string](pubsub.EventSubscribed))
	testkit.Eventually(t, "the bus' own subscription", func() bool { return len(srv.Do(t, "PUBSUB", "CHANNELS", "m1:probe:*").([]any)) == 1 })
	on.Store(true)
	with.next(t, "gap", is[string](pubsub.EventGap))
	without.next(t, "gap", is[string](pubsub.EventGap)) // they share the connection
	srv.Do(t, "PUBLISH", "b", "hello")
	with.next(t, "a message", is[string](pubsub.EventMessage))
	if dials.Load() == 0 {
		t.Error("no new connection")
	}
}

// A user who may not use the probe's channel is not disturbed by that.
func TestProbe_DeniedProbeDisturbsNoSubscriber(t *testing.T) {
	if madcrowtest.OlderThan(t, "6.2") {
		t.Skip("users have rules for channels from Redis 6.2 on")
	}
	srv := madcrowtest.StartRedis(t, madcrowtest.WithUser("app", "secret", "+@all", "~*", "resetchannels", "&mine*"))
	cfg := srv.Config()
	cfg.Username, cfg.Password = "app", "secret"
	events := &counter{}
	cfg.Recorder = events
	l := hearing(t, subscribeTo(topicOf(t, newBus(t, openConfig(t, cfg), pubsub.Options{Probe: 100 * time.Millisecond}), "mine", pubsub.TopicOptions[string]{})))
	l.next(t, "subscribed", is[string](pubsub.EventSubscribed))
	time.Sleep(400 * time.Millisecond)
	select {
	case e := <-l.events:
		t.Errorf("%+v", e)
	default:
	}
	if events.calls.Load() > 5 || events.count("renewed") > 0 {
		t.Errorf("%d calls, %d renewed", events.calls.Load(), events.count("renewed"))
	}
}
