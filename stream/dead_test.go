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
	"github.com/madcrow-go/madcrow/stream"
)

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

// Dead letters that a reclaim makes called OnDead in the goroutine that reads.
func TestOnDead_SlowHookDoesNotDelayOtherMessages(t *testing.T) {
	needStreams(t)
	release := make(chan struct{})
	letGo := sync.OnceFunc(func() { close(release) })
	var hooks atomic.Int32
	s, err := stream.New(open(t), "s", stream.Options[int]{OnDead: func(context.Context, stream.DeadLetter[int]) {
		hooks.Add(1)
		<-release
	}})
	if err != nil {
		t.Fatal(err)
	}
	// A process dies with its message in hand, at the last delivery.
	if _, err := s.Publish(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r := open(t)
	key := t.Name() + ":" + shopLog
	for _, cmd := range []madcrow.Command{
		r.B().XgroupCreate().Key(key).Group("g").Id("0").Build(),
		r.B().Xreadgroup().Group("g", "gone").Streams().Key(key).Id(">").Build(),
	} {
		if err := r.Do(t.Context(), cmd).Err(); err != nil {
			t.Fatal(err)
		}
	}
	var done atomic.Int32
	working(t, s, func(context.Context, stream.Delivery[int]) error {
		done.Add(1)
		return nil
	}, stream.WorkOptions{Workers: 2, MaxDeliveries: 1, ClaimAfter: 100 * time.Millisecond})
	t.Cleanup(letGo)
	testkit.Eventually(t, "the hook is called", func() bool { return hooks.Load() == 1 })
	for n := range 3 {
		if _, err := s.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	for begin := time.Now(); done.Load() < 3; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatal("other messages wait for the hook")
		}
	}
	letGo()
	if n := hooks.Load(); n != 1 {
		t.Errorf("%d calls", n)
	}
}
