package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// What a crashed process had is done by another one, at its own pace: never more
// at a time than Workers. Then nothing is left of it.
func TestStream_WhatACrashedProcessHadIsDoneAndItsConsumerRemoved(t *testing.T) {
	s := openShop(t, stream.Options[int]{})
	s.order(t, 1, 300)
	s.crash(t, "crashed", 300)
	s.srv.Do(t, "XGROUP", "CREATECONSUMER", shopLog, "g", "crashed-idle")
	var now, most, done atomic.Int64
	start := time.Now()
	s.work(t, func(_ context.Context, d stream.Delivery[int]) error {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if d.Deliveries != 2 {
			t.Errorf("delivery %d", d.Deliveries)
		}
		time.Sleep(time.Millisecond)
		done.Add(1)
		return nil
	}, stream.WithSweep(stream.WorkOptions{ClaimAfter: 300 * time.Millisecond, Workers: 4}, 50*time.Millisecond, 500*time.Millisecond))
	s.done(t)
	t.Logf("300 messages of a crashed process done after %v, %d at a time", time.Since(start), most.Load())
	if most.Load() > 4 || done.Load() != 300 {
		t.Errorf("%d at a time, %d done", most.Load(), done.Load())
	}
	testkit.Eventually(t, "the consumers are removed", func() bool { return s.lag(t).Workers == 1 })
}

// One that crashed has messages pending: they would be forgotten with it.
func TestStream_ConsumerWithPendingMessagesIsNotRemoved(t *testing.T) {
	t.Parallel()
	s := openShop(t, stream.Options[int]{})
	s.order(t, 1, 3)
	s.crash(t, "crashed", 3)
	s.work(t, func(context.Context, stream.Delivery[int]) error { return nil }, stream.WithSweep(stream.WorkOptions{ClaimAfter: 10 * time.Second}, 20*time.Millisecond, time.Millisecond))
	s.order(t, 4, 4)
	time.Sleep(300 * time.Millisecond)
	if l := s.lag(t); l.Pending != 3 {
		t.Errorf("%+v", l)
	}
}

// The messages of a reply that was lost waited for ClaimAfter, and each such loss
// counted as a try.
func TestWork_MessagesOfALostReplyCountAsNoFailure(t *testing.T) {
	t.Parallel()
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	proxy := madcrowtest.StartProxy(t, srv.Addr())
	cfg := srv.Config()
	cfg.Port = proxy.Port()
	near, _ := stream.New(openConfig(t, cfg), "s", stream.Options[int]{})
	far, _ := stream.New(openConfig(t, srv.Config()), "s", stream.Options[int]{})
	var mu sync.Mutex
	most, done := int64(0), map[int]bool{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- near.Work(ctx, "g", func(_ context.Context, d stream.Delivery[int]) error {
			mu.Lock()
			defer mu.Unlock()
			most, done[d.Message] = max(most, d.Deliveries), true
			return nil
		}, stream.WorkOptions{ClaimAfter: 30 * time.Second, MaxDeliveries: 1})
	}()
	testkit.Eventually(t, "the group", func() bool { return hasGroup(t, srv) })
	for n := range 10 {
		proxy.CutAfter(0) // the next reply does not come
		if _, err := far.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		proxy.CutAfter(-1)
		time.Sleep(20 * time.Millisecond)
	}
	testkit.Eventually(t, "everything is done", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(done) == 10
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if lag, err := far.Lag(t.Context(), "g"); most != 1 || lag.Dead != 0 || err != nil {
		t.Errorf("up to %d deliveries, %d dead, %v", most, lag.Dead, err)
	}
}

// Poison is put aside once, with its reason, its number of tries and its text:
// after errors, after panics, at once where it cannot be decoded, and when it is
// no message of a Stream at all. Two processes race for all of it.
func TestStream_PoisonBecomesOneDeadLetterWithItsReason(t *testing.T) {
	s := openShop(t, stream.Options[int]{})
	s.order(t, 1, 50)
	s.srv.Do(t, "XADD", shopLog, "*", "d", "no number")
	s.srv.Do(t, "XADD", shopLog, "*", "somebody", "else", "s", "entry")
	do := func(_ context.Context, d stream.Delivery[int]) error {
		switch {
		case d.Message%10 == 1:
			return fmt.Errorf("no %d", d.Message)
		case d.Message%10 == 2:
			panic(d.Message)
		}
		return nil
	}
	for range 2 {
		s.work(t, do, stream.WorkOptions{ClaimAfter: 300 * time.Millisecond, RetryDelay: 5 * time.Millisecond, MaxDeliveries: 3})
	}
	s.done(t)
	dead, err := s.Dead(t.Context(), "g", "", 100)
	if err != nil || len(dead) != 12 {
		t.Fatalf("%d dead letters, %v: %+v", len(dead), err, dead)
	}
	seen := map[string]bool{}
	for _, d := range dead {
		want, tries := fmt.Sprint("no ", d.Message), int64(3)
		switch {
		case d.Raw == "no number", d.Raw == "somebody\nelse\ns\nentry":
			want, tries = stream.ErrMalformed.Error(), 1
			if d.Err == nil {
				t.Errorf("%+v can be decoded", d)
			}
		case d.Message%10 == 2:
			want = fmt.Sprint("panic: ", d.Message)
		}
		if !strings.HasPrefix(d.Reason, want) || d.Deliveries != tries || seen[d.Original] {
			t.Errorf("%+v, want %q after %d", d, want, tries)
		}
		seen[d.Original] = true
	}
	if n := s.srv.Do(t, "EXISTS", "m1:stream:{s}:why:g"); n != int64(0) {
		t.Error("reasons are left")
	}
	if n, err := s.Purge(t.Context(), "g"); n != 12 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
}

// With memory full, messages were lost between the stream and the dead letters, in
// both directions.
func TestWork_DeadLettersAreKeptWhenRedisIsOutOfMemory(t *testing.T) {
	s := openShop(t, stream.Options[int]{})
	s.order(t, 1, 1)
	var tries atomic.Int64
	s.work(t, func(context.Context, stream.Delivery[int]) error {
		if tries.Add(1) == 1 {
			s.srv.Do(t, "CONFIG", "SET", "maxmemory", "1")
		}
		return errors.New("poison")
	}, stream.WorkOptions{ClaimAfter: 100 * time.Millisecond, MaxDeliveries: 1})
	testkit.Eventually(t, "it was tried", func() bool { return tries.Load() > 0 })
	time.Sleep(100 * time.Millisecond)
	if l := s.lag(t); l.Pending+l.Dead != 1 {
		t.Errorf("with memory full: %+v", l)
	}
	s.srv.Do(t, "CONFIG", "SET", "maxmemory", "0")
	testkit.Eventually(t, "the dead letter", func() bool { return s.lag(t).Dead == 1 })
	dead, _ := s.Dead(t.Context(), "g", "", 1)
	s.srv.Do(t, "CONFIG", "SET", "maxmemory", "1")
	if ok, err := s.Replay(t.Context(), "g", dead[0].ID); ok || !errors.Is(err, madcrow.ErrOutOfMemory) {
		t.Errorf("replayed: %v, %v", ok, err)
	}
	if l := s.lag(t); l.Dead != 1 {
		t.Errorf("after a replay that failed: %+v", l)
	}
	s.srv.Do(t, "CONFIG", "SET", "maxmemory", "0")
}

// While a message is worked on for longer than ClaimAfter no one else gets it;
// and the signs of life do not put off the next try of one that failed.
func TestStream_HeartbeatsKeepAMessageAndDelayNoRetry(t *testing.T) {
	s := openShop(t, stream.Options[int]{})
	s.order(t, 0, 40)
	var long, tries atomic.Int64
	var slowest atomic.Int64
	var mu sync.Mutex
	failed := map[int]time.Time{}
	do := func(_ context.Context, d stream.Delivery[int]) error {
		if d.Message == 0 {
			long.Add(1)
			time.Sleep(1500 * time.Millisecond)
			return nil
		}
		tries.Add(1)
		mu.Lock()
		defer mu.Unlock()
		if at, ok := failed[d.Message]; ok {
			slowest.Store(max(slowest.Load(), int64(time.Since(at))))
		}
		if failed[d.Message] = time.Now(); d.Deliveries < 6 {
			return errors.New("again")
		}
		return nil
	}
	for range 2 {
		s.work(t, do, stream.WorkOptions{ClaimAfter: 450 * time.Millisecond, RetryDelay: time.Millisecond, MaxDeliveries: 6, Workers: 50})
	}
	s.done(t)
	t.Logf("%d tries, the longest pause was %v", tries.Load(), time.Duration(slowest.Load()))
	if long.Load() != 1 || tries.Load() != 240 {
		t.Errorf("the long one was begun %d times; %d tries of 240", long.Load(), tries.Load())
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

// A wrong group is not taken for one without dead letters, and nothing is done
// for half an id: Redis would look for all messages of its millisecond, and
// remove the first.
func TestStream_WrongGroupsAndHalfIdsAreRefused(t *testing.T) {
	s := openShop(t, stream.Options[int]{})
	ctx := t.Context()
	s.srv.Do(t, "XADD", "m1:stream:{s}:dead:g", "7-1", "id", "1-1", "why", "x", "n", "1", "d", "1")
	for _, id := range []string{"7", "7-", "-", "+", "-1", "+7-1", "7-1-1", "x-1", ""} {
		var invalid *madcrow.ArgumentError
		if ok, err := s.Replay(ctx, "g", id); ok || !errors.As(err, &invalid) || invalid.Argument != "id" {
			t.Errorf("replay of %q: %v %v", id, ok, err)
		}
		if n, err := s.Purge(ctx, "g", "7-1", id); n != 0 || !errors.As(err, &invalid) {
			t.Errorf("purge of %q: %v %v", id, n, err)
		}
		if _, err := s.Dead(ctx, "g", id, 1); id != "" && !errors.As(err, &invalid) {
			t.Errorf("dead letters after %q: %v", id, err)
		}
	}
	if list, err := s.Dead(ctx, "g", "7-0", 10); len(list) != 1 || err != nil { // the group of workers is gone, or never was; they are here
		t.Errorf("%+v %v", list, err)
	}
	use := map[string]func(group string) error{
		"dead":   func(group string) error { _, err := s.Dead(ctx, group, "", 1); return err },
		"replay": func(group string) error { _, err := s.Replay(ctx, group, "7-1"); return err },
		"purge":  func(group string) error { _, err := s.Purge(ctx, group, "7-1"); return err },
		"all":    func(group string) error { _, err := s.Purge(ctx, group); return err },
		"lag":    func(group string) error { _, err := s.Lag(ctx, group); return err },
	}
	refused := func(group string, want func(error) bool) {
		t.Helper()
		for name, fn := range use {
			if err := fn(group); !want(err) {
				t.Errorf("%s of group %.10q: %v", name, group, err)
			}
		}
	}
	invalid := func(err error) bool {
		var e *madcrow.ArgumentError
		return errors.As(err, &e) && e.Argument == "group"
	}
	refused("", invalid)
	refused(strings.Repeat("x", 2000), invalid)
	delete(use, "lag") // everything is waiting for one that does not exist yet
	none := func(err error) bool {
		var e *madcrow.Error
		return errors.Is(err, stream.ErrNoGroup) && errors.As(err, &e) && e.Problem().Status == 404
	}
	refused("others", none) // there is no stream yet
	s.order(t, 1, 1)
	refused("others", none)
	s.srv.Do(t, "XGROUP", "CREATE", "m1:stream:{s}:log", "others", "0")
	refused("others", func(err error) bool { return err == nil })
}

// After a failover Redis may count too many messages as waiting, for ever, and Lag
// said so although all were done.
func TestStream_LagIsRightAfterAFailover(t *testing.T) {
	t.Parallel()
	s := openShop(t, stream.Options[int]{KeepDone: true})
	s.order(t, 1, 100)
	nothing := func(context.Context, stream.Delivery[int]) error { return nil }
	stop := s.work(t, nothing, stream.WithSweep(stream.WorkOptions{}, 20*time.Millisecond, time.Hour))
	s.done(t)
	stop()
	last := fmt.Sprint(s.srv.Do(t, "XREVRANGE", shopLog, "+", "-", "COUNT", "1").([]any)[0].([]any)[0])
	miscount := func() { s.srv.Do(t, "XGROUP", "SETID", shopLog, "g", last, "ENTRIESREAD", "7") }
	miscount()
	if l := s.lag(t); l.Waiting != 0 {
		t.Errorf("all was done: %+v", l)
	}
	stop = s.work(t, nothing, stream.WorkOptions{})
	testkit.Eventually(t, "the count is right again", func() bool {
		info := fmt.Sprint(s.srv.Do(t, "XINFO", "GROUPS", shopLog))
		return strings.Contains(info, "entries-read 100 lag 0")
	})
	stop()
	s.order(t, 101, 103)
	if l := s.lag(t); l.Waiting != 3 {
		t.Errorf("three are waiting: %+v", l)
	}
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
	s.Close()
	if err := <-ended; !errors.Is(err, stream.ErrClosed) {
		t.Errorf("work: %v", err)
	}
}
