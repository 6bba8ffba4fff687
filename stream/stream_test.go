package stream_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/stream"
)

// shop is a stream on a server of its own.
type shop struct {
	*stream.Stream[int]
	srv    *madcrowtest.Server
	r      *madcrow.Redis
	events *counter
}

const shopLog = "m1:stream:{s}:log"

func openShop(t testing.TB, opt stream.Options[int]) *shop {
	needStreams(t)
	t.Helper()
	srv := madcrowtest.StartRedis(t)
	s := &shop{srv: srv, events: &counter{}}
	cfg := srv.Config()
	cfg.Recorder = s.events
	s.r = openConfig(t, cfg)
	var err error
	if s.Stream, err = stream.New(s.r, "s", opt); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *shop) order(t testing.TB, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		if _, err := s.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
}

// work begins to work, and returns what ends it.
func (s *shop) work(t testing.TB, do func(context.Context, stream.Delivery[int]) error, opt stream.WorkOptions) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Work(ctx, "g", do, opt) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("work: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (s *shop) lag(t testing.TB) stream.Lag {
	t.Helper()
	lag, err := s.Lag(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	return lag
}

func (s *shop) done(t testing.TB) {
	t.Helper()
	testkit.Eventually(t, "everything is done", func() bool {
		l, err := s.Lag(t.Context(), "g") // also while Redis is coming back
		return err == nil && l.Pending == 0 && l.Waiting == 0
	})
}

func hasGroup(t testing.TB, srv *madcrowtest.Server) bool {
	t.Helper()
	groups, _ := srv.Do(t, "XINFO", "GROUPS", shopLog).([]any)
	return len(groups) == 1
}

// crash is a process that takes messages and is never heard of again.
func (s *shop) crash(t testing.TB, name string, n int) {
	t.Helper()
	s.srv.Do(t, "XGROUP", "CREATE", shopLog, "g", "0", "MKSTREAM")
	s.srv.Do(t, "XREADGROUP", "GROUP", "g", name, "COUNT", fmt.Sprint(n), "STREAMS", shopLog, ">")
}

// A message that failed was tried again only after the read that blocked in Redis.
func TestWork_RetriesDoNotWaitForABlockedRead(t *testing.T) {
	s := openShop(t, stream.Options[int]{})
	s.order(t, 1, 200)
	var tries atomic.Int64
	start := time.Now()
	s.work(t, func(_ context.Context, d stream.Delivery[int]) error {
		tries.Add(1)
		if d.Deliveries == 1 {
			return errors.New("not yet")
		}
		return nil
	}, stream.WorkOptions{RetryDelay: 20 * time.Millisecond})
	s.done(t)
	t.Logf("200 failures made good after %v", time.Since(start))
	if d := time.Since(start); d > 5*time.Second || tries.Load() != 400 {
		t.Errorf("%d tries in %v", tries.Load(), d)
	}
}

// A message that is trimmed while it is pending is let go of, with its reason.
func TestStream_TrimmedMessagesAreReleased(t *testing.T) {
	s := openShop(t, stream.Options[int]{})
	s.order(t, 1, 10)
	s.crash(t, "crashed", 10)
	s.srv.Do(t, "XTRIM", shopLog, "MAXLEN", "4")
	var done atomic.Int64
	s.work(t, func(context.Context, stream.Delivery[int]) error {
		done.Add(1)
		return nil
	}, stream.WorkOptions{ClaimAfter: 100 * time.Millisecond})
	s.done(t)
	if done.Load() != 4 || s.events.count("trimmed") != 6 || s.lag(t).Dead != 0 {
		t.Errorf("%d done, %d trimmed, %+v", done.Load(), s.events.count("trimmed"), s.lag(t))
	}
}

// After FLUSHALL the group is made again, and what is published after that is
// not passed over, also by a group that began with the present.
func TestStream_GoesOnAfterFlushAll(t *testing.T) {
	t.Parallel()
	for _, fromNow := range []bool{false, true} {
		s := openShop(t, stream.Options[int]{})
		s.order(t, 1, 5)
		var mu sync.Mutex
		got := map[int]int{}
		s.work(t, func(_ context.Context, d stream.Delivery[int]) error {
			mu.Lock()
			defer mu.Unlock()
			got[d.Message]++
			return nil
		}, stream.WorkOptions{FromNow: fromNow})
		testkit.Eventually(t, "the group", func() bool { return hasGroup(t, s.srv) })
		for round := range 5 {
			s.order(t, 10*round+10, 10*round+14)
			testkit.Eventually(t, "all are done", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return got[10*round+14] > 0
			})
			s.srv.Do(t, "FLUSHALL")
			s.order(t, 10*round+15, 10*round+19)
			testkit.Eventually(t, "all after FLUSHALL are done", func() bool {
				mu.Lock()
				defer mu.Unlock()
				n := 0
				for k := 10*round + 15; k < 10*round+20; k++ {
					n += got[k]
				}
				return n == 5
			})
		}
		if (got[1] == 0) != fromNow {
			t.Errorf("from now %v: %v", fromNow, got)
		}
	}
}

// An acknowledgement was lost when Redis stood still, so that the message was done
// again. It is repeated until Redis goes on.
func TestWork_AckOutlivesAnOutage(t *testing.T) {
	s := openShop(t, stream.Options[int]{})
	s.order(t, 1, 20)
	var done atomic.Int64
	goOn := make(chan struct{})
	s.work(t, func(context.Context, stream.Delivery[int]) error {
		<-goOn
		done.Add(1)
		return nil
	}, stream.WorkOptions{Workers: 20})
	testkit.Eventually(t, "all are in hand", func() bool { return s.lag(t).Pending == 20 })
	s.srv.Pause()
	close(goOn)
	time.Sleep(long(1500*time.Millisecond, 8*time.Second))
	s.srv.Resume()
	s.done(t)
	if done.Load() != 20 || s.events.count("ack_lost") != 0 {
		t.Errorf("%d done, %d acknowledgements lost", done.Load(), s.events.count("ack_lost"))
	}
}

// Whatever there is to wait for, waiting is not busy: with everything pending
// elsewhere, with Redis away, and with nothing to do.
func TestStream_WaitingIsNotBusy(t *testing.T) {
	s := openShop(t, stream.Options[int]{})
	s.order(t, 1, 500)
	s.crash(t, "another", 500)
	stop := s.work(t, func(context.Context, stream.Delivery[int]) error { return nil }, stream.WorkOptions{ClaimAfter: time.Minute})
	time.Sleep(100 * time.Millisecond)
	calls := func(what string, most int64) {
		t.Helper()
		before := s.events.calls.Load()
		time.Sleep(time.Second)
		n := s.events.calls.Load() - before
		t.Logf("%s: %d calls in a second", what, n)
		if n > most {
			t.Errorf("%s: %d calls in a second", what, n)
		}
	}
	calls("everything is pending", 5)
	stop()
	s.srv.Do(t, "FLUSHALL")
	blocked := make(chan struct{})
	s.order(t, 1, 1)
	s.work(t, func(context.Context, stream.Delivery[int]) error {
		<-blocked
		return nil
	}, stream.WorkOptions{ClaimAfter: 600 * time.Millisecond, RetryDelay: time.Millisecond})
	time.Sleep(100 * time.Millisecond)
	calls("one is worked on, and could fail at any moment", 60)
	s.srv.Kill()
	time.Sleep(100 * time.Millisecond)
	calls("Redis is away", 30)
	s.srv.Restart()
	close(blocked)
}

// At the end what is under way is finished, and nothing new begun; what takes
// too long comes again elsewhere.
func TestStream_EndFinishesWhatIsUnderWay(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := openShop(t, stream.Options[int]{})
	s.order(t, 1, 10)
	begun, goOn := make(chan int, 10), make(chan struct{})
	var done atomic.Int64
	opt := stream.WorkOptions{Workers: 3, DrainTimeout: 10 * time.Second}
	do := func(ctx context.Context, d stream.Delivery[int]) error {
		begun <- d.Message
		<-goOn
		if ctx.Err() == nil {
			done.Add(1)
		}
		return ctx.Err()
	}
	stop := s.work(t, do, opt)
	for range 3 {
		<-begun
	}
	time.AfterFunc(200*time.Millisecond, func() { close(goOn) })
	stop()
	if l := s.lag(t); done.Load() != 3 || len(begun) != 0 || l.Pending != 0 || l.Waiting != 7 || l.Workers != 0 {
		t.Errorf("%d done, %d begun, %+v", done.Load(), len(begun), l)
	}
	goOn = make(chan struct{})
	opt.DrainTimeout = 50 * time.Millisecond
	stop = s.work(t, do, opt)
	for range 3 {
		<-begun
	}
	stop() // gives up on them
	if l := s.lag(t); l.Pending != 3 || l.Workers != 1 {
		t.Errorf("what was given up: %+v", l)
	}
	close(goOn)
}

func TestStream_EachMessageIsDoneAndPoisonBecomesADeadLetter(t *testing.T) {
	needStreams(t)
	s, err := stream.New(open(t), "jobs", stream.Options[note]{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if _, err := s.Publish(t.Context(), note{i}); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	done := map[int]int{}
	var tries atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	finished := make(chan error, 2)
	for range 2 {
		go func() {
			finished <- s.Work(ctx, "g", func(_ context.Context, d stream.Delivery[note]) error {
				if d.Message.N == 13 {
					tries.Add(1)
					return errors.New("poison")
				}
				if d.Message.N%50 == 7 && d.Deliveries == 1 {
					panic("once")
				}
				mu.Lock()
				done[d.Message.N]++
				mu.Unlock()
				return nil
			}, stream.WorkOptions{ClaimAfter: 200 * time.Millisecond, RetryDelay: 20 * time.Millisecond, MaxDeliveries: 3})
		}()
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		mu.Lock()
		n := len(done)
		mu.Unlock()
		lag, err := s.Lag(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		if n == 199 && lag.Dead == 1 && lag.Pending == 0 && lag.Waiting == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d done, %+v", n, lag)
		}
	}
	cancel()
	for range 2 {
		if err := <-finished; err != nil {
			t.Error(err)
		}
	}
	if tries.Load() != 3 {
		t.Errorf("poison was tried %d times", tries.Load())
	}
	dead, err := s.Dead(t.Context(), "g", "", 10)
	if err != nil || len(dead) != 1 || dead[0].Message.N != 13 || dead[0].Reason != "poison" || dead[0].Deliveries != 3 {
		t.Fatalf("%+v %v", dead, err)
	}
	if ok, err := s.Replay(t.Context(), "g", dead[0].ID); !ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	if lag, err := s.Lag(t.Context(), "g"); err != nil || lag.Dead != 0 || lag.Waiting != 1 || lag.Workers != 0 {
		t.Errorf("%+v %v", lag, err)
	}
}

// Close ends Work also while it waits for a Redis that is away.
func TestStream_CloseEndsWork(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := openShop(t, stream.Options[int]{})
	ended := make(chan error, 1)
	go func() {
		ended <- s.Work(t.Context(), "g", func(context.Context, stream.Delivery[int]) error { return nil }, stream.WorkOptions{})
	}()
	testkit.Eventually(t, "the group", func() bool { return hasGroup(t, s.srv) })
	s.srv.Kill()
	_ = s.Close(t.Context())
	if err := <-ended; !errors.Is(err, stream.ErrClosed) {
		t.Errorf("work: %v", err)
	}
}
