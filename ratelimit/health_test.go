package ratelimit_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// with returns the lines that hold a text.
func (l *lines) with(text string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// What is under the keys of a limit may be of another program: a hash, a text of
// another form. Each call failed for ever: a limit that fails closed refused
// everything, one that fails open admitted everything.
func TestLimiter_ForeignValuesAreReplacedAndLogged(t *testing.T) {
	for _, fail := range []madcrow.FailPolicy{madcrow.FailClosed, madcrow.FailOpen} {
		t.Run(fail.String(), func(t *testing.T) {
			foreignValues(t, fail)
		})
	}
}

func foreignValues(t *testing.T, fail madcrow.FailPolicy) {
	var log lines
	cfg := config
	cfg.KeyPrefix, cfg.Logger = t.Name()+":", log.logger()
	r := openConfig(t, cfg)
	do := func(args ...string) {
		t.Helper()
		if err := r.Do(t.Context(), r.B().Arbitrary(args...).Build()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	// It holds something else, and expects that the limit works afterwards.
	try := func(name, key string, foreign []string, ask func() (ratelimit.Decision, error)) {
		t.Helper()
		do("DEL", key)
		do(append([]string{foreign[0], key}, foreign[1:]...)...)
		d, err := ask()
		if err != nil || d.Degraded || !d.Allowed {
			t.Errorf("%s over %v: %+v %v", name, foreign, d, err)
		}
	}
	hash, text := []string{"HSET", "a", "b"}, []string{"SET", "foreign"}
	limits := map[string]*ratelimit.Limiter{}
	var all []*ratelimit.Limiter
	letters := map[string]string{"log": "l", "set": "s", "window": "w", "gcra": "g"}
	for name, a := range algorithms {
		l := must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.PerMinute(5), FailPolicy: fail, Algorithm: a, DeniedSubjects: -1}))
		limits[name] = l
		all = append(all, l)
		key := cfg.KeyPrefix + "m1:limit:" + name + ":" + letters[name] + ":{"
		foreign := [][]string{hash, text, {"SET", ""}, {"SET", "1:2"}, {"SET", "x:y:z"}, {"RPUSH", "x"}, {"RPUSH", "1", "y"}, {"SADD", "x"}}
		for _, f := range foreign {
			try(name, key+"allow}", f, func() (ratelimit.Decision, error) { return l.Allow(t.Context(), "allow") })
			try(name+" peek", key+"peek}", f, func() (ratelimit.Decision, error) { return l.Peek(t.Context(), "peek") })
		}
		for _, f := range [][]string{hash, text, {"SET", "a:b"}, {"SET", "9e999:9e999"}, {"RPUSH", "x"}} {
			try(name+"'s block", key+"block}:block", f, func() (ratelimit.Decision, error) { return l.Allow(t.Context(), "block") })
			if err := l.Reset(t.Context(), "block"); err != nil {
				t.Fatal(err)
			}
		}
		// It counts from then on.
		do("DEL", key+"counts}")
		do("SADD", key+"counts}", "x")
		for i := range 6 {
			if d, err := l.Allow(t.Context(), "counts"); err != nil || d.Degraded || d.Allowed != (i < 5) {
				t.Errorf("%s: request %d: %+v %v", name, i, d, err)
			}
		}
		if n := len(log.with(key + "counts}")); n != 1 {
			t.Errorf("%s: logged %d times", name, n)
		}
	}
	g := must[*ratelimit.Group](t)(ratelimit.Join(all...))
	for _, l := range all {
		key := cfg.KeyPrefix + "m1:limit:" + l.Name() + ":" + letters[l.Name()] + ":{group}"
		try("a group's "+l.Name(), key, []string{"SADD", "x"}, func() (ratelimit.Decision, error) {
			j, err := g.Allow(t.Context(), "group")
			if resetErr := g.Reset(t.Context(), "group"); resetErr != nil {
				t.Error(resetErr)
			}
			return j.Decision, err
		})
		try("a group's block of "+l.Name(), key+":block", text, func() (ratelimit.Decision, error) {
			j, err := g.Allow(t.Context(), "group")
			return j.Decision, err
		})
	}
	b := must[*ratelimit.TokenBucket](t)(ratelimit.NewTokenBucket(r, "bucket", ratelimit.TokenBucketOptions{Rate: ratelimit.PerHour(60), Burst: 10, FailPolicy: fail}))
	for name, ask := range map[string]func(subject string) (ratelimit.Decision, error){
		"at most": func(s string) (ratelimit.Decision, error) {
			_, d, err := b.AllowAtMost(t.Context(), s, 3)
			return d, err
		},
		"reserve": func(s string) (ratelimit.Decision, error) {
			res, err := b.Reserve(t.Context(), s, 1, time.Second)
			if err != nil {
				return ratelimit.Decision{}, err
			}
			return ratelimit.Decision{Allowed: res.OK, Degraded: res.Degraded}, nil
		},
		"penalize": func(s string) (ratelimit.Decision, error) { return b.Penalize(t.Context(), s, 1) },
		"reward":   func(s string) (ratelimit.Decision, error) { return b.Reward(t.Context(), s, 1) },
	} {
		for _, f := range [][]string{hash, text} {
			try(name, cfg.KeyPrefix+"m1:limit:bucket:g:{"+f[0]+"}", f, func() (ratelimit.Decision, error) { return ask(f[0]) })
		}
	}
	login := must[*ratelimit.Login](t)(ratelimit.NewLogin(r, "login", ratelimit.LoginOptions{FastAPILayout: true, MaxAttempts: 3, Blocks: []time.Duration{time.Minute}, FailPolicy: fail}))
	attempts := cfg.KeyPrefix + "login_attempts:alice"
	for _, key := range []string{attempts, cfg.KeyPrefix + "m1:login:{" + attempts + "}"} {
		for _, f := range [][]string{hash, text, {"SET", strings.Repeat("9", 400) + ":" + strings.Repeat("9", 400) + ":1"}} {
			try("a login", key, f, func() (ratelimit.Decision, error) { return login.Attempt(t.Context(), "alice") })
			if err := login.Reset(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
			try("a failed login", key, f, func() (ratelimit.Decision, error) { return login.Increment(t.Context(), "alice") })
			if err := login.Reset(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Those of FastAPI Madcrow are no foreign values.
	do("ZADD", attempts, "1", "1.0", "2", "whatever")
	if left, err := login.RemainingAttempts(t.Context(), "alice"); err != nil || left != 3 {
		t.Errorf("%d %v", left, err)
	}
}

// Where the value may not be deleted the call fails by name, and after it the
// limit works again.
func TestLimiter_AForeignValueThatMayNotBeDeletedIsTheError(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	admin := openConfig(t, srv.Config())
	do := func(args ...string) {
		t.Helper()
		if err := admin.Do(t.Context(), admin.B().Arbitrary(args...).Build()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	do("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-del")
	cfg := srv.Config()
	cfg.Username, cfg.Password = "app", "secret"
	l := must[*ratelimit.Limiter](t)(ratelimit.New(openConfig(t, cfg), "n", ratelimit.Options{Rate: ratelimit.PerMinute(5), FailPolicy: madcrow.FailClosed}))
	do("SADD", "m1:limit:n:l:{a}", "x")
	_, err := l.Allow(t.Context(), "a")
	if e := (*madcrow.Error)(nil); !errors.As(err, &e) || e.Kind != madcrow.KindWrongType || e.Outcome != madcrow.OutcomeNotApplied || !strings.Contains(err.Error(), "m1:limit:n:l:{a}") {
		t.Errorf("%v", err)
	}
	if d, err := l.Allow(t.Context(), "b"); err != nil || !d.Allowed {
		t.Errorf("another subject: %+v %v", d, err)
	}
}

// A limit that fails open admitted everything for as long as Redis was away, or
// refused the script, and nothing said so.
func TestLimiter_SaysOnceThatItAdmitsWithoutRedisAndOnceThatItIsOver(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	var log lines
	cfg := srv.Config()
	cfg.Logger, cfg.CommandTimeout = log.logger(), 50*time.Millisecond
	r := openConfig(t, cfg)
	limits := map[string]*ratelimit.Limiter{
		"open":   must[*ratelimit.Limiter](t)(ratelimit.New(r, "opens", ratelimit.Options{Rate: ratelimit.PerMinute(100), FailPolicy: madcrow.FailOpen})),
		"local":  must[*ratelimit.Limiter](t)(ratelimit.New(r, "locals", ratelimit.Options{Rate: ratelimit.PerMinute(4), FailPolicy: madcrow.FailLocal(2)})),
		"closed": must[*ratelimit.Limiter](t)(ratelimit.New(r, "closes", ratelimit.Options{Rate: ratelimit.PerMinute(100), FailPolicy: madcrow.FailClosed})),
	}
	const begins, ends = "Redis is unavailable", "enforced by Redis again"
	ask := func(n int) {
		for range n {
			for _, l := range limits {
				_, _ = l.Allow(context.WithoutCancel(t.Context()), "a")
			}
		}
	}
	srv.Pause()
	ask(3)
	srv.Resume()
	eventually(t, "one that is short", func() bool { ask(1); return !limits["open"].Health().Degraded })
	time.Sleep(1100 * time.Millisecond)
	ask(1)
	if logged := append(log.with(begins), log.with(ends)...); len(logged) != 0 {
		t.Errorf("a short outage is logged: %q", logged)
	}

	srv.Pause()
	for start := time.Now(); time.Since(start) < 1500*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		ask(1)
	}
	srv.Resume()
	for _, name := range []string{"opens", "locals"} {
		if logged := log.with("limit=" + name); len(logged) == 0 || len(logged) > 2 || !strings.Contains(logged[0], "level=WARN") || !strings.Contains(logged[0], "reason=") {
			t.Errorf("%s: %q", name, logged) // the time-out, and that it is away
		}
	}
	eventually(t, "that it is over", func() bool { ask(1); return len(log.with(ends)) == 2 })
	ask(3)
	if logged := log.with(ends); len(logged) != 2 || !strings.Contains(logged[0], "lasted=") || !strings.Contains(logged[1], "admitted=") {
		t.Errorf("%q", logged)
	}
	if logged := log.with("limit=opens"); strings.Contains(logged[len(logged)-1], "admitted=0") {
		t.Errorf("%q", logged)
	}
	if logged := log.with("limit=closes"); len(logged) != 0 {
		t.Errorf("its callers have the error: %q", logged)
	}
}
