package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
