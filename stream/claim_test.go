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

	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/stream"
)

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

// After the first part that failed none of the others was renewed: other processes
// claimed messages that were under way.
func TestHeartbeat_RenewsEachPartWhateverHappensToAnother(t *testing.T) {
	needStreams(t)
	s, err := stream.New(open(t), "x", stream.Options[int]{})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, 250) // three parts
	for i := range ids {
		ids[i] = fmt.Sprintf("%d-0", i+1)
	}
	// Redis refuses each: there is no such group.
	err = stream.Heartbeat(t.Context(), s, "none", ids)
	if n := strings.Count(fmt.Sprint(err), "NOGROUP"); n != 3 {
		t.Errorf("%d of 3 parts were tried: %v", n, err)
	}
}
