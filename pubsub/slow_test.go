package pubsub_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
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

// flood publishes at a rate, from a process of its own, until it is stopped, and
// returns how many it was.
func flood(t *testing.T, topic *pubsub.Topic[int], perSecond int) (stop func() int) {
	done := make(chan struct{})
	var sent atomic.Int64
	var wg sync.WaitGroup
	const hands = 32
	for range hands {
		wg.Go(func() {
			start := time.Now()
			for i := 0; ; i++ {
				if d := time.Until(start.Add(time.Duration(i) * hands * time.Second / time.Duration(perSecond))); d > 0 {
					time.Sleep(d)
				}
				select {
				case <-done:
					return
				default:
				}
				if _, err := topic.Publish(context.Background(), i); err != nil {
					t.Error(err)
					return
				}
				sent.Add(1)
			}
		})
	}
	return func() int {
		close(done)
		wg.Wait()
		return int(sent.Load())
	}
}

// latencies measures calls of r until it is stopped.
func latencies(t *testing.T, r *madcrow.Redis) (stop func() (p50, p99 time.Duration)) {
	done := make(chan struct{})
	var all []time.Duration
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			start := time.Now()
			if err := r.Do(context.Background(), r.B().Get().Key("k").Build()).Err(); err != nil {
				t.Error(err)
			}
			all = append(all, time.Since(start))
		}
	})
	return func() (p50, p99 time.Duration) {
		close(done)
		wg.Wait()
		slices.Sort(all)
		return all[len(all)/2], all[len(all)*99/100]
	}
}

// One subscriber does not take anything for a long time. The others lose
// nothing, calls of the same Redis are as fast as before, the server does not
// hang up, and the one is notified afterwards how many it lost.
func TestSlow_BlockedSubscriberDelaysNoOtherSubscriber(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	srv := madcrowtest.StartRedis(t)
	r := openConfig(t, srv.Config())
	b := newBus(t, r, pubsub.Options{})
	topic := topicOf(t, b, "t", pubsub.TopicOptions[int]{})
	source := topicOf(t, newBus(t, openConfig(t, srv.Config()), pubsub.Options{}), "t", pubsub.TopicOptions[int]{})
	var received [3]atomic.Int64
	var troubled atomic.Int64
	var ready sync.WaitGroup
	hear := func(fn func(pubsub.Event[int]), opts ...pubsub.SubscribeOption) {
		ready.Add(1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			err := topic.Handle(ctx, func(_ context.Context, e pubsub.Event[int]) {
				if e.Kind == pubsub.EventSubscribed {
					ready.Done()
				}
				fn(e)
			}, opts...)
			if err != nil {
				t.Error(err)
			}
		}()
		t.Cleanup(func() {
			cancel()
			<-ended
		})
	}
	for i := range received {
		hear(func(e pubsub.Event[int]) {
			switch e.Kind {
			case pubsub.EventMessage:
				received[i].Add(1)
			case pubsub.EventSubscribed:
			default:
				troubled.Add(1)
				t.Errorf("another subscriber was notified: %+v", e)
			}
		}, pubsub.WithQueue(100_000))
	}
	goOn := make(chan struct{})
	var mine, dropped atomic.Int64
	hear(func(e pubsub.Event[int]) {
		switch e.Kind {
		case pubsub.EventSubscribed:
			<-goOn
		case pubsub.EventMessage:
			mine.Add(1)
		case pubsub.EventDropped:
			dropped.Add(int64(e.N))
		default:
			t.Errorf("the blocked one was notified: %+v", e)
		}
	})
	ready.Wait()
	free := func() (total int, p99 time.Duration) { // the same load, and no one who is blocked beside
		other := topicOf(t, b, "u", pubsub.TopicOptions[int]{})
		l := hearing(t, subscribeTo(other))
		l.next(t, "subscribed", is[int](pubsub.EventSubscribed))
		stop, calls := flood(t, topicOf(t, newBus(t, openConfig(t, srv.Config()), pubsub.Options{}), "u", pubsub.TopicOptions[int]{}), 10_000), latencies(t, r)
		time.Sleep(long(time.Second, 9*time.Second))
		_, p99 = calls()
		return stop(), p99
	}
	_, before := free()
	start := time.Now()
	stop, calls := flood(t, source, 10_000), latencies(t, r)
	time.Sleep(long(3*time.Second, 30*time.Second))
	p50, p99 := calls()
	sent := stop()
	rate := float64(sent) / time.Since(start).Seconds()
	testkit.Eventually(t, "the others have everything", func() bool {
		for i := range received {
			if received[i].Load() != int64(sent) {
				return false
			}
		}
		return true
	})
	close(goOn)
	testkit.Eventually(t, "the blocked one has its share", func() bool { return mine.Load()+dropped.Load() == int64(sent) })
	ratio := float64(p99) / float64(before)
	t.Logf("%.0f messages a second; %d sent, %d times received; the blocked one: %d received, %d dropped; calls: p50 %v, p99 %v, %.2f of that without", rate, sent, sent, mine.Load(), dropped.Load(), p50, p99, ratio)
	if strict && ratio > 1.5 {
		t.Errorf("p99 of calls %.2f times as long", ratio)
	}
	if troubled.Load() > 0 || dropped.Load() == 0 {
		t.Errorf("%d troubled, %d dropped", troubled.Load(), dropped.Load())
	}
}

// A thousand subscribers of one channel are one subscription of the server, and
// leave nothing behind.
func TestSlow_ThousandSubscribersAreOneSubscription(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	srv := madcrowtest.StartRedis(t)
	r := openConfig(t, srv.Config())
	b := newBus(t, r, pubsub.Options{})
	topic := topicOf(t, b, "t", pubsub.TopicOptions[string]{})
	var memory [2]runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory[0])
	const subscribers, messages = 1000, 200
	var subscribed, received, lost, gaps atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range subscribers {
		wg.Go(func() {
			for e, err := range topic.Subscribe(ctx) {
				switch {
				case err != nil:
					t.Error(err)
				case e.Kind == pubsub.EventSubscribed:
					subscribed.Add(1)
				case e.Kind == pubsub.EventMessage:
					received.Add(1)
				case e.Kind == pubsub.EventGap:
					gaps.Add(1)
				default:
					lost.Add(int64(e.N))
				}
			}
		})
	}
	testkit.Eventually(t, "all are subscribed", func() bool { return subscribed.Load() == subscribers })
	runtime.GC()
	runtime.ReadMemStats(&memory[1])
	each := (int64(memory[1].HeapAlloc+memory[1].StackInuse) - int64(memory[0].HeapAlloc+memory[0].StackInuse)) / subscribers
	if n := numsub(t, srv, "t"); n != 1 {
		t.Errorf("%d subscriptions at the server", n)
	}
	start := time.Now()
	for range messages {
		if _, err := topic.Publish(ctx, strings.Repeat("x", 100)); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { t.Logf("%d received, %d lost, %d gaps", received.Load(), lost.Load(), gaps.Load()) }()
	// On a machine that is away for seconds the connection may be made again.
	testkit.Eventually(t, "each has everything, or was notified", func() bool { return received.Load()+lost.Load() == subscribers*messages || gaps.Load() > 0 })
	t.Logf("%d bytes a subscriber; %v a delivery", each, time.Since(start)/(subscribers*messages))
	cancel()
	wg.Wait()
	testkit.Eventually(t, "the subscription ends", func() bool { return numsub(t, srv, "t") == 0 })
}

// Subscribers with a rule of their own on one feed: each loses by its own.
func TestSlow_EachSubscriberLosesByItsOwnRule(t *testing.T) {
	b := newBus(t, open(t), pubsub.Options{})
	topic := topicOf(t, b, "t", pubsub.TopicOptions[int]{})
	goOn := make(chan struct{})
	results := make(chan string, 4)
	var ready sync.WaitGroup
	for name, rule := range map[string]pubsub.Overflow{"newest": pubsub.DropNewest, "oldest": pubsub.DropOldest, "disconnect": pubsub.Disconnect, "block": pubsub.Block(time.Hour)} {
		ready.Add(1)
		go func() {
			var seen []string
			for e, err := range topic.Subscribe(t.Context(), pubsub.WithQueue(10), pubsub.WithOverflow(rule)) {
				switch {
				case err != nil:
					seen = append(seen, "slow")
				case e.Kind == pubsub.EventSubscribed:
					ready.Done()
					<-goOn
				case e.Kind == pubsub.EventDropped:
					seen = append(seen, fmt.Sprint("-", e.N))
				case e.Kind == pubsub.EventMessage:
					seen = append(seen, fmt.Sprint(e.Message))
				}
				if len(seen) > 0 && (seen[len(seen)-1] == "99" || seen[len(seen)-1] == "-80" || name == "newest" && seen[len(seen)-1] == "-90") {
					break
				}
			}
			results <- name + ": " + strings.Join(seen, " ")
		}()
	}
	ready.Wait()
	for n := range 100 {
		if _, err := topic.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	l := hearing(t, subscribeTo(topic)) // one that comes when all is there
	l.next(t, "subscribed", is[int](pubsub.EventSubscribed))
	time.Sleep(50 * time.Millisecond)
	close(goOn)
	want := map[string]bool{
		"newest: 0 1 2 3 4 5 6 7 8 9 -90": true, "oldest: -90 90 91 92 93 94 95 96 97 98 99": true,
		"disconnect: 0 1 2 3 4 5 6 7 8 9 slow": true, "block: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 -80": true,
	}
	for range 4 {
		if got := <-results; !want[got] {
			t.Error(got)
		}
	}
}

// The last one leaves a busy channel while the next one comes, again and again:
// each hears it, and no subscription stands in the way of another.
func TestSlow_ComingAndGoingOnABusyChannel(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	srv := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	topic := topicOf(t, b, "t", pubsub.TopicOptions[int]{})
	stop := flood(t, topicOf(t, newBus(t, openConfig(t, srv.Config()), pubsub.Options{}), "t", pubsub.TopicOptions[int]{}), 10_000)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // less than a subscription is given
				heard := 0
				for e, err := range topic.Subscribe(ctx) {
					if err != nil || e.Kind == pubsub.EventGap || e.Kind == pubsub.EventMissed {
						t.Errorf("notified: %+v %v", e, err)
					}
					if e.Kind == pubsub.EventMessage {
						if heard++; heard == 20 {
							break
						}
					}
				}
				cancel()
				if heard < 20 {
					t.Errorf("%d messages in 4 s", heard)
					return
				}
			}
		})
	}
	all.Wait()
	stop()
	testkit.Eventually(t, "the subscription ends", func() bool { return numsub(t, srv, "t") == 0 })
}

// Redis closes a connection that is behind, and discards the messages that wait for
// it. The gap began with the end of the connection, so those were not in it.
func TestTopic_GapIncludesMessagesThatRedisDiscarded(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	srv.Do(t, "CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0")
	proxy := madcrowtest.StartProxy(t, srv.Addr())
	cfg := srv.Config()
	cfg.Port = proxy.Port()
	far := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	topic := topicOf(t, far, "t", pubsub.TopicOptions[string]{})
	l := hearing(t, subscribeTo(topicOf(t, newBus(t, openConfig(t, cfg), pubsub.Options{}), "t", pubsub.TopicOptions[string]{}), pubsub.WithQueue(100_000)))
	l.next(t, "subscribed", is[string](pubsub.EventSubscribed))
	proxy.SetBandwidth(4 << 20)
	var published []time.Time
	padding := strings.Repeat("x", 16<<10)
	testkit.Eventually(t, "Redis hangs up", func() bool {
		published = append(published, time.Now())
		n, err := topic.Publish(t.Context(), padding)
		if err != nil {
			t.Fatal(err)
		}
		return n == 0
	})
	heard := 0
	l.next(t, "interrupted", func(e pubsub.Event[string]) bool {
		if e.Kind == pubsub.EventMessage {
			heard++
		}
		return e.Kind == pubsub.EventInterrupted
	})
	gap := l.next(t, "gap", is[string](pubsub.EventGap))
	if heard == 0 || heard >= len(published) {
		t.Fatalf("%d heard of %d", heard, len(published))
	}
	late := gap.Since.Sub(published[heard])
	t.Logf("%d of %d were heard; the gap of %v begins %v before the first that was not", heard, len(published), gap.Until.Sub(gap.Since), -late)
	if late > 10*time.Millisecond { // the time of an envelope is in milliseconds
		t.Errorf("the gap begins %v too late", late)
	}
}
