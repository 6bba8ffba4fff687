package ratelimit_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// A remembered denial is checked against Redis' own clock: what it denies at an
// instant, Redis would deny at that instant too.
func TestDenialCache_NeverWhenRedisWouldAdmit(t *testing.T) {
	t.Parallel()
	r := open(t)
	const window = 20 * time.Millisecond
	prefix := r.Config().KeyPrefix
	l := must[*ratelimit.Limiter](t)(ratelimit.New(r, "x", ratelimit.Options{Rate: ratelimit.Per(window, 1), FailPolicy: madcrow.FailClosed}))
	ask := func(args ...string) madcrow.Message {
		m, err := r.Do(t.Context(), r.B().Arbitrary(args...).Build()).Message()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	clock := func() int64 {
		m := ask("TIME")
		both, err := m.AsStrSlice()
		if err != nil || len(both) != 2 {
			t.Fatal(both, err)
		}
		s, _ := strconv.ParseInt(both[0], 10, 64)
		us, _ := strconv.ParseInt(both[1], 10, 64)
		return s*1e6 + us
	}
	counts := map[ratelimit.Source]int{}
	admitted, free := 0, int64(0)
	length := time.Second
	if soak {
		length = time.Minute
	}
	for end := time.Now().Add(length); time.Now().Before(end); {
		before := clock()
		d, err := l.Allow(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if !d.Allowed && before >= free {
			t.Fatalf("denied by %v at %d or later, Redis admits from %d on", d.Source, before, free)
		}
		if d.Allowed {
			admitted++
			m := ask("LINDEX", prefix+"m1:limit:x:l:{a}", "0")
			if head, err := m.AsInt64(); err == nil {
				free = head + window.Microseconds()
			} else { // gone already
				free = clock() + window.Microseconds()
			}
			continue
		}
		counts[d.Source]++
	}
	t.Logf("%d admitted, denied by %v", admitted, counts)
	if counts[ratelimit.SourceLocal] == 0 || admitted < 3 {
		t.Error("nothing was tested")
	}
}

// knownDenied is a limiter that remembers a denial of a subject.
func knownDenied(t testing.TB) *ratelimit.Limiter {
	t.Helper()
	l := must[*ratelimit.Limiter](t)(ratelimit.New(open(t), "x", ratelimit.Options{Rate: ratelimit.PerHour(1), FailPolicy: madcrow.FailClosed}))
	renew(t, l)
	return l
}

// renew asks Redis, once a second.
func renew(t testing.TB, l *ratelimit.Limiter) {
	t.Helper()
	for range 3 {
		if _, err := l.Allow(t.Context(), "user:1234567"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDenialCache_AKnownOneCostsNoAllocation(t *testing.T) {
	l := knownDenied(t)
	ctx := t.Context()
	// One asks Redis once a second: the least of several runs has none of it.
	least := 1e9
	for range 5 {
		renew(t, l)
		least = min(least, testing.AllocsPerRun(1000, func() {
			if d, err := l.Allow(ctx, "user:1234567"); err != nil || d.Allowed {
				t.Fatal(d, err)
			}
		}))
	}
	if least != 0 {
		t.Errorf("%v allocations", least)
	}
}

func BenchmarkDenialCache_Known(b *testing.B) {
	l := knownDenied(b)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if d, err := l.Allow(ctx, "user:1234567"); err != nil || d.Allowed {
			b.Fatal(d, err)
		}
	}
}

func BenchmarkDenialCache_KnownParallel(b *testing.B) {
	l := knownDenied(b)
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if d, err := l.Allow(ctx, "user:1234567"); err != nil || d.Allowed {
				b.Error(d, err)
				return
			}
		}
	})
}

func TestTokenBucket_AnEmptyOneIsRemembered(t *testing.T) {
	b := must[*ratelimit.TokenBucket](t)(ratelimit.NewTokenBucket(open(t), "x", ratelimit.TokenBucketOptions{Rate: ratelimit.PerHour(10), Burst: 10, FailPolicy: madcrow.FailClosed}))
	if n, d, err := b.AllowAtMost(t.Context(), "a", 20); err != nil || n != 10 || !d.Allowed {
		t.Fatal(n, d, err)
	}
	for _, from := range []ratelimit.Source{ratelimit.SourceRedis, ratelimit.SourceLocal} {
		if n, d, err := b.AllowAtMost(t.Context(), "a", 1); err != nil || n != 0 || d.Allowed || d.Source != from || d.RetryAfter <= 5*time.Minute {
			t.Errorf("%d %+v %v", n, d, err)
		}
	}
	if d, err := b.Allow(t.Context(), "a"); err != nil || d.Allowed || d.Source != ratelimit.SourceLocal {
		t.Errorf("%+v %v", d, err)
	}
	if d, err := b.Reward(t.Context(), "a", 3); err != nil || d.Remaining != 3 {
		t.Errorf("%+v %v", d, err)
	}
	if n, d, err := b.AllowAtMost(t.Context(), "a", 5); err != nil || n != 3 || !d.Allowed {
		t.Errorf("%d %+v %v", n, d, err)
	}
}
