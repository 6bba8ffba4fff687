package ratelimit

import (
	"context"
	"math/big"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestDenialCache_WhatWasAskedBeforeAResetIsNotRememberedAfterIt(t *testing.T) {
	d := newDenialCache(64)
	before := mono()
	d.remove("a")
	if d.add("a", 1, before, time.Minute, time.Minute); remembers(d, "a", 1) {
		t.Error("an answer from before the reset is believed after it")
	}
	time.Sleep(time.Microsecond)
	if d.add("a", 1, mono(), time.Minute, time.Minute); !remembers(d, "a", 1) {
		t.Error("nothing is remembered any more")
	}
}

func remembers(d *denialCache, subject string, cost int64) bool {
	_, _, ok := d.lookup(subject, cost, mono())
	return ok
}

// The answer may have been on its way for long: the wait counts from when it
// came, and being believed from when it was asked for.
func TestDenialCache_TheWaitIsNeverTooShort(t *testing.T) {
	d := newDenialCache(64)
	const onItsWay = 400 * time.Millisecond
	asked := mono() - int64(onItsWay)
	d.cleared.Store(asked - 1)
	d.add("a", 1, asked, 5*time.Second, 6*time.Second)
	now := mono()
	retry, reset, ok := d.lookup("a", 1, now)
	if !ok || retry < 5*time.Second-50*time.Millisecond || reset < 6*time.Second-50*time.Millisecond {
		t.Errorf("%v %v %v", retry, reset, ok)
	}
	if _, _, ok := d.lookup("a", 1, asked+int64(denialLife)); ok {
		t.Error("believed for longer than its life after it was asked for")
	}
	if remembers(d, "a", 0) || !remembers(d, "a", 2) {
		t.Error("a denial is one of this cost and above")
	}
}

// heap is what is in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestDenialCache_MemoryIsBoundedWhateverTheSubjectsAre(t *testing.T) {
	const places = 1000
	before := heap()
	d := newDenialCache(places)
	for i := range 20_000 {
		large := strings.Repeat("x", 10_000) + strconv.Itoa(i)
		d.add(large, 1, mono(), time.Minute, time.Minute)
		if i%100 == 0 && !remembers(d, large, 1) {
			t.Fatal("the latest is not remembered")
		}
		d.add(large[9_980:], 1, mono(), time.Minute, time.Minute) // a part of it
	}
	held := 0
	for i := range d.t.sets {
		if s := d.t.sets[i].Load(); s != nil {
			for _, sl := range s.slots {
				if sl.used {
					held++
				}
			}
		}
	}
	if used := int64(heap()) - int64(before); held > 1024 || used > 1<<20 {
		t.Errorf("%d subjects, %d bytes", held, used)
	}
	runtime.KeepAlive(d)
}

// No subject, however made, is taken for another one's digest.
func TestAssocTable_ALongSubjectSharesNoSlot(t *testing.T) {
	long := strings.Repeat("x", 1000)
	d := newDenialCache(64)
	d.add(tableKey(long)[:32], 1, mono(), time.Minute, time.Minute)
	d.add(tableKey(long), 1, mono(), time.Minute, time.Minute)
	if remembers(d, long, 1) {
		t.Error("denied for another's sake")
	}
}

// spareModel is the promise of FailLocal itself: what was let in, and when.
type spareModel struct{ at, cost []int64 }

func (m *spareModel) since(at int64) (n int64) {
	for i := len(m.at) - 1; i >= 0 && m.at[i] > at; i-- {
		n += m.cost[i]
	}
	return n
}

func TestFailLocal_NeverMoreThanItsShareInAnyWindow(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for schedule := range 200 {
		window := int64(10_000_000 + rng.Int64N(1e9))
		share := 1 + rng.Int64N(9)
		s := newLocalLimiter(8, plan{rate: Rate{Limit: 1, Window: time.Duration(window)}, limit: 1})
		var m spareModel
		now := rng.Int64N(1e15)
		for step := range 500 {
			now += rng.Int64N(window/share) * rng.Int64N(3) / 2
			n := int64(1)
			if rng.IntN(4) == 0 {
				n += rng.Int64N(share)
			}
			var d Decision
			s.decideAt(&d, "a", n, share, now)
			if d.Allowed {
				m.at, m.cost = append(m.at, now), append(m.cost, n)
			}
			used := m.since(now - window)
			switch {
			case used > share:
				t.Fatalf("schedule %d, step %d: %d in a window, the share is %d", schedule, step, used, share)
			case !d.Allowed && m.since(now-9*s.width)+n <= share:
				t.Fatalf("schedule %d, step %d: denied beside %d", schedule, step, used)
			case d.Allowed && d.Remaining > share-used, d.ResetAfter <= 0, !d.Allowed && d.RetryAfter <= 0:
				t.Fatalf("schedule %d, step %d: %+v", schedule, step, d)
			}
			if d.Allowed || rng.IntN(2) == 0 {
				continue
			}
			now += int64(d.RetryAfter)
			var a, b Decision
			if s.decideAt(&a, "a", n, share, now-1); a.Allowed || a.RetryAfter != 1 {
				t.Fatalf("schedule %d, step %d: just before the wait ends: %+v", schedule, step, a)
			}
			if s.decideAt(&b, "a", n, share, now); !b.Allowed {
				t.Fatalf("schedule %d, step %d: at the wait ends: %+v", schedule, step, b)
			}
			m.at, m.cost = append(m.at, now), append(m.cost, n)
		}
	}
}

// crowded lets many ask at once, and says when each was let in, between two
// instants.
func crowded(t *testing.T, l *Limiter, length time.Duration) (began, ended []int64) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := mono() + int64(length)
	for range 16 {
		wg.Go(func() {
			for mono() < end {
				a := mono()
				d, err := l.Allow(context.Background(), "a")
				b := mono()
				if err != nil {
					t.Error(err)
					return
				}
				if d.Allowed {
					mu.Lock()
					began, ended = append(began, a), append(ended, b)
					mu.Unlock()
				}
				time.Sleep(10 * time.Microsecond)
			}
		})
	}
	wg.Wait()
	return began, ended
}

func TestFailLocal_NeverMoreThanItsShareUnderConcurrency(t *testing.T) {
	t.Parallel()
	cfg := madcrow.Config{Host: "127.0.0.1", Port: madcrowtest.FreePort(t)} // no server is there
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close(context.Background()) }()
	const window, share = 60 * time.Millisecond, 25
	l, err := New(r, "x", Per(window, 4*share), FailLocal(4), WithAlgorithm(GCRA(4*share)))
	if err != nil {
		t.Fatal(err)
	}
	began, ended := crowded(t, l, 600*time.Millisecond)
	if len(began) < share {
		t.Errorf("only %d were let in", len(began))
	}
	for i := range began { // surely within one window: began after one's start, ended before its end
		n := 0
		for j := range began {
			if began[j] >= began[i] && ended[j] < began[i]+int64(window) {
				n++
			}
		}
		if n > share {
			t.Fatalf("%d of %d within %v", n, share, window)
		}
	}
}

func TestDecision_TokensAreExactlyThoseThatFit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 100_000 {
		p := plan{kind: kindGCRA, limit: 1 + rng.Int64N(maxLogged), rate: Rate{Limit: 1 + rng.Int64N(maxLimit>>rng.IntN(30)), Window: MinWindow + time.Duration(rng.Int64N(int64(MaxWindow)>>rng.IntN(28))).Truncate(time.Microsecond)}}
		whole, rest := rng.Int64N(32e12>>rng.IntN(40)), rng.Int64N(p.rate.Limit)
		free := new(big.Int).Mul(big.NewInt(whole), big.NewInt(p.rate.Limit))
		free.Add(free, big.NewInt(rest)).Quo(free, big.NewInt(p.rate.micros()))
		want := p.limit
		if free.IsInt64() {
			want = min(want, free.Int64())
		}
		if got := p.tokens(whole, rest); got != want {
			t.Fatalf("%+v, %d and %d/limit: %d tokens, want %d", p.rate, whole, rest, got, want)
		}
	}
}

func TestConcurrency_AHolderWithoutRedisGivesUpBeforeAnotherIsLetIn(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	open := func(cfg madcrow.Config) *Concurrency {
		cfg.CommandTimeout, cfg.Require = 10*time.Second, true
		r, err := madcrow.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close(context.Background()) })
		c, err := NewConcurrency(r, "place", 1, 1200*time.Millisecond, FailClosed)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	wire := madcrowtest.StartProxy(t, s.Addr())
	cfg := s.Config()
	cfg.Port = wire.Port()
	ours, theirs := open(cfg), open(s.Config())
	lease, _, err := ours.Acquire(t.Context(), "a")
	if err != nil || lease == nil {
		t.Fatal(err)
	}
	wire.BlackHole(true)
	var other *Lease
	for other == nil { // closer than Wait
		if other, _, err = theirs.Acquire(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case <-lease.Context().Done():
	case <-time.After(250 * time.Millisecond): // the scheduler's
		t.Error("two hold the place")
	}
	if err := other.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// FuzzSubjectKey: two subjects never share a key, and none changes the slot's
// tag or makes a key long.
func FuzzSubjectKey(f *testing.F) {
	for _, s := range []string{"", "{}", "}{", "a", "~", "\x00", "a:block", strings.Repeat("x", 97)} {
		f.Add(s, "a")
		f.Add(s, s+"}")
	}
	const before = "app:m1:limit:x:l:{"
	f.Fuzz(func(t *testing.T, a, b string) {
		key, other := subjectKey(before, a), subjectKey(before, b)
		tag, ok := strings.CutPrefix(key, before)
		tag, end := strings.CutSuffix(tag, "}")
		if !ok || !end || tag == "" || strings.ContainsAny(tag, "{}\r\n\x00 ") || len(key) > len(before)+200 {
			t.Errorf("%q: key %q", a, key)
		}
		if (key == other) != (a == b) || key+blockSuffix == other || key == other+blockSuffix {
			t.Errorf("%q and %q: keys %q and %q", a, b, key, other)
		}
		if (tableKey(a) == tableKey(b)) != (a == b) {
			t.Errorf("%q and %q meet in a table", a, b)
		}
		// What a key shows is no other subject's way to it.
		if tag != a && subjectKey(before, tag) == key {
			t.Errorf("%q has the key of %q", tag, a)
		}
	})
}
