package madcrow_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// Subscribe waited for the server to confirm the subscription, and heard no
// cancellation.
func TestSubscribe_IsCancelledOnAFrozenServer(t *testing.T) {
	s, r := server(t)
	s.Pause()
	defer s.Resume()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, cancel)
	testkit.Within(t, "Subscribe cancelled after 30 ms", 300*time.Millisecond, func() {
		_ = r.Subscribe(ctx, news, madcrow.Handler{OnMessage: drop})
	})
}

// Each waited for its own UNSUBSCRIBE, one after the other.
func TestSubscribe_ManyLeaveAFrozenServerTogether(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r, err := madcrow.Open(t.Context(), s.Config())
	if err != nil {
		t.Fatal(err)
	}
	await(t, r, madcrow.StateUp, 5*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	var ready, wg sync.WaitGroup
	var last atomic.Int64
	for i := range 20 {
		ready.Add(1)
		var once sync.Once
		h := madcrow.Handler{OnMessage: drop, OnSubscribed: func(string) { once.Do(ready.Done) }}
		wg.Go(func() {
			_ = r.Subscribe(ctx, madcrow.Subscription{Channels: []string{fmt.Sprint("c", i)}}, h)
			last.Store(time.Now().UnixNano())
		})
	}
	ready.Wait()
	s.Pause()
	start := time.Now()
	cancel()
	time.Sleep(5 * time.Millisecond)
	short, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer stop()
	testkit.Within(t, "Close(50 ms)", 400*time.Millisecond, func() { _ = r.Close(short) })
	wg.Wait()
	if d := time.Duration(last.Load() - start.UnixNano()); d > testkit.Slack(400*time.Millisecond) {
		t.Errorf("the last Subscribe returned %v after it was cancelled", d)
	}
	s.Resume()
}

// They stood in one line for the connection, each with its own time-out.
func TestSubscribe_HundredsOnAFrozenServerKeepTheirDeadlines(t *testing.T) {
	s, r := server(t)
	up := make(chan struct{})
	var once sync.Once
	go func() {
		_ = r.Subscribe(t.Context(), madcrow.Subscription{Channels: []string{"first"}},
			madcrow.Handler{OnMessage: drop, OnSubscribed: func(string) { once.Do(func() { close(up) }) }})
	}()
	<-up
	s.Pause()
	defer s.Resume()
	var worst atomic.Int64
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			_ = r.Subscribe(ctx, madcrow.Subscription{Channels: []string{fmt.Sprint("c", i)}}, madcrow.Handler{OnMessage: drop})
			for d := int64(time.Since(start)); ; {
				old := worst.Load()
				if d <= old || worst.CompareAndSwap(old, d) {
					break
				}
			}
		})
	}
	wg.Wait()
	if d := time.Duration(worst.Load()); d > testkit.Slack(300*time.Millisecond) {
		t.Errorf("a Subscribe with a deadline of 50 ms took %v", d)
	}
}
