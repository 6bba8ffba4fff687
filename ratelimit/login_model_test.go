package ratelimit_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/limitscript"
	"github.com/madcrow-go/madcrow/internal/limitscript/clocked"
)

// loginModel is what the script of logins shall do while the clock goes
// forward. Times are microseconds.
type loginModel struct {
	limit, window int64
	blocks        []int64
	at            []int64 // the attempts, the oldest first
	till, times   int64
}

// ask returns what the script returns.
func (m *loginModel) ask(verb string, clock int64) []int64 {
	m.at = slices.DeleteFunc(m.at, func(at int64) bool {
		return at <= clock-m.window || m.till <= clock && at < m.till
	})
	slices.Sort(m.at)
	retry := m.retry(clock)
	switch {
	case clock < m.till:
		rest := m.till - clock
		more := int64(0)
		if verb == "0" {
			more = rest
		}
		return []int64{rest, max(int64(len(m.at)), m.limit), rest, more}
	case verb == "2" || verb == "1" && retry == 0:
		m.at = append(m.at, clock)
		if verb == "2" {
			m.at = m.at[max(0, len(m.at)-int(m.limit)):]
			retry = m.retry(clock)
		}
		reset := m.window
		if len(m.blocks) > 0 && int64(len(m.at)) >= m.limit {
			reset = m.blocks[min(int(m.times), len(m.blocks)-1)]
			m.times++
			m.till = clock + reset
			if verb == "2" {
				retry = reset
			}
		}
		return []int64{retry, int64(len(m.at)), reset, 0}
	}
	out := []int64{retry, int64(len(m.at)), 0, 0}
	if len(m.at) > 0 {
		out[2] = m.at[len(m.at)-1] + m.window - clock
		if verb == "0" {
			out[3] = max(retry, m.at[0]+m.window-clock)
		}
	}
	return out
}

// retry is when so many have left that one more fits.
func (m *loginModel) retry(clock int64) int64 {
	if over := int64(len(m.at)) - m.limit; over >= 0 {
		return m.at[over] + m.window - clock
	}
	return 0
}

// loginScript runs the script by a clock of the test.
type loginScript struct {
	t    *testing.T
	r    *madcrow.Redis
	key  string
	m    *loginModel
	step int
}

var loginByClock = clocked.Script(limitscript.Login)

func (s *loginScript) ask(verb string, clock int64) []int64 {
	s.t.Helper()
	keys := []string{s.key}
	s.step++
	num := func(n int64) string { return strconv.FormatInt(n, 10) }
	args := []string{verb, num(s.m.limit), num(s.m.window), strconv.Itoa(s.step)}
	if len(s.m.blocks) > 0 {
		keys = append(keys, s.key+":b")
		args = append(args, "86400000000", strconv.Itoa(len(s.m.blocks)))
		for _, b := range s.m.blocks {
			args = append(args, num(b))
		}
	}
	m, err := s.r.Eval(s.t.Context(), loginByClock, keys, append(args, num(clock/1e6), num(clock%1e6))).Message()
	if err != nil {
		s.t.Fatal(err)
	}
	return must[[]int64](s.t)(m.AsIntSlice())
}

// foreign adds an attempt as Python does.
func (s *loginScript) foreign(at int64) {
	s.t.Helper()
	if slices.Contains(s.m.at, at) {
		return // the same instant again may be the same member
	}
	text := strconv.FormatFloat(float64(at)/1e6, 'f', -1, 64)
	if err := s.r.Do(s.t.Context(), s.r.B().Arbitrary("ZADD").Keys(s.key).Args(text, text).Build()).Err(); err != nil {
		s.t.Fatal(err)
	}
	s.m.at = append(s.m.at, at)
}

func TestLogin_ScriptEqualsTheModelOnRandomSchedules(t *testing.T) {
	r, run := fresh(t), runs.Load()
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 2))
		m := &loginModel{limit: 1 + rng.Int64N(5), window: 1e9 + rng.Int64N(5e9)}
		for range rng.IntN(4) {
			m.blocks = append(m.blocks, 1e8+rng.Int64N(2*m.window))
		}
		s := &loginScript{t: t, r: r, key: fmt.Sprintf("{%d:%d}", run, seed), m: m}
		clock := int64(1_700_000_000_000_000) + rng.Int64N(1e12)
		for step := range 150 {
			switch rng.IntN(8) {
			case 0: // the end of the block, to the microsecond
				clock = max(clock, m.till-rng.Int64N(2))
			case 1: // an attempt leaves, to the microsecond
				if len(m.at) > 0 {
					clock = max(clock, m.at[rng.IntN(len(m.at))]+m.window-rng.Int64N(2))
				}
			case 2, 3: // no time passes
			default:
				clock += rng.Int64N(m.window / m.limit)
			}
			if rng.IntN(10) == 0 {
				s.foreign(clock - rng.Int64N(m.window))
			}
			verb := strconv.Itoa(rng.IntN(3))
			got, want := s.ask(verb, clock), m.ask(verb, clock)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d, step %d, verb %s: script %v, model %v: %+v", seed, step, verb, got, want, *m)
			}
		}
	}
}

// A clock that is put back, as after a failover, prolongs no block beyond its
// length, and one that runs ahead ends it early: no identifier is locked out for ever.
func TestLogin_AClockThatJumpsProlongsNoBlockBeyondItsLength(t *testing.T) {
	const hour, now = int64(3600e6), int64(1_700_000_000_000_000)
	r, run := fresh(t), runs.Load()
	for _, jump := range []int64{-hour / 2, -10 * hour, -100 * hour} {
		m := &loginModel{limit: 1, window: hour, blocks: []int64{hour}}
		s := &loginScript{t: t, r: r, key: fmt.Sprint("{jump}", run, jump), m: m}
		if got := s.ask("1", now); got[0] != 0 {
			t.Fatalf("%v", got)
		}
		got := s.ask("1", now+jump)
		if got[0] == 0 || got[0] > hour {
			t.Errorf("after a jump of %d h it is blocked for %d s", jump/hour, got[0]/1e6)
		}
		if got := s.ask("0", now+jump+got[0]-1); got[0] != 1 {
			t.Errorf("a microsecond before the end: %v", got)
		}
		// Our attempt from the future stands for up to a window more.
		if got := s.ask("0", now+jump+got[0]+hour); got[0] != 0 {
			t.Errorf("still denied: %v", got)
		}
	}
}
