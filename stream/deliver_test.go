package stream_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/stream"
)

// working runs Work until the test ends.
func working[T any](t *testing.T, s *stream.Stream[T], do func(context.Context, stream.Delivery[T]) error, options stream.WorkOptions) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Work(ctx, "g", do, options) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestPermanent_BecomesADeadLetterAtOnce(t *testing.T) {
	needStreams(t)
	var log testkit.Log
	dead := make(chan stream.DeadLetter[int], 10)
	s, err := stream.New(open(t), "s", stream.Options[int]{Logger: log.Logger(), OnDead: func(ctx context.Context, d stream.DeadLetter[int]) {
		if ctx.Err() != nil {
			t.Error(ctx.Err())
		}
		dead <- d
	}})
	if err != nil {
		t.Fatal(err)
	}
	if stream.Permanent(nil) != nil {
		t.Error("no error became one")
	}
	var tries atomic.Int32
	why := errors.New("no such product")
	working(t, s, func(context.Context, stream.Delivery[int]) error {
		tries.Add(1)
		return fmt.Errorf("order: %w", stream.Permanent(why))
	}, stream.WorkOptions{})
	id, err := s.Publish(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	d := <-dead
	if d.Group != "g" || d.Original != id || d.Message != 7 || d.Reason != "order: no such product" || d.Deliveries != 1 || tries.Load() != 1 {
		t.Errorf("%+v after %d tries", d, tries.Load())
	}
	list, err := s.Dead(t.Context(), "g", "", 10)
	if err != nil || len(list) != 1 || list[0].ID != d.ID || list[0].Group != "g" || list[0].Raw != d.Raw {
		t.Errorf("%+v %v", list, err)
	}
	log.Await(t, 1, "became a dead letter", 5*time.Second)
	if line := log.With("became a dead letter")[0]; !strings.Contains(line, "level=ERROR") || !strings.Contains(line, "stream=s group=g id="+id) || !strings.Contains(line, "no such product") {
		t.Error(line)
	}
	if !errors.Is(fmt.Errorf("x: %w", stream.Permanent(why)), why) {
		t.Error("the cause is not found")
	}
}

// A hook that panics or ends its goroutine harms no message.
func TestOnDead_MayPanic(t *testing.T) {
	needStreams(t)
	var log testkit.Log
	s, err := stream.New(open(t), "s", stream.Options[string]{Logger: log.Logger(), OnDead: func(context.Context, stream.DeadLetter[string]) { panic("the pager is off") }})
	if err != nil {
		t.Fatal(err)
	}
	working(t, s, func(context.Context, stream.Delivery[string]) error { return stream.Permanent(errors.New("why")) }, stream.WorkOptions{Workers: 1})
	for range 3 {
		if _, err := s.Publish(t.Context(), "m"); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, "all are put aside", func() bool {
		l, err := s.Lag(t.Context(), "g")
		return err == nil && l.Dead == 3 && l.Pending == 0
	})
	log.Await(t, 3, "the pager is off", 5*time.Second)
}

func TestWork_TimeoutEndsTheContextOfADelivery(t *testing.T) {
	needStreams(t)
	s, err := stream.New(open(t), "s", stream.Options[int]{})
	if err != nil {
		t.Fatal(err)
	}
	var took atomic.Int64
	working(t, s, func(ctx context.Context, d stream.Delivery[int]) error {
		begin := time.Now()
		<-ctx.Done()
		took.Store(int64(time.Since(begin)))
		return ctx.Err()
	}, stream.WorkOptions{Timeout: 100 * time.Millisecond, MaxDeliveries: 1})
	if _, err := s.Publish(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "a dead letter", func() bool {
		l, err := s.Lag(t.Context(), "g")
		return err == nil && l.Dead == 1
	})
	if d := time.Duration(took.Load()); d < 90*time.Millisecond || d > testkit.Slack(200*time.Millisecond) {
		t.Errorf("the context ended after %v", d)
	}
	list, err := s.Dead(t.Context(), "g", "", 1)
	if err != nil || len(list) != 1 || list[0].Reason != context.DeadlineExceeded.Error() {
		t.Errorf("%+v %v", list, err)
	}
}

// A worker that hung held its place until the process ended, and its message with
// it.
func TestWork_AWorkerThatIgnoresItsTimeoutIsGivenUp(t *testing.T) {
	needStreams(t)
	var log testkit.Log
	s, err := stream.New(open(t), "s", stream.Options[int]{Logger: log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	letGo := sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo)
	var tries, others atomic.Int32
	working(t, s, func(_ context.Context, d stream.Delivery[int]) error {
		if d.Message != 1 {
			others.Add(1)
			return nil
		}
		if tries.Add(1) == 1 {
			<-release
		}
		return nil
	}, stream.WorkOptions{Workers: 1, Timeout: 50 * time.Millisecond, RetryDelay: 50 * time.Millisecond})
	for _, n := range []int{1, 2} {
		if _, err := s.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, "both are done", func() bool {
		l, err := s.Lag(t.Context(), "g")
		return err == nil && l.Pending == 0 && l.Waiting == 0 && others.Load() == 1 && tries.Load() == 2
	})
	if lines := log.With("ignores the end of its context"); len(lines) != 1 || !strings.Contains(lines[0], "level=ERROR") {
		t.Error(lines)
	}
	letGo()
	log.Await(t, 1, "ignored its time-out has returned", 5*time.Second)
}

// Goroutines of workers that hang do not pile up.
func TestWork_NoMoreThanWorkersAreGivenUp(t *testing.T) {
	needStreams(t)
	s, err := stream.New(open(t), "s", stream.Options[int]{})
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	var hanging atomic.Int32
	working(t, s, func(context.Context, stream.Delivery[int]) error {
		hanging.Add(1)
		<-release
		return nil
	}, stream.WorkOptions{Workers: 2, Timeout: 10 * time.Millisecond})
	for n := range 20 {
		if _, err := s.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, "four hang", func() bool { return hanging.Load() == 4 })
	time.Sleep(2500 * time.Millisecond)
	if n := hanging.Load(); n != 4 {
		t.Errorf("%d hang", n)
	}
	close(release)
	testkit.Eventually(t, "all are done", func() bool {
		l, err := s.Lag(t.Context(), "g")
		return err == nil && l.Pending == 0 && l.Waiting == 0
	})
}

// Many failures at once do not flood the log, and are counted there.
func TestWork_FailuresAreLoggedAndFloodsCounted(t *testing.T) {
	needStreams(t)
	var log testkit.Log
	s, err := stream.New(open(t), "s", stream.Options[int]{Logger: log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	const n = 100
	for i := range n {
		if _, err := s.Publish(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Work(ctx, "g", func(_ context.Context, d stream.Delivery[int]) error {
			return fmt.Errorf("no %d", d.Message)
		}, stream.WorkOptions{MaxDeliveries: 2, RetryDelay: 10 * time.Millisecond})
	}()
	testkit.Eventually(t, "all are put aside", func() bool {
		l, err := s.Lag(t.Context(), "g")
		return err == nil && l.Dead == n && l.Pending == 0
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	failed, dead := log.With("a message failed and is tried again"), log.With("a message became a dead letter")
	more, moreDead := log.With("more messages failed"), log.With("more messages became dead letters")
	if len(failed) == 0 || len(failed) > 60 || len(dead) == 0 || len(dead) > 60 || len(more) == 0 || len(moreDead) == 0 {
		t.Fatalf("%d %d %q %q", len(failed), len(dead), more, moreDead)
	}
	if line := failed[0]; !strings.Contains(line, "level=WARN") || !strings.Contains(line, "delivery=1") || !strings.Contains(line, "next_try=10ms") || !strings.Contains(line, "stream=s group=g id=") {
		t.Error(line)
	}
	left := 0
	for _, line := range moreDead {
		var k int
		if _, err := fmt.Sscanf(line[strings.LastIndex(line, " n=")+1:], "n=%d", &k); err != nil {
			t.Error(line, err)
		}
		left += k
	}
	if len(dead)+left != n {
		t.Errorf("%d dead letters logged, and %d counted, of %d", len(dead), left, n)
	}
}

// watcher is a Recorder that is a Tracer.
type watcher struct {
	madcrow.NopRecorder
	mu     sync.Mutex
	events []madcrow.Event
	spans  []string
}

type spanKey struct{}

func (w *watcher) Event(_ context.Context, e madcrow.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *watcher) Start(ctx context.Context, s madcrow.Span) (context.Context, func(error)) {
	return context.WithValue(ctx, spanKey{}, s.Op), func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.spans = append(w.spans, fmt.Sprint(s.Op, " ", s.Name, " ", err))
	}
}

func TestWork_DeliveriesAreSpansAndEventsHaveDurationsAndReasons(t *testing.T) {
	needStreams(t)
	cfg, rec := config, &watcher{}
	cfg.KeyPrefix, cfg.Recorder = t.Name()+":", rec
	s, err := stream.New(openConfig(t, cfg), "s", stream.Options[string]{})
	if err != nil {
		t.Fatal(err)
	}
	working(t, s, func(ctx context.Context, d stream.Delivery[string]) error {
		if ctx.Value(spanKey{}) != "stream.deliver" {
			t.Error("the worker is outside of the span")
		}
		time.Sleep(5 * time.Millisecond)
		switch d.Message {
		case "permanent":
			return stream.Permanent(errors.New("no"))
		case "panic":
			panic("no")
		case "error":
			return errors.New("no")
		case "timeout":
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}, stream.WorkOptions{MaxDeliveries: 1, Timeout: 100 * time.Millisecond})
	kinds := []string{"permanent", "panic", "error", "timeout", "fine"}
	for _, m := range kinds {
		if _, err := s.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, "all are settled", func() bool {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		return len(rec.spans) == len(kinds)
	})
	rec.mu.Lock()
	defer rec.mu.Unlock()
	reasons := map[string]int{}
	for _, e := range rec.events {
		switch e.Type {
		case madcrow.EventStreamFailed:
			reasons[e.Reason]++
			if e.Err == nil {
				t.Errorf("%+v has no cause", e)
			}
		case madcrow.EventStreamDone:
			reasons["fine"]++
		default:
			continue
		}
		if e.Name != "s" || e.Duration < 5*time.Millisecond {
			t.Errorf("%+v", e)
		}
	}
	for _, m := range kinds {
		if reasons[m] != 1 {
			t.Errorf("%s: %v", m, reasons)
		}
	}
	if !slices.Contains(rec.spans, "stream.deliver s <nil>") || !slices.Contains(rec.spans, "stream.deliver s no") {
		t.Error(rec.spans)
	}
}

// A time-out so long that its end with the overtime cannot be computed had every worker
// given up at once.
func TestWork_TheLongestTimeoutGivesNoWorkerUp(t *testing.T) {
	needStreams(t)
	s, err := stream.New(open(t), "s", stream.Options[int]{})
	if err != nil {
		t.Fatal(err)
	}
	var tries atomic.Int32
	working(t, s, func(context.Context, stream.Delivery[int]) error {
		tries.Add(1)
		time.Sleep(300 * time.Millisecond)
		return nil
	}, stream.WorkOptions{Timeout: math.MaxInt64, RetryDelay: 10 * time.Millisecond})
	if _, err := s.Publish(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "it is done", func() bool {
		l, err := s.Lag(t.Context(), "g")
		return err == nil && tries.Load() > 0 && l.Pending == 0 && l.Waiting == 0
	})
	if n := tries.Load(); n != 1 {
		t.Errorf("%d tries", n)
	}
}

// Workers that are given up do not flood the log, and are counted there.
func TestWork_WorkersThatAreGivenUpDoNotFloodTheLog(t *testing.T) {
	needStreams(t)
	var log testkit.Log
	s, err := stream.New(open(t), "s", stream.Options[int]{Logger: log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	const n = 60
	release := make(chan struct{})
	letGo := sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo)
	for i := range n {
		if _, err := s.Publish(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Work(ctx, "g", func(context.Context, stream.Delivery[int]) error {
			<-release
			return nil
		}, stream.WorkOptions{Workers: n, Timeout: time.Millisecond, MaxDeliveries: 1})
	}()
	testkit.Eventually(t, "all are given up", func() bool {
		l, err := s.Lag(t.Context(), "g")
		return err == nil && l.Dead == n
	})
	letGo()
	time.Sleep(200 * time.Millisecond)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	given, back := log.With("ignores the end of its context"), log.With("ignored its time-out has returned")
	more := log.With("more workers ignore")
	if len(given) == 0 || len(given) > 40 || len(back) == 0 || len(back) > 40 || len(more) == 0 {
		t.Errorf("%d lines, %d of those that returned, %q", len(given), len(back), more)
	}
}
