package ratelimit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/semaphore"
)

// hostile are subjects that somebody might send.
func hostile() []string {
	ids := []string{
		"", " ", "{}", "}{", "{", "}", "{a}", "a}", "{a", "{{", "}}", "a{b}c", "{}{}", "~", "~a", "~{", "a:block", ":block", "a}:block", "*", "?", "[a]", "\\",
		"\n", "\r\n", "a\r\nDEL x\r\n", "\x00", "a\x00", "\x00a", "\xff\xfe", "\x80", "é", "e\u0301", "ﾊ", "💥", "\u202e", "a", "A", "a ", " a", "a\n",
		"0", "-1", "1e309", "nil", "null", "undefined", "' OR 1=1", "../..", "m1:limit:x:l:{a}", "192.0.2.1", "2001:db8::1", "a@b.example",
		strings.Repeat("a", 96), strings.Repeat("a", 97), strings.Repeat("a", 98), strings.Repeat("{", 1000),
		strings.Repeat("x", 1<<20), strings.Repeat("x", 1<<20) + "y",
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		b := make([]byte, rng.IntN(12))
		for i := range b {
			b[i] = "{}~:a\x00\n\xff"[rng.IntN(8)]
		}
		ids = append(ids, string(b))
	}
	seen := map[string]bool{}
	var out []string
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}

func TestCluster_NoSubjectBreaksASlotOrMeetsAnother(t *testing.T) {
	t.Parallel()
	cfg := madcrowtest.StartCluster(t).Config()
	cfg.KeyPrefix, cfg.CommandTimeout = "app:", 10*time.Second
	r := openConfig(t, cfg)
	t.Run("limits", func(t *testing.T) { hostileLimits(t, r) })
	t.Run("logins", func(t *testing.T) { hostileLogins(t, r) })
}

func hostileLimits(t *testing.T, r *madcrow.Redis) {
	ids := hostile()
	const limit = 20
	limiters := map[string]*ratelimit.Limiter{}
	var all []*ratelimit.Limiter
	for name, a := range algorithms {
		if name == "gcra" {
			a = ratelimit.GCRA(limit)
		}
		l := must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.PerHour(limit), FailPolicy: madcrow.FailClosed, Algorithm: a}))
		limiters[name], all = l, append(all, l)
	}
	g := must[*ratelimit.Group](t)(ratelimit.Join(all...))
	places := must[*semaphore.Semaphore](t)(semaphore.New(r, "places", semaphore.Options{Limit: limit, FailPolicy: madcrow.FailClosed, LeaseTTL: time.Hour}))
	tokens := must[*ratelimit.TokenBucket](t)(ratelimit.NewTokenBucket(r, "tokens", ratelimit.TokenBucketOptions{Rate: ratelimit.PerHour(limit), Burst: limit, FailPolicy: madcrow.FailClosed}))

	// check looks at how many are taken of each.
	check := func(when string, want func(i int) int64) {
		t.Helper()
		for i, id := range ids {
			for name, l := range limiters {
				d, err := l.Peek(t.Context(), id)
				if err != nil {
					t.Fatalf("%s: %s: %q: %v", when, name, short(id), err)
				}
				if got := limit - d.Remaining; got != want(i) {
					t.Errorf("%s: %s: of %q %d are taken, want %d", when, name, short(id), got, want(i))
				}
			}
		}
	}
	for _, id := range ids { // every node has been asked once
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if _, err := tokens.Peek(t.Context(), id); err == nil {
				break
			} else if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	for _, id := range ids {
		for name, l := range limiters {
			if d, err := l.Allow(t.Context(), id); err != nil || !d.Allowed || d.Remaining != limit-1 {
				t.Fatalf("%s: %q: %+v %v", name, short(id), d, err)
			}
		}
		lease, d, err := places.TryAcquire(t.Context(), id)
		if err != nil || lease == nil || d.Remaining != limit-1 {
			t.Fatalf("places: %q: %+v %v", short(id), d, err)
		}
		defer func() {
			if err := lease.Release(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		res, err := tokens.Reserve(t.Context(), id, limit, time.Hour)
		if err != nil || !res.OK || res.Wait != 0 {
			t.Fatalf("tokens: %q: %+v %v", short(id), res, err)
		}
		if err := res.Cancel(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d, err := tokens.Penalize(t.Context(), id, 1); err != nil || d.Remaining != limit-1 {
			t.Fatalf("tokens: %q: %+v %v", short(id), d, err)
		}
	}
	check("alone", func(int) int64 { return 1 })
	for _, id := range ids {
		if j, err := g.Allow(t.Context(), id); err != nil || !j.Allowed || j.Remaining != limit-2 {
			t.Fatalf("group: %q: %+v %v", short(id), j, err)
		}
	}
	check("together", func(int) int64 { return 2 })
	for i, id := range ids {
		if i%2 == 0 {
			if err := g.Reset(t.Context(), id); err != nil {
				t.Fatalf("reset: %q: %v", short(id), err)
			}
		} else if err := limiters["log"].Block(t.Context(), id, time.Hour); err != nil {
			t.Fatalf("block: %q: %v", short(id), err)
		}
	}
	blocked := limiters["log"]
	delete(limiters, "log")
	check("after resets", func(i int) int64 { return int64(i % 2 * 2) })
	for i, id := range ids {
		if d, err := blocked.Peek(t.Context(), id); err != nil || d.Allowed == (i%2 == 1) {
			t.Errorf("block: %q: %+v %v", short(id), d, err)
		}
		if j, err := g.Allow(t.Context(), id); err != nil || j.Allowed == (i%2 == 1) {
			t.Errorf("group: %q: %+v %v", short(id), j, err)
		}
	}
}

func short(s string) string {
	if len(s) > 40 {
		return fmt.Sprintf("%s… (%d)", s[:40], len(s))
	}
	return s
}

func hostileLogins(t *testing.T, r *madcrow.Redis) {
	login := must[*ratelimit.Login](t)(ratelimit.NewLogin(r, "login", ratelimit.LoginOptions{MaxAttempts: 3, Window: time.Hour, Blocks: []time.Duration{time.Minute}, FailPolicy: madcrow.FailClosed}))
	ids := hostile()
	for _, id := range ids {
		if d, err := login.Attempt(t.Context(), id); err != nil || !d.Allowed || d.Remaining != 2 {
			t.Fatalf("%q: %+v %v", short(id), d, err)
		}
	}
	for i, id := range ids {
		if i%2 == 0 {
			if err := login.Reset(t.Context(), id); err != nil {
				t.Fatalf("%q: %v", short(id), err)
			}
		}
	}
	for i, id := range ids {
		if n, err := login.RemainingAttempts(t.Context(), id); err != nil || n != 3-i%2 {
			t.Errorf("%q: %d %v", short(id), n, err)
		}
	}
}

// While a slot moves its limits are asked for one key at a time: they count, and
// see blocks and resets.
func TestCluster_LimitsOfASlotThatMoves(t *testing.T) {
	t.Parallel()
	cl := madcrowtest.StartCluster(t)
	cfg := cl.Config()
	cfg.CommandTimeout = 2 * time.Second
	r := openConfig(t, cfg)
	other := openConfig(t, cfg) // uses one key at a time from the first call on, or after one refusal
	for name, a := range algorithms {
		if name == "gcra" {
			a = ratelimit.GCRA(100)
		}
		make := func(r *madcrow.Redis) *ratelimit.Limiter {
			return must[*ratelimit.Limiter](t)(ratelimit.New(r, "moving."+name, ratelimit.Options{Rate: ratelimit.PerDay(100), FailPolicy: madcrow.FailClosed, Algorithm: a, DeniedSubjects: -1}))
		}
		l, elsewhere := make(r), make(other)
		left := int64(100)
		ask := func(when string) {
			t.Helper()
			start := time.Now()
			d, err := l.Allow(t.Context(), "u")
			left--
			if err != nil || !d.Allowed || d.Remaining != left {
				t.Fatalf("%s, %s: %+v, %v; %d should be left", name, when, d, err, left)
			}
			if took := time.Since(start); took > cfg.CommandTimeout+time.Second {
				t.Errorf("%s, %s: it took %v", name, when, took)
			}
		}
		ask("before")
		key := r.Config().KeyPrefix + "m1:limit:moving." + name + ":" + map[string]string{"log": "l", "set": "s", "window": "w", "gcra": "g"}[name] + ":{u}"
		from, to := cl.MasterOf(t, key), cl.Nodes()[0]
		if to == from {
			to = cl.Nodes()[1]
		}
		cl.BeginMove(t, cl.Slot(key), to)
		ask("begun")
		ask("begun, and it is known")
		cl.MoveKeys(t, to, key)
		ask("its state has moved")
		if err := elsewhere.Block(t.Context(), "u", time.Minute); err != nil {
			t.Fatal(err)
		}
		if d, err := l.Allow(t.Context(), "u"); err != nil || d.Allowed || d.RetryAfter > time.Minute || d.RetryAfter < 50*time.Second {
			t.Errorf("%s: blocked while it moves: %+v, %v", name, d, err)
		}
		if d, err := elsewhere.Peek(t.Context(), "u"); err != nil || d.Allowed {
			t.Errorf("%s: blocked, seen elsewhere: %+v, %v", name, d, err)
		}
		if err := elsewhere.Reset(t.Context(), "u"); err != nil {
			t.Fatal(err)
		}
		left = 100
		ask("reset while it moves")
		cl.FinishMove(t, cl.Slot(key), to)
		ask("it has moved")
	}
}

// Groups, logins, token buckets and semaphores failed for as long as a cluster
// moved the slot of their keys.
func TestCluster_EveryKindOfLimitGoesOnWhileItsSlotMoves(t *testing.T) {
	t.Parallel()
	cl := madcrowtest.StartCluster(t)
	cfg := cl.Config()
	cfg.CommandTimeout = 2 * time.Second
	r := openConfig(t, cfg)
	limit := func(name string, n int64, a ratelimit.Algorithm) *ratelimit.Limiter {
		return must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.PerDay(n), FailPolicy: madcrow.FailClosed, Algorithm: a, DeniedSubjects: -1}))
	}
	few, many := limit("few", 4, ratelimit.SlidingLog()), limit("many", 100, ratelimit.GCRA(100))
	group := must[*ratelimit.Group](t)(ratelimit.Join(few, many))
	bucket := must[*ratelimit.TokenBucket](t)(ratelimit.NewTokenBucket(r, "tokens", ratelimit.TokenBucketOptions{Rate: ratelimit.PerDay(10), Burst: 10, FailPolicy: madcrow.FailClosed, DeniedSubjects: -1}))
	places := must[*semaphore.Semaphore](t)(semaphore.New(r, "places", semaphore.Options{Limit: 2, FailPolicy: madcrow.FailClosed}))
	login := must[*ratelimit.Login](t)(ratelimit.NewLogin(r, "login", ratelimit.LoginOptions{MaxAttempts: 2, Blocks: []time.Duration{time.Minute}, FailPolicy: madcrow.FailClosed, DeniedSubjects: -1}))

	first := func() {
		t.Helper()
		if j, err := group.Allow(t.Context(), "u"); err != nil || !j.Allowed || j.Remaining != 3 {
			t.Fatalf("%+v %v", j, err)
		}
		if d, err := bucket.AllowN(t.Context(), "u", 4); err != nil || !d.Allowed || d.Remaining != 6 {
			t.Fatalf("%+v %v", d, err)
		}
		if d, err := login.Attempt(t.Context(), "u"); err != nil || !d.Allowed || d.Remaining != 1 {
			t.Fatalf("%+v %v", d, err)
		}
	}
	first()
	held, _, err := places.TryAcquire(t.Context(), "u")
	if err != nil || held == nil {
		t.Fatal(err)
	}

	target := func(key string) *madcrowtest.Server {
		if to := cl.Nodes()[0]; to != cl.MasterOf(t, key) {
			return to
		}
		return cl.Nodes()[1]
	}
	keys := []string{r.Config().KeyPrefix + "m1:limit:few:l:{u}", r.Config().KeyPrefix + "login_attempts:u"}
	for _, key := range keys {
		cl.BeginMove(t, cl.Slot(key), target(key))
	}

	for i := range 4 {
		j, err := group.AllowN(t.Context(), "u", 1, 2)
		if err != nil || j.Allowed != (i < 3) || j.Limits[1].Remaining != max(97-2*int64(i), 93) {
			t.Errorf("group, request %d: %+v %v", i, j, err)
		}
	}
	if d, err := many.Peek(t.Context(), "u"); err != nil || d.Remaining != 93 {
		t.Errorf("a denied request was counted: %+v %v", d, err)
	}
	if d, err := bucket.Penalize(t.Context(), "u", 2); err != nil || d.Remaining != 4 {
		t.Errorf("penalize: %+v %v", d, err)
	}
	if d, err := bucket.Reward(t.Context(), "u", 1); err != nil || d.Remaining != 5 {
		t.Errorf("reward: %+v %v", d, err)
	}
	if n, d, err := bucket.AllowAtMost(t.Context(), "u", 3); err != nil || n != 3 || d.Remaining != 2 {
		t.Errorf("at most: %d %+v %v", n, d, err)
	}
	if res, err := bucket.Reserve(t.Context(), "u", 2, time.Second); err != nil || !res.OK || res.Wait != 0 {
		t.Errorf("reserve: %+v %v", res, err)
	}
	if res, err := bucket.Reserve(t.Context(), "u", 2, time.Second); err != nil || res.OK || res.Wait <= time.Second {
		t.Errorf("a reservation that waits too long: %+v %v", res, err)
	}
	second, d, err := places.TryAcquire(t.Context(), "u")
	if err != nil || second == nil || d.Remaining != 0 {
		t.Fatalf("lease: %+v %v", d, err)
	}
	if none, d, err := places.TryAcquire(t.Context(), "u"); err != nil || none != nil || d.Allowed {
		t.Errorf("a third lease: %+v %v", d, err)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if d, err := places.Peek(t.Context(), "u"); err != nil || d.Remaining != 1 {
		t.Errorf("after a release: %+v %v", d, err)
	}
	if err := second.Release(t.Context()); err != nil {
		t.Error(err)
	}
	for i := range 2 {
		if d, err := login.Attempt(t.Context(), "u"); err != nil || d.Allowed != (i < 1) {
			t.Errorf("login, attempt %d: %+v %v", i, d, err)
		}
	}
	if err := login.Reset(t.Context(), "u"); err != nil {
		t.Error(err)
	}
	if err := group.Reset(t.Context(), "u"); err != nil {
		t.Error(err)
	}
	if err := bucket.Reset(t.Context(), "u"); err != nil {
		t.Error(err)
	}
	first()
}
