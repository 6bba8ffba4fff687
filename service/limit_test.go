package service

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/limitscript/clocked"
)

// model is what the script of the sorted-set log shall do, on a plain slice.
type model struct {
	entries []modelEntry
}

type modelEntry struct {
	score float64 // as Redis holds it
	ours  bool
}

func toSeconds(us int64) float64 {
	us = max(us, 0)
	f, err := strconv.ParseFloat(fmt.Sprintf("%d.%06d", us/1e6, us%1e6), 64)
	if err != nil {
		panic(err)
	}
	return f
}

func toMicros(score float64) int64 { return int64(score*1e6 + 0.5) }

// decide returns what the script returns.
func (m *model) decide(clock, limit, window int64) []int64 {
	now := clock
	if newest := m.newest(true); newest > clock {
		if newest-clock <= window {
			now = newest
		} else { // not believed
			m.remove(func(e modelEntry) bool { return e.ours && e.score > toSeconds(clock) })
		}
	}
	m.remove(func(e modelEntry) bool { return e.score <= toSeconds(now-window) })
	admitted := int64(len(m.entries)) < limit
	if admitted {
		m.add(modelEntry{toSeconds(now), true})
	}
	count := int64(len(m.entries))
	reset := min(max(m.newest(false)+window-clock, 1), 2*window)
	retry := int64(0)
	if !admitted {
		// When so many have left that one fits, the last of them leaves.
		retry = max(toMicros(m.entries[count-limit].score)+window-clock, 1)
	}
	return []int64{retry, count, reset, 0}
}

func (m *model) newest(ours bool) int64 {
	for _, e := range slices.Backward(m.entries) {
		if e.ours || !ours {
			return toMicros(e.score)
		}
	}
	return 0
}

func (m *model) add(e modelEntry) {
	m.entries = append(m.entries, e)
	slices.SortStableFunc(m.entries, func(a, b modelEntry) int {
		switch {
		case a.score < b.score:
			return -1
		case a.score > b.score:
			return 1
		}
		return 0
	})
}

func (m *model) remove(gone func(modelEntry) bool) { m.entries = slices.DeleteFunc(m.entries, gone) }

// Keys still expire by the server's clock, so schedules use windows far longer
// than the test.
var setByClock = clocked.Script(limitscript.Set)

func TestLimit_ScriptEqualsTheModelOnRandomSchedules(t *testing.T) {
	s, _ := start(t)
	schedules, steps := 40, 150
	for n := range schedules {
		seed := uint64(n)
		rng := rand.New(rand.NewPCG(seed, 1))
		runSchedule(t, s, rng, fmt.Sprintf("sched:%d", n), steps)
		if t.Failed() {
			t.Fatalf("schedule %d", n)
		}
	}
	t.Logf("%d steps", schedules*steps)
}

func runSchedule(t *testing.T, s *Service, rng *rand.Rand, key string, steps int) {
	t.Helper()
	limit := 1 + rng.Int64N(6)
	window := int64(1e9) + rng.Int64N(5e9) // 1,000 s and more, to the microsecond
	clock := int64(1_700_000_000_000_000) + rng.Int64N(1e12)
	foreign := rng.IntN(2) == 0
	var m model
	for step := range steps {
		switch rng.IntN(12) {
		case 0: // exactly one window after some entry: the edge
			if len(m.entries) > 0 {
				clock = max(clock, toMicros(m.entries[rng.IntN(len(m.entries))].score)+window)
			}
		case 1: // a failover to a slower server
			clock -= rng.Int64N(window)
		case 2: // a clock that is not credible
			if rng.IntN(4) == 0 {
				clock += (rng.Int64N(7) - 3) * window
			}
		case 3, 4: // no time passes
		default:
			clock += rng.Int64N(2*window/limit) / 2
		}
		if foreign && rng.IntN(4) == 0 {
			score := pythonFloat(float64(clock+rng.Int64N(2*window)-window)/1e6 + rng.Float64()/1e6)
			addForeign(t, s, &m, key, score)
		}
		now := max(clock, 0)
		got := evalLimit(t, s, key, limit, window, now)
		want := m.decide(now, limit, window)
		if !slices.Equal(got, want) {
			t.Errorf("step %d: limit %d window %d clock %d: script %v, model %v, entries %v",
				step, limit, window, now, got, want, m.entries)
			return
		}
	}
}

func addForeign(t *testing.T, s *Service, m *model, key, score string) {
	t.Helper()
	reply, err := s.redis.Do(t.Context(), s.redis.B().Arbitrary("ZADD").Keys(key).Args(score, score).Build()).Message()
	must(t, err)
	if added, err := reply.AsInt64(); err != nil || added == 0 {
		return // the same instant again is the same member
	}
	f, err := strconv.ParseFloat(score, 64)
	must(t, err)
	m.add(modelEntry{f, false})
}

func evalLimit(t *testing.T, s *Service, key string, limit, window, clock int64) []int64 {
	t.Helper()
	reply, err := s.redis.Eval(t.Context(), setByClock, []string{key}, []string{
		"1", "1", strconv.FormatInt(limit, 10), strconv.FormatInt(window, 10), keys.Nonce(),
		strconv.FormatInt(clock/1e6, 10), strconv.FormatInt(clock%1e6, 10),
	}).Message()
	must(t, err)
	got, err := reply.AsIntSlice()
	must(t, err)
	return got
}

// The window's promise itself, not the model's: admissions of one schedule are
// kept, and no window of time holds more than the limit.
func TestLimit_NoWindowHoldsMoreThanTheLimitAndRetryAfterIsExact(t *testing.T) {
	s, _ := start(t)
	rng := rand.New(rand.NewPCG(7, 7))
	const limit, window = 5, int64(2e9)
	clock := int64(1_700_000_000_123_456)
	var admitted []int64
	for range 1500 {
		clock += rng.Int64N(window / limit / 2)
		got := evalLimit(t, s, "w", limit, window, clock)
		if got[0] > 0 {
			before := evalLimit(t, s, "w", limit, window, clock+got[0]-1)
			if before[0] != 1 {
				t.Fatalf("1 µs before retry after: %v", before)
			}
			clock += got[0]
			if got = evalLimit(t, s, "w", limit, window, clock); got[0] != 0 {
				t.Fatalf("denied after its RetryAfter: %v", got)
			}
		}
		admitted = append(admitted, clock)
		if n := len(admitted); n > limit && admitted[n-1]-admitted[n-1-limit] < window {
			t.Fatalf("%d admitted within %d µs", limit+1, admitted[n-1]-admitted[n-1-limit])
		}
	}
}

func TestLimit_ExactlyTheLimitIsAdmittedConcurrently(t *testing.T) {
	s, srv := start(t)
	const callers, limit = 200, 37
	var allowed, denied atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			d, err := s.CheckRateLimit(ctx, "crowd", limit, time.Hour)
			switch {
			case err != nil:
				t.Error(err)
			case d.Allowed:
				allowed.Add(1)
			default:
				denied.Add(1)
			}
		})
	}
	wg.Wait()
	if allowed.Load() != limit || denied.Load() != callers-limit {
		t.Errorf("%d admitted, %d denied, want %d and %d", allowed.Load(), denied.Load(), limit, callers-limit)
	}
	if n := srv.Do(t, "ZCARD", "crowd"); n != int64(limit) {
		t.Errorf("%v members, want %d: denied requests must not be stored", n, limit)
	}
}

func TestLimit_DeniedRequestsDoNotExtendTheWindow(t *testing.T) {
	s, srv := start(t)
	ctx := t.Context()
	const window = 600 * time.Millisecond
	first, err := s.CheckRateLimit(ctx, "k", 1, window)
	if err != nil || !first.Allowed || first.ResetAfter != window {
		t.Fatalf("%+v %v", first, err)
	}
	if ttl := srv.Do(t, "PTTL", "k").(int64); ttl > 601 {
		t.Errorf("lifetime %d ms", ttl)
	}
	begin := time.Now()
	for {
		d, err := s.CheckRateLimit(ctx, "k", 1, window)
		must(t, err)
		if d.Allowed {
			break
		}
		if d.RetryAfter <= 0 || d.RetryAfter > window {
			t.Fatalf("%+v", d)
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatal("a caller who keeps trying is never let in")
		}
	}
}

func TestLimit_PeekDoesNotCountAndResetRemoves(t *testing.T) {
	s, srv := start(t)
	ctx := t.Context()
	peek := func(want Decision) {
		t.Helper()
		got, err := s.PeekRateLimit(ctx, "k", 2, time.Hour)
		if got.RetryAfter > 0 && got.RetryAfter > time.Hour-time.Minute {
			got.RetryAfter = time.Hour
		}
		if got.ResetAfter > time.Hour-time.Minute {
			got.ResetAfter = time.Hour
		}
		if err != nil || got != want {
			t.Errorf("%+v %v, want %+v", got, err, want)
		}
	}
	peek(Decision{Allowed: true, Limit: 2, Remaining: 2})
	if n := srv.Do(t, "EXISTS", "k"); n != int64(0) {
		t.Error("a look has written")
	}
	for i := range 3 {
		if d, err := s.CheckRateLimit(ctx, "k", 2, time.Hour); err != nil || d.Allowed != (i < 2) {
			t.Fatalf("%+v %v", d, err)
		}
	}
	peek(Decision{Limit: 2, Count: 2, RetryAfter: time.Hour, ResetAfter: time.Hour})
	for _, want := range []bool{true, false} {
		if existed, err := s.ResetRateLimit(ctx, "k"); existed != want || err != nil {
			t.Errorf("%v %v", existed, err)
		}
	}
	peek(Decision{Allowed: true, Limit: 2, Remaining: 2})
	if _, err := s.ResetRateLimit(ctx, "session:1"); err == nil {
		t.Error("a session was reset")
	}
}

func TestLimit_KeyLivesAsLongAsItsNewestEntry(t *testing.T) {
	s, srv := start(t)
	const window = int64(5_000_000_400) // 5,000,000.4 ms
	clock := int64(1_700_000_000_000_000)
	evalLimit(t, s, "k", 3, window, clock)
	if ttl := srv.Do(t, "PTTL", "k").(int64); ttl > 5_000_002 || ttl < 4_990_000 {
		t.Errorf("lifetime %d ms, want 5000002 less what has passed", ttl)
	}
	// The next server's clock is 1,000 s behind: the newest entry, and so the
	// key, must live that much longer.
	got := evalLimit(t, s, "k", 3, window, clock-1_000_000_000)
	if got[0] != 0 || got[2] != window+1_000_000_000 {
		t.Errorf("%v", got)
	}
	if ttl := srv.Do(t, "PTTL", "k").(int64); ttl < 5_990_000 {
		t.Errorf("lifetime %d ms, want about 6000002", ttl)
	}
}
