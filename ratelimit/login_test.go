package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
)

var fiveLogins = ratelimit.LoginOptions{MaxAttempts: 5, Window: 15 * time.Minute}

var runs atomic.Int64

// fresh is open with a prefix that no earlier run of the test has used.
func fresh(t *testing.T) *madcrow.Redis {
	t.Helper()
	cfg := config
	cfg.KeyPrefix = fmt.Sprint(t.Name(), runs.Add(1), ":")
	return openConfig(t, cfg)
}

func newLogin(t *testing.T, r *madcrow.Redis, cfg ratelimit.LoginOptions, fail madcrow.FailPolicy) *ratelimit.Login {
	t.Helper()
	cfg.FailPolicy, cfg.FastAPILayout = fail, true
	return must[*ratelimit.Login](t)(ratelimit.NewLogin(r, "login", cfg))
}

func about(d, want time.Duration) bool { return d <= want && d > want-20*time.Second }

func TestLogin_VerbsOfFastAPIMadcrow(t *testing.T) {
	l := newLogin(t, fresh(t), fiveLogins, madcrow.FailClosed)
	ctx := t.Context()
	for i := range 5 {
		if limited, err := l.IsRateLimited(ctx, "alice"); limited || err != nil {
			t.Fatalf("before failure %d: %v %v", i+1, limited, err)
		}
		d, err := l.Increment(ctx, "alice")
		if err != nil || d.Allowed != (i < 4) || d.Remaining != int64(4-i) || (d.RetryAfter > 0) != (i == 4) {
			t.Fatalf("failure %d: %+v %v", i+1, d, err)
		}
		if n, err := l.RemainingAttempts(ctx, "alice"); n != 4-i || err != nil {
			t.Errorf("%d remain after failure %d, %v", n, i+1, err)
		}
		if left, err := l.TimeUntilReset(ctx, "alice"); !about(left, 15*time.Minute) || err != nil {
			t.Errorf("time until reset: %v %v", left, err)
		}
	}
	if limited, err := l.IsRateLimited(ctx, "alice"); !limited || err != nil {
		t.Errorf("after five failures: %v %v", limited, err)
	}
	if d, err := l.Attempt(ctx, "alice"); d.Allowed || !about(d.RetryAfter, 15*time.Minute) || err != nil {
		t.Errorf("an attempt after five failures: %+v %v", d, err)
	}
	if limited, err := l.IsRateLimited(ctx, "bob"); limited || err != nil {
		t.Errorf("somebody else: %v %v", limited, err)
	}
	if err := l.Reset(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	if n, err := l.RemainingAttempts(ctx, "alice"); n != 5 || err != nil {
		t.Errorf("after the reset %d remain, %v", n, err)
	}
	if left, err := l.TimeUntilReset(ctx, "alice"); left != 0 || err != nil {
		t.Errorf("after the reset: %v %v", left, err)
	}
	if d, err := l.Attempt(ctx, "alice"); !d.Allowed || d.Remaining != 4 || d.Limiter != "login" || d.Limit != 5 || err != nil {
		t.Errorf("after the reset: %+v %v", d, err)
	}
}

func TestLogin_ParallelGuessesCannotSlipThrough(t *testing.T) {
	r := fresh(t)
	for name, cfg := range map[string]ratelimit.LoginOptions{
		"window": fiveLogins,
		"blocks": {MaxAttempts: 5, Blocks: []time.Duration{time.Minute, time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogin(t, r, cfg, madcrow.FailClosed)
			var passed atomic.Int64
			var wg sync.WaitGroup
			for range 200 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					defer cancel()
					d, err := l.Attempt(ctx, name)
					if err != nil {
						t.Error(err)
					}
					if d.Allowed {
						passed.Add(1)
					}
				})
			}
			wg.Wait()
			if n := passed.Load(); n != 5 {
				t.Errorf("%d of 200 parallel attempts passed, want 5", n)
			}
		})
	}
}

func TestLogin_DeniedAttemptsProlongNothing(t *testing.T) {
	l := newLogin(t, fresh(t), ratelimit.LoginOptions{MaxAttempts: 1, Window: 500 * time.Millisecond, DeniedSubjects: -1}, madcrow.FailClosed)
	begin := time.Now()
	for n := 0; ; {
		d, err := l.Attempt(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		if d.Allowed {
			if n++; n == 2 {
				break
			}
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatal("who keeps trying is never let in")
		}
	}
	if took := time.Since(begin); took < 450*time.Millisecond {
		t.Errorf("admitted again after %v", took)
	}
}

// Failures that come at the same time are more than the limit; no more than
// decide something are kept.
func TestLogin_IncrementKeepsNoMoreThanTheLimit(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	l := newLogin(t, openConfig(t, s.Config()), fiveLogins, madcrow.FailClosed)
	for range 20 {
		if d, err := l.Increment(t.Context(), "alice"); err != nil || d.RetryAfter > 15*time.Minute {
			t.Fatalf("%+v %v", d, err)
		}
	}
	if n := s.Do(t, "ZCARD", "login_attempts:alice"); n != int64(5) {
		t.Errorf("%v entries", n)
	}
	if ms := s.Do(t, "PTTL", "login_attempts:alice").(int64); ms > 900_002 || ms < 880_000 {
		t.Errorf("it lives for %d ms", ms)
	}
}

// pythonTime is what str(time.time()) gives.
func pythonTime(at time.Time) string {
	return strconv.FormatFloat(float64(at.UnixMicro())/1e6, 'f', -1, 64)
}

func TestLogin_CountsAttemptsOfFastAPIMadcrow(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	l := newLogin(t, openConfig(t, s.Config()), fiveLogins, madcrow.FailClosed)
	ctx := t.Context()
	now := time.Now()
	for _, age := range []time.Duration{20 * time.Minute, 14 * time.Minute, 3 * time.Minute, time.Second} {
		text := pythonTime(now.Add(-age))
		s.Do(t, "ZADD", "login_attempts:alice", text, text)
		s.Do(t, "EXPIRE", "login_attempts:alice", "900")
	}
	if n, err := l.RemainingAttempts(ctx, "alice"); n != 2 || err != nil {
		t.Errorf("%d remain beside Python's three, %v", n, err)
	}
	if left, err := l.TimeUntilReset(ctx, "alice"); !about(left, time.Minute) || err != nil {
		t.Errorf("Python's oldest leaves in %v, %v", left, err)
	}
	for i := range 2 {
		if d, err := l.Attempt(ctx, "alice"); !d.Allowed || d.Remaining != int64(1-i) || err != nil {
			t.Errorf("%+v %v", d, err)
		}
	}
	if d, err := l.Attempt(ctx, "alice"); d.Allowed || !about(d.RetryAfter, time.Minute) || err != nil {
		t.Errorf("%+v %v", d, err)
	}
	s.Do(t, "DEL", "login_attempts:alice") // a success in Python
	waitFor(t, func() bool {
		limited, err := l.IsRateLimited(ctx, "alice")
		return !limited && err == nil
	})
}

func TestLogin_PythonCountsAndTrimsOurAttempts(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	l := newLogin(t, openConfig(t, s.Config()), fiveLogins, madcrow.FailClosed)
	ctx := t.Context()
	for i := range 4 {
		verb := l.Attempt
		if i%2 == 0 {
			verb = l.Increment
		}
		if _, err := verb(ctx, "alice"); err != nil {
			t.Fatal(err)
		}
	}
	// FastAPI Madcrow: trim by its clock, then count.
	trim := func(at time.Time) any {
		return s.Do(t, "ZREMRANGEBYSCORE", "login_attempts:alice", "0", pythonTime(at.Add(-15*time.Minute)))
	}
	if n := trim(time.Now()); n != int64(0) {
		t.Errorf("Python trims %v that are not old", n)
	}
	if n := s.Do(t, "ZCARD", "login_attempts:alice"); n != int64(4) {
		t.Errorf("Python counts %v", n)
	}
	entries := s.Do(t, "ZRANGE", "login_attempts:alice", "0", "0", "WITHSCORES").([]any)
	if score, err := strconv.ParseFloat(entries[1].(string), 64); err != nil || time.Since(time.UnixMicro(int64(score*1e6))).Abs() > 10*time.Second {
		t.Errorf("the score %v is not Unix seconds: %v", entries[1], err)
	}
	text := pythonTime(time.Now())
	s.Do(t, "ZADD", "login_attempts:alice", text, text) // a failure in Python
	if limited, err := l.IsRateLimited(ctx, "alice"); !limited || err != nil {
		t.Errorf("four of ours and one of Python's: %v %v", limited, err)
	}
	if n := trim(time.Now().Add(16 * time.Minute)); n != int64(5) {
		t.Errorf("Python trims %v of 5 old ones", n)
	}
	if err := l.Reset(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	if n := s.Do(t, "EXISTS", "login_attempts:alice"); n != int64(0) {
		t.Error("our success is none for Python")
	}
}

func TestLogin_NoAttemptsLockEveryoneOutAndDisabledAdmitsAll(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := openConfig(t, s.Config())
	locked := newLogin(t, r, ratelimit.LoginOptions{MaxAttempts: -1}, madcrow.FailOpen)
	off := newLogin(t, r, ratelimit.LoginOptions{Disabled: true, MaxAttempts: 5}, madcrow.FailClosed)
	s.Kill() // neither asks it
	ctx := t.Context()
	for l, allowed := range map[*ratelimit.Login]bool{locked: false, off: true} {
		for range 10 {
			if d, err := l.Attempt(ctx, "alice"); d.Allowed != allowed || d.Degraded || d.Source != ratelimit.SourceBypass || err != nil {
				t.Fatalf("want allowed %v: %+v %v", allowed, d, err)
			}
			if limited, err := l.IsRateLimited(ctx, "alice"); limited == allowed || err != nil {
				t.Fatalf("want limited %v: %v %v", !allowed, limited, err)
			}
			if _, err := l.Increment(ctx, "alice"); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Reset(ctx, "alice"); err != nil {
			t.Error(err)
		}
		if l.Health().Degraded {
			t.Error("Redis was asked")
		}
	}
	if n, err := locked.RemainingAttempts(ctx, "alice"); n != 0 || err != nil {
		t.Error(n, err)
	}
	if d, err := locked.TimeUntilReset(ctx, "alice"); d != ratelimit.Never || err != nil {
		t.Error(d, err)
	}
	if n, err := off.RemainingAttempts(ctx, "alice"); n != 5 || err != nil {
		t.Error(n, err)
	}
	if d, err := off.TimeUntilReset(ctx, "alice"); d != 0 || err != nil {
		t.Error(d, err)
	}
}

func TestLogin_WithoutRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := openConfig(t, s.Config())
	closed := newLogin(t, r, fiveLogins, madcrow.FailClosed)
	free := newLogin(t, r, fiveLogins, madcrow.FailOpen)
	local := newLogin(t, r, fiveLogins, madcrow.FailLocal(2))
	ctx := t.Context()
	if d, err := closed.Attempt(ctx, "alice"); !d.Allowed || err != nil {
		t.Fatalf("%+v %v", d, err)
	}
	s.Kill()

	away := func(what string, err error) {
		t.Helper()
		var e *madcrow.Error
		if !errors.Is(err, madcrow.ErrUnavailable) || !errors.As(err, &e) || e.Name != "login" {
			t.Errorf("%s: %v", what, err)
		}
	}
	d, err := closed.Attempt(ctx, "alice")
	away("closed: attempt", err)
	limited, err := closed.IsRateLimited(ctx, "alice")
	away("closed: is rate limited", err)
	if d.Allowed || !limited || !closed.Health().Degraded {
		t.Errorf("closed: %+v, limited %v, %+v", d, limited, closed.Health())
	}
	_, err = closed.Increment(ctx, "alice")
	away("closed: increment", err)

	for range 10 {
		if d, err := free.Attempt(ctx, "alice"); !d.Allowed || !d.Degraded || d.Cause == nil || err != nil {
			t.Errorf("open: %+v %v", d, err)
		}
		if limited, err := free.IsRateLimited(ctx, "alice"); limited || err != nil {
			t.Errorf("open: %v %v", limited, err)
		}
		if d, err := free.Increment(ctx, "alice"); !d.Degraded || err != nil {
			t.Errorf("open: %+v %v", d, err)
		}
	}

	// Two processes share five: this one has two.
	for i := range 4 {
		if limited, err := local.IsRateLimited(ctx, "alice"); limited != (i >= 2) || err != nil {
			t.Errorf("local, question %d: %v %v", i, limited, err)
		}
		if d, err := local.Increment(ctx, "alice"); d.Allowed != (i < 1) || !d.Degraded || (d.RetryAfter > 0) == d.Allowed || err != nil {
			t.Errorf("local, failure %d: %+v %v", i, d, err)
		}
		if d, err := local.Attempt(ctx, "bob"); d.Allowed != (i < 2) || !d.Degraded || err != nil {
			t.Errorf("local, attempt %d: %+v %v", i, d, err)
		}
	}
	for _, l := range []*ratelimit.Login{closed, free, local} {
		away("reset", l.Reset(ctx, "alice"))
		_, err := l.RemainingAttempts(ctx, "alice")
		away("remaining", err)
		_, err = l.TimeUntilReset(ctx, "alice")
		away("time until reset", err)
	}
	if limited, err := local.IsRateLimited(ctx, "alice"); limited || err != nil {
		t.Errorf("local, after the reset: %v %v", limited, err)
	}
	s.Restart()
	waitFor(t, func() bool {
		d, err := local.Attempt(ctx, "carol")
		return err == nil && !d.Degraded && !local.Health().Degraded
	})
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen within 10 s")
		}
	}
}

func TestLogin_BlocksGrowAndASuccessEndsThem(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := ratelimit.LoginOptions{MaxAttempts: 2, Blocks: []time.Duration{time.Second, 2 * time.Second, time.Hour}}
	l := newLogin(t, openConfig(t, s.Config()), cfg, madcrow.FailClosed)
	ctx := t.Context()
	fail := func() {
		t.Helper()
		for i := range 2 {
			if d, err := l.Attempt(ctx, "alice"); !d.Allowed || d.Remaining != int64(1-i) || err != nil {
				t.Fatalf("attempt %d: %+v %v", i, d, err)
			}
		}
	}
	for _, block := range cfg.Blocks[:2] {
		fail()
		begin := time.Now()
		d, err := l.Attempt(ctx, "alice")
		if d.Allowed || d.RetryAfter > block || d.RetryAfter <= block-900*time.Millisecond || err != nil {
			t.Fatalf("%+v %v", d, err)
		}
		waitFor(t, func() bool {
			limited, err := l.IsRateLimited(ctx, "alice")
			return !limited && err == nil
		})
		if took := time.Since(begin); took < block-900*time.Millisecond {
			t.Errorf("a block of %v ended after %v", block, took)
		}
	}
	fail()
	if left, err := l.TimeUntilReset(ctx, "alice"); !about(left, time.Hour) || err != nil {
		t.Errorf("the third block: %v %v", left, err)
	}
	if n, err := l.RemainingAttempts(ctx, "alice"); n != 0 || err != nil {
		t.Errorf("%d remain, %v", n, err)
	}
	// It is known for a day after its end.
	if ms := s.Do(t, "PTTL", "m1:login:{login_attempts:alice}").(int64); ms < 24*3600_000 || ms > 25*3600_000+2 {
		t.Errorf("the blocks are remembered for %d ms", ms)
	}
	if err := l.Reset(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	if n := s.Do(t, "DBSIZE"); n != int64(0) {
		t.Errorf("%v keys after the reset", n)
	}
	fail()
	if left, err := l.TimeUntilReset(ctx, "alice"); left > time.Second || err != nil {
		t.Errorf("after a success the first block: %v %v", left, err)
	}
}

func TestLogin_AFailureThatCompletesTheLimitSaysHowLongTheBlockIs(t *testing.T) {
	cfg := ratelimit.LoginOptions{MaxAttempts: 2, Blocks: []time.Duration{time.Hour}}
	l := newLogin(t, fresh(t), cfg, madcrow.FailClosed)
	for i := range 4 {
		d, err := l.Increment(t.Context(), "alice")
		if err != nil || d.Allowed != (i < 1) || i >= 1 && (!about(d.RetryAfter, time.Hour) || d.Remaining != 0) {
			t.Errorf("failure %d: %+v %v", i+1, d, err)
		}
	}
}

// On a cluster attempts and blocks of one identifier must be in one slot,
// whatever the identifier, although the key of the FastAPI layout has no hash tag.
func TestLogin_OnACluster(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	cfg := c.Config()
	cfg.KeyPrefix = "app:"
	l := newLogin(t, openConfig(t, cfg), ratelimit.LoginOptions{MaxAttempts: 1, Blocks: []time.Duration{time.Hour}}, madcrow.FailClosed)
	ids := []string{"", "a{b}c", "}{", "{}x", "~x", strings.Repeat("x", 256), "a b\x00\n", "Zoë"}
	for i := range 20 {
		ids = append(ids, fmt.Sprint("user", i))
	}
	for _, id := range ids {
		if d, err := l.Attempt(t.Context(), id); !d.Allowed || err != nil {
			t.Errorf("%q: %+v %v", id, d, err)
		}
		if d, err := l.Attempt(t.Context(), id); d.Allowed || err != nil {
			t.Errorf("%q: %+v %v", id, d, err)
		}
		if err := l.Reset(t.Context(), id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
		if d, err := l.Attempt(t.Context(), id); !d.Allowed || err != nil {
			t.Errorf("%q: %+v %v", id, d, err)
		}
	}
}

func TestLogin_KeysAreThoseOfTheFastAPILayoutWhereTheyCanBe(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.KeyPrefix = "app:"
	l := newLogin(t, openConfig(t, cfg), fiveLogins, madcrow.FailClosed)
	for _, id := range []string{"alice@example.com", "a b", "{x}", "~x", strings.Repeat("ä", 200)} {
		if _, err := l.Attempt(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	keys := s.Do(t, "KEYS", "*").([]any)
	hashed := 0
	for _, k := range keys {
		if key := k.(string); strings.HasPrefix(key, "app:login_attempts:~") && len(key) == len("app:login_attempts:~")+43 {
			hashed++
		}
	}
	if hashed != 3 || !slices.Contains(keys, any("app:login_attempts:alice@example.com")) || !slices.Contains(keys, any("app:login_attempts:a b")) {
		t.Errorf("%q", keys)
	}
}

func TestLoginKey_IsUnambiguous(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		user string
		addr netip.Addr
		want string
	}{
		{"Alice", addr("192.0.2.1"), "192.0.2.1|alice"},
		{"ÄNNE", addr("::ffff:192.0.2.1"), "192.0.2.1|änne"},
		{"alice", addr("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64|alice"},
		{"alice", addr("fe80::1%eth|0"), "fe80::/64|alice"},
		{"192.0.2.1|alice", addr("192.0.2.2"), "192.0.2.2|192.0.2.1|alice"},
		{"alice", netip.Addr{}, "unknown|alice"},
	} {
		if got := ratelimit.LoginKey(c.user, c.addr); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// Two logins of one program had one state, whatever they were.
func TestNewLogin_TheNameSeparatesAttemptsAndTheFastAPILayoutDoesNot(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := openConfig(t, s.Config())
	login := func(name string, fastAPI bool) *ratelimit.Login {
		return must[*ratelimit.Login](t)(ratelimit.NewLogin(r, name, ratelimit.LoginOptions{
			MaxAttempts: 1, Blocks: []time.Duration{time.Hour}, FailPolicy: madcrow.FailClosed, FastAPILayout: fastAPI,
		}))
	}
	attempt := func(l *ratelimit.Login, id string) ratelimit.Decision {
		t.Helper()
		d, err := l.Attempt(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	users, admins, python := login("users", false), login("admins", false), login("users", true)
	for _, id := range []string{"ada", ""} {
		if d := attempt(users, id); !d.Allowed || d.Limiter != "users" {
			t.Errorf("%q: %+v", id, d)
		}
		if attempt(users, id).Allowed {
			t.Errorf("%q: admitted twice", id)
		}
		if !attempt(admins, id).Allowed || !attempt(python, id).Allowed {
			t.Errorf("%q: another login counts the same attempts", id)
		}
	}
	keys, _ := s.Do(t, "KEYS", "*").([]any)
	for _, want := range []string{"m1:login:users:{ada}", "m1:login:users:{ada}:block", "m1:login:admins:{~}", "login_attempts:ada"} {
		if !slices.Contains(keys, any(want)) {
			t.Errorf("%s is not among %v", want, keys)
		}
	}
}
