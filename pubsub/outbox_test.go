package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
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

// sender is a bus whose Redis can be taken away, and somebody who listens on a
// connection that stays.
type sender struct {
	r     *madcrow.Redis
	b     *pubsub.Bus
	topic *pubsub.Topic[note]
	proxy *madcrowtest.Proxy
	ear   *ear[pubsub.Event[note]]
}

func newSender(t *testing.T, outbox int, change func(*madcrow.Config)) *sender {
	srv := madcrowtest.StartRedis(t)
	s := &sender{proxy: madcrowtest.StartProxy(t, srv.Addr())}
	cfg := srv.Config()
	s.ear = hearing(t, subscribeTo(topicOf(t, newBus(t, openConfig(t, cfg), pubsub.Options{}), "t", pubsub.TopicOptions[note]{}), pubsub.WithQueue(100_000)))
	s.ear.next(t, "subscribed", is[note](pubsub.EventSubscribed))
	cfg.Port = s.proxy.Port()
	if change != nil {
		change(&cfg)
	}
	s.r = openConfig(t, cfg)
	s.b = newBus(t, s.r, pubsub.Options{Outbox: outbox})
	s.topic = topicOf(t, s.b, "t", pubsub.TopicOptions[note]{})
	return s
}

func (s *sender) away(yes bool) {
	s.proxy.Refuse(yes)
	if yes {
		s.proxy.ResetAll()
	}
}

// Each of many goroutines publishes in order through several outages, and that
// is the order in which its messages arrive, each once.
func TestOutbox_KeepsTheOrderOfEachGoroutine(t *testing.T) {
	s := newSender(t, 100_000, nil)
	const hands = 8
	var stop atomic.Bool
	var wg sync.WaitGroup
	var last, queued [hands]int
	var unknown [hands]map[int]bool
	for h := range hands {
		unknown[h] = map[int]bool{}
		wg.Go(func() {
			for n := 1; !stop.Load(); n++ {
				_, err := s.topic.Publish(t.Context(), note{h<<20 + n})
				switch {
				case errors.Is(err, pubsub.ErrQueued):
					queued[h]++
				case err != nil:
					unknown[h][n] = true
				}
				last[h] = n
				time.Sleep(200 * time.Microsecond)
			}
		})
	}
	defer stop.Store(true)
	other := topicOf(t, s.b, "other", pubsub.TopicOptions[note]{})
	for range 3 {
		time.Sleep(50 * time.Millisecond)
		s.away(true)
		time.Sleep(100 * time.Millisecond)
		s.away(false)
		testkit.Eventually(t, "Redis is back and the outbox empty", func() bool {
			_, err := other.Publish(t.Context(), note{})
			return err == nil
		})
	}
	stop.Store(true)
	wg.Wait()
	if err := s.b.Close(t.Context()); err != nil { // sends the rest
		t.Error(err)
	}
	var next [hands]int
	missing := 0
	for h := range hands {
		for len(unknown[h]) < last[h] && next[h] < last[h] && !unknown[h][last[h]] {
			e := s.ear.next(t, "a message", func(e pubsub.Event[note]) bool { return e.Kind == pubsub.EventMessage })
			h, n := e.Message.N>>20, e.Message.N&(1<<20-1)
			for next[h]++; next[h] < n; next[h]++ {
				if !unknown[h][next[h]] {
					t.Fatalf("%d: %d after %d", h, n, next[h]-1)
				}
				missing++
			}
			if n < next[h] {
				t.Fatalf("%d: %d came after %d", h, n, next[h]-1)
			}
		}
	}
	t.Logf("%v published, %v of them by the outbox; %d of an unknown outcome did not come", last, queued, missing)
	if queued[0] == 0 {
		t.Error("nothing was queued")
	}
}

// Everything that was taken while the bus is being closed is sent, or counted by
// Close, and afterwards nothing is taken.
func TestOutbox_CloseLosesNothingUncounted(t *testing.T) {
	for _, back := range []bool{true, false} {
		s := newSender(t, 1_000_000, nil)
		s.away(true)
		testkit.Eventually(t, "the outbox is used", func() bool {
			_, err := s.topic.Publish(t.Context(), note{})
			return errors.Is(err, pubsub.ErrQueued)
		})
		var taken, unknown atomic.Int64
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for {
					_, err := s.topic.Publish(t.Context(), note{})
					switch {
					case err == nil, errors.Is(err, pubsub.ErrQueued):
						taken.Add(1)
					case errors.Is(err, pubsub.ErrClosed):
						return
					default:
						unknown.Add(1)
					}
					time.Sleep(100 * time.Microsecond)
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		if back {
			s.away(false)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			for st := range s.r.Watch(ctx) {
				if st.State == madcrow.StateUp {
					break
				}
			}
			cancel()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		start := time.Now()
		err := s.b.Close(ctx)
		took := time.Since(start)
		cancel()
		wg.Wait()
		left := 0
		if err != nil {
			if _, scan := fmt.Sscanf(err.Error(), "pubsub: %d messages", &left); scan != nil || !errors.Is(err, pubsub.ErrClosed) {
				t.Errorf("%v", err)
			}
		}
		if !back && (left == 0 || took > 2*time.Second) {
			t.Errorf("without Redis: %d left after %v", left, took)
		}
		if _, err := s.topic.Publish(t.Context(), note{}); !errors.Is(err, pubsub.ErrClosed) {
			t.Errorf("published after Close: %v", err)
		}
		// The one that found the outbox in use, and perhaps some of before it.
		testkit.Eventually(t, "all that were taken are accounted for", func() bool {
			return int64(len(s.ear.events)+left) >= taken.Load()+1
		})
		time.Sleep(20 * time.Millisecond)
		t.Logf("back %v: %d taken, %d heard, %d counted by Close in %v, %d unknown", back, taken.Load(), len(s.ear.events), left, took, unknown.Load())
	}
}

// What can never be sent is refused at once, also while others wait.
func TestOutbox_TakesNothingThatCannotBeSent(t *testing.T) {
	s := newSender(t, 2, func(cfg *madcrow.Config) { cfg.MaxValueSize = 1000 })
	s.away(true)
	testkit.Eventually(t, "the outbox is used", func() bool {
		_, err := s.topic.Publish(t.Context(), note{})
		return errors.Is(err, pubsub.ErrQueued)
	})
	big := topicOf(t, s.b, "t", pubsub.TopicOptions[string]{})
	if _, err := big.Publish(t.Context(), string(make([]byte, 2000))); !errors.Is(err, madcrow.ErrTooLarge) {
		t.Errorf("%v", err)
	}
	testkit.Eventually(t, "the outbox is full", func() bool {
		_, err := s.topic.Publish(t.Context(), note{})
		return errors.Is(err, pubsub.ErrOutboxFull)
	})
}

// The outbox took messages that fitted without their envelope, and could never send
// them. They must be refused at once.
func TestOutbox_RefusesMessagesThatTheEnvelopeMakesTooLarge(t *testing.T) {
	events := &counter{}
	s := newSender(t, 10_000, func(cfg *madcrow.Config) { cfg.MaxValueSize, cfg.Recorder = 1000, events })
	s.away(true)
	queued := 0
	testkit.Eventually(t, "the outbox is used", func() bool {
		_, err := s.topic.Publish(t.Context(), note{})
		if errors.Is(err, pubsub.ErrQueued) {
			queued++
		}
		return queued > 0
	})
	text := topicOf(t, s.b, "t", pubsub.TopicOptions[string]{})
	for size := 800; size < 1100; size++ {
		switch _, err := text.Publish(t.Context(), strings.Repeat("x", size)); {
		case errors.Is(err, pubsub.ErrQueued):
			queued++
		case err == nil:
			t.Errorf("%d bytes were sent", size)
		case !errors.Is(err, madcrow.ErrTooLarge) && size >= 1000:
			t.Errorf("%d bytes: %v", size, err)
		}
		// A small one between two is not lost with them.
		if _, err := s.topic.Publish(t.Context(), note{size}); !errors.Is(err, pubsub.ErrQueued) {
			t.Fatal(err)
		}
		queued++
	}
	s.away(false)
	for n := range queued {
		s.ear.next(t, fmt.Sprintf("number %d of %d that were taken, %d are lost", n, queued, events.count("outbox_lost")), is[note](pubsub.EventMessage))
	}
	if n := events.count("outbox_lost"); n > 0 || queued < 420 {
		t.Errorf("%d were taken, %d are lost", queued, n)
	}
}

// The outbox is bounded in bytes too: 500 messages of 1 MB were 500 MB.
func TestOutbox_IsBoundedInBytes(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	proxy := madcrowtest.StartProxy(t, srv.Addr())
	cfg := srv.Config()
	heard := hearing(t, subscribeTo(topicOf(t, newBus(t, openConfig(t, cfg), pubsub.Options{}), "t", pubsub.TopicOptions[string]{})))
	heard.next(t, "subscribed", is[string](pubsub.EventSubscribed))
	cfg.Port = proxy.Port()
	r := openConfig(t, cfg)
	topic := topicOf(t, newBus(t, r, pubsub.Options{Outbox: 1000, OutboxBytes: 10_000}), "t", pubsub.TopicOptions[string]{})
	proxy.Refuse(true)
	proxy.ResetAll()
	testkit.Eventually(t, "Redis is away", func() bool { return r.Err() != nil })
	text := strings.Repeat("x", 900)
	queued := 0
	testkit.Eventually(t, "the outbox is full", func() bool {
		_, err := topic.Publish(t.Context(), text)
		switch full, waits := errors.Is(err, pubsub.ErrOutboxFull), errors.Is(err, pubsub.ErrQueued); {
		case full && waits:
			t.Fatal("it is not queued where the outbox is full") // it said both
		case waits:
			queued++
		}
		return errors.Is(err, pubsub.ErrOutboxFull)
	})
	if queued < 5 || queued > 11 {
		t.Errorf("%d of 900 bytes in 10,000", queued)
	}
	proxy.Refuse(false)
	for range queued {
		heard.next(t, "what was queued", is[string](pubsub.EventMessage))
	}
	testkit.Eventually(t, "there is room again", func() bool {
		_, err := topic.Publish(t.Context(), "y")
		return err == nil
	})
}

// A message that waits in the outbox will be sent: an error that said that it was
// not sent, and may be sent again, would have it delivered again.
func TestOutbox_QueuedMessagesAreNotRetryable(t *testing.T) {
	s := newSender(t, 10, nil)
	s.away(true)
	testkit.Eventually(t, "a message waits", func() bool {
		_, err := s.topic.Publish(t.Context(), note{1})
		return errors.Is(err, pubsub.ErrQueued)
	})
	_, err := s.topic.Publish(t.Context(), note{2}) // behind it
	var e *madcrow.Error
	if !errors.Is(err, pubsub.ErrQueued) || !errors.As(err, &e) || e.NotSent() || e.Retryable() {
		t.Errorf("%v: %+v", err, e)
	}
	s.away(false)
}

// pipelines notes how many commands the largest call had.
type pipelines struct {
	madcrow.NopRecorder
	calls, largest atomic.Int64
}

func (p *pipelines) Operation(_ context.Context, o madcrow.Operation) {
	p.calls.Add(1)
	for n := int64(o.Commands); ; {
		if have := p.largest.Load(); n <= have || p.largest.CompareAndSwap(have, n) {
			return
		}
	}
}

// With the smallest BulkThreshold the size of a batch had no bound.
func TestOutbox_SmallestBulkThresholdBoundsABatch(t *testing.T) {
	seen := &pipelines{}
	s := newSender(t, 1000, func(c *madcrow.Config) { c.BulkThreshold, c.Recorder = 1, seen })
	s.away(true)
	const n = 40
	for i := 0; i < n; i++ {
		if _, err := s.topic.Publish(t.Context(), note{i}); !errors.Is(err, pubsub.ErrQueued) {
			time.Sleep(time.Millisecond) // its connection was not closed yet
			i--
		}
	}
	s.away(false)
	s.ear.next(t, "the last message", func(e pubsub.Event[note]) bool { return e.Kind == pubsub.EventMessage && e.Message == note{n - 1} })
	if seen.calls.Load() < n || seen.largest.Load() != 1 {
		t.Errorf("up to %d messages together, %d calls", seen.largest.Load(), seen.calls.Load())
	}
}

// What waits for several topics is sent in the order in which it came, each once, to
// those with a history too.
func TestOutbox_HoldsMessagesOfRecoverableTopics(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	proxy := madcrowtest.StartProxy(t, srv.Addr())
	cfg := srv.Config()
	listening := newBus(t, openConfig(t, cfg), pubsub.Options{})
	feedOf := func(b *pubsub.Bus) *pubsub.Recoverable[int] {
		feed, err := pubsub.NewRecoverable(b, "feed", pubsub.RecoverableOptions[int]{})
		if err != nil {
			t.Fatal(err)
		}
		return feed
	}
	heard := hearing(t, func(ctx context.Context) iter.Seq2[pubsub.Event[int], error] {
		return feedOf(listening).Subscribe(ctx, pubsub.Beginning)
	})
	heard.next(t, "subscribed", is[int](pubsub.EventSubscribed))
	live := hearing(t, subscribeTo(topicOf(t, listening, "t", pubsub.TopicOptions[int]{})))
	live.next(t, "subscribed", is[int](pubsub.EventSubscribed))

	cfg.Port = proxy.Port()
	r := openConfig(t, cfg)
	b := newBus(t, r, pubsub.Options{Outbox: 100})
	feed, topic := feedOf(b), topicOf(t, b, "t", pubsub.TopicOptions[int]{})
	proxy.Refuse(true)
	proxy.ResetAll()
	testkit.Eventually(t, "Redis is away", func() bool { return r.Err() != nil })
	for n := range 40 {
		at, err := feed.Publish(t.Context(), n)
		var e *madcrow.Error
		if !errors.Is(err, pubsub.ErrQueued) || at != (pubsub.Position{}) || !errors.As(err, &e) || e.Retryable() {
			t.Fatalf("%d: %v %v", n, at, err)
		}
		if _, err := topic.Publish(t.Context(), n); !errors.Is(err, pubsub.ErrQueued) {
			t.Fatal(err)
		}
	}
	proxy.Refuse(false)
	for n := range 40 {
		if e := heard.next(t, "what was queued", is[int](pubsub.EventMessage)); e.Message != n || e.Position.Offset != uint64(n)+1 {
			t.Fatalf("%+v, want %d", e, n)
		}
		if e := live.next(t, "what was queued", is[int](pubsub.EventMessage)); e.Message != n {
			t.Fatalf("%+v, want %d", e, n)
		}
	}
	testkit.Eventually(t, "the outbox is empty", func() bool {
		at, err := feed.Publish(t.Context(), 40)
		return err == nil && at.Offset > 40
	})
}
