package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

var config madcrow.Config

func TestMain(m *testing.M) {
	madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { config = s.Config() })
}

type note struct {
	N int `json:"n"`
}

// open connects to the server of the package, under a key prefix of the test's
// own.
func open(t testing.TB) *madcrow.Redis {
	t.Helper()
	cfg := config
	cfg.KeyPrefix = t.Name() + ":"
	return openConfig(t, cfg)
}

func openConfig(t testing.TB, cfg madcrow.Config) *madcrow.Redis {
	t.Helper()
	cfg.Require = true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

// needStreams leaves out a test where the servers have no streams as we use them.
func needStreams(t testing.TB) {
	t.Helper()
	if madcrowtest.OlderThan(t, "6.2") {
		t.Skip("streams need Redis 6.2")
	}
}

func newBus(t testing.TB, r *madcrow.Redis, opt pubsub.Options) *pubsub.Bus {
	t.Helper()
	b, err := pubsub.New(r, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = b.Close(ctx)
	})
	return b
}

// collect runs a subscription until stop says so, after it is subscribed.
func collect[E any](t testing.TB, events iter.Seq2[E, error], stop func(E) bool) (wait func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range events {
			if err != nil {
				t.Errorf("subscription: %v", err)
				return
			}
			if stop(e) {
				return
			}
		}
	}()
	return func() {
		t.Helper()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatal("the subscription did not end in time")
		}
	}
}

func TestTopic_DeliversToEverySubscriberInOrder(t *testing.T) {
	b := newBus(t, open(t), pubsub.Options{})
	for name, opt := range map[string]pubsub.TopicOptions[note]{"typed": {}, "plain": {Plain: true}, "sharded": {Sharded: true}} {
		if opt.Sharded && madcrowtest.OlderThan(t, "7.0") {
			continue // it has no sharded channels
		}
		topic, err := pubsub.NewTopic(b, "news."+name, opt)
		if err != nil {
			t.Fatal(err)
		}
		var ready sync.WaitGroup
		var waits []func()
		for range 5 {
			ready.Add(1)
			next := 0
			waits = append(waits, collect(t, topic.Subscribe(t.Context()), func(e pubsub.Event[note]) bool {
				switch e.Kind {
				case pubsub.EventSubscribed:
					ready.Done()
				case pubsub.EventMessage:
					if e.Message.N != next || e.Channel != "news."+name || (e.Publisher != "") == opt.Plain {
						t.Errorf("%s: %+v, want %d", name, e, next)
					}
					next++
				default:
					t.Errorf("%s: %+v", name, e)
				}
				return next == 100
			}))
		}
		ready.Wait()
		for i := range 100 {
			if n, err := topic.Publish(t.Context(), note{i}); n != 1 || err != nil {
				t.Fatalf("%d receivers, %v", n, err)
			}
		}
		for _, wait := range waits {
			wait()
		}
	}
}

func TestTopic_GapComesWithItsCount(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	far := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "t", pubsub.TopicOptions[note]{})
	source, _ := pubsub.NewTopic(far, "t", pubsub.TopicOptions[note]{})
	subscribed := make(chan struct{})
	var received, missed, gaps int
	wait := collect(t, topic.Subscribe(t.Context()), func(e pubsub.Event[note]) bool {
		switch e.Kind {
		case pubsub.EventSubscribed:
			close(subscribed)
		case pubsub.EventMessage:
			received++
		case pubsub.EventMissed:
			missed += e.N
		case pubsub.EventGap:
			if !e.Until.After(e.Since) {
				t.Errorf("%+v", e)
			}
			gaps++
		}
		return e.Kind == pubsub.EventMissed && received+missed >= 2000
	})
	<-subscribed
	const total = 2000
	for i := range total {
		if i%200 == 100 {
			srv.Do(t, "CLIENT", "KILL", "TYPE", "pubsub")
		}
		if _, err := source.Publish(t.Context(), note{i}); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 { // until the last gap is known
		time.Sleep(20 * time.Millisecond)
		_, _ = source.Publish(t.Context(), note{})
	}
	wait()
	t.Logf("%d received, %d missed in %d gaps", received, missed, gaps)
	if gaps == 0 || missed == 0 {
		t.Error("nothing was interrupted")
	}
}

func TestTopic_SlowSubscriberLosesItsOwnByItsRule(t *testing.T) {
	b := newBus(t, open(t), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "t", pubsub.TopicOptions[note]{})
	for name, rule := range map[string]pubsub.Overflow{"newest": pubsub.DropNewest, "oldest": pubsub.DropOldest, "block": pubsub.Block(50 * time.Millisecond)} {
		t.Run(name, func(t *testing.T) {
			goOn, ready := make(chan struct{}), make(chan struct{})
			var got []int
			dropped := 0
			wait := collect(t, topic.Subscribe(t.Context(), pubsub.WithQueue(10), pubsub.WithOverflow(rule)), func(e pubsub.Event[note]) bool {
				switch e.Kind {
				case pubsub.EventSubscribed:
					close(ready)
					<-goOn
				case pubsub.EventMessage:
					got = append(got, e.Message.N)
				case pubsub.EventDropped:
					dropped += e.N
				}
				return len(got)+dropped == 100
			})
			<-ready
			for i := range 100 {
				if _, err := topic.Publish(t.Context(), note{i}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(100 * time.Millisecond)
			close(goOn)
			wait()
			if dropped == 0 || name == "newest" && got[0] != 0 || name == "oldest" && got[len(got)-1] != 99 {
				t.Errorf("%v, %d dropped", got, dropped)
			}
		})
	}
	ready := make(chan struct{})
	var last error
	go func() {
		<-ready
		for i := range 100 {
			_, _ = topic.Publish(context.Background(), note{i})
		}
	}()
	for e, err := range topic.Subscribe(t.Context(), pubsub.WithQueue(10), pubsub.WithOverflow(pubsub.Disconnect)) {
		if last = err; e.Kind == pubsub.EventSubscribed && err == nil {
			close(ready)
			time.Sleep(200 * time.Millisecond)
		}
	}
	if !errors.Is(last, pubsub.ErrSlow) {
		t.Errorf("disconnect: %v", last)
	}
}

func TestRecoverable_EachMessageComesOnce(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	far := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	topic, _ := pubsub.NewRecoverable(b, "t", pubsub.RecoverableOptions[note]{History: 10000})
	source, _ := pubsub.NewRecoverable(far, "t", pubsub.RecoverableOptions[note]{History: 10000})
	subscribed := make(chan struct{})
	var once sync.Once
	next := 0
	var last pubsub.Position
	wait := collect(t, topic.Subscribe(t.Context(), pubsub.Position{}), func(e pubsub.Event[note]) bool {
		last = e.Position
		switch e.Kind {
		case pubsub.EventSubscribed:
			once.Do(func() { close(subscribed) })
		case pubsub.EventMessage:
			if e.Message.N != next {
				t.Errorf("got %d, want %d", e.Message.N, next)
			}
			next = e.Message.N + 1
		case pubsub.EventHistoryLost:
			t.Error("history lost")
		}
		return next == 1000
	})
	<-subscribed
	for i := range 1500 {
		if i%100 == 50 {
			srv.Do(t, "CLIENT", "KILL", "TYPE", "pubsub")
		}
		if _, err := source.Publish(t.Context(), note{i}); err != nil {
			t.Fatal(err)
		}
	}
	wait()
	again, err := pubsub.ParsePosition(last.String())
	if err != nil || again != last {
		t.Fatalf("%v %v", again, err)
	}
	wait = collect(t, topic.Subscribe(t.Context(), again), func(e pubsub.Event[note]) bool {
		if e.Kind == pubsub.EventMessage {
			if e.Message.N != next {
				t.Errorf("resumed: got %d, want %d", e.Message.N, next)
			}
			next++
		}
		return next == 1500
	})
	wait()
	srv.Do(t, "FLUSHALL")
	lost := false
	wait = collect(t, topic.Subscribe(t.Context(), again), func(e pubsub.Event[note]) bool {
		lost = lost || e.Kind == pubsub.EventHistoryLost && errors.Is(e.Err, pubsub.ErrHistoryLost)
		return e.Kind == pubsub.EventSubscribed
	})
	wait()
	if !lost {
		t.Error("a lost history was not notified")
	}
}

func TestOutbox_SendsInOrderWhenRedisIsBack(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, srv.Config()), pubsub.Options{Outbox: 50})
	topic, _ := pubsub.NewTopic(b, "t", pubsub.TopicOptions[note]{})
	ready := make(chan struct{})
	var once sync.Once
	var got []int
	wait := collect(t, topic.Subscribe(t.Context()), func(e pubsub.Event[note]) bool {
		switch e.Kind {
		case pubsub.EventSubscribed, pubsub.EventGap:
			once.Do(func() { close(ready) })
		case pubsub.EventMessage:
			got = append(got, e.Message.N)
			return e.Message.N == 49
		}
		return false
	})
	<-ready
	srv.Kill()
	testkit.Eventually(t, "the outbox is used", func() bool { // the very first may be sent into a connection that is dying
		_, err := topic.Publish(t.Context(), note{0})
		return errors.Is(err, pubsub.ErrQueued)
	})
	for i := 1; i < 60; i++ {
		_, err := topic.Publish(t.Context(), note{i})
		if want := map[bool]error{true: pubsub.ErrQueued, false: pubsub.ErrOutboxFull}[i < 50]; !errors.Is(err, want) {
			t.Errorf("%d: %v", i, err)
		}
	}
	srv.Restart()
	stop := make(chan struct{})
	defer close(stop)
	go func() { // until the subscription is back as well
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				_, _ = topic.Publish(context.Background(), note{49})
			}
		}
	}()
	wait()
	for i := 1; i < len(got); i++ {
		if got[i] < got[i-1] && got[i] != 49 {
			t.Errorf("out of order: %v", fmt.Sprint(got))
			break
		}
	}
}

// lines is a log that hands over what it writes.
type lines func(string)

func (l lines) Write(p []byte) (int, error) {
	l(string(p))
	return len(p), nil
}

func madcrowLog(to func(line string)) *slog.Logger {
	return slog.New(slog.NewTextHandler(lines(to), nil))
}
