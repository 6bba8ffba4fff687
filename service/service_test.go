package service

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
)

// start returns a service on a Redis of its own.
func start(t *testing.T, change ...func(*madcrow.Config)) (*Service, *madcrowtest.Server) {
	t.Helper()
	srv := madcrowtest.StartRedis(t)
	return open(t, srv, change...), srv
}

func open(t *testing.T, srv *madcrowtest.Server, change ...func(*madcrow.Config)) *Service {
	t.Helper()
	return openConfig(t, srv.Config(), change...)
}

func openConfig(t *testing.T, cfg madcrow.Config, change ...func(*madcrow.Config)) *Service {
	t.Helper()
	cfg.CommandTimeout = 5 * time.Second // a busy machine is no failure here
	cfg.Require = true
	for _, c := range change {
		c(&cfg)
	}
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return New(r, Options{})
}

func TestCache_MissIsAValueAndLifetimesAreReturned(t *testing.T) {
	s, srv := start(t)
	ctx := t.Context()

	if v, found, err := s.GetCache(ctx, "a"); v != "" || found || err != nil {
		t.Fatalf("missing key: %q %v %v", v, found, err)
	}
	if e, err := s.GetCacheWithTTL(ctx, "a"); e != (Entry{}) || err != nil {
		t.Fatalf("missing key: %+v %v", e, err)
	}
	if ttl, found, err := s.TTL(ctx, "a"); ttl != 0 || found || err != nil {
		t.Fatalf("TTL of a missing key: %v %v %v", ttl, found, err)
	}
	if existed, err := s.DeleteCache(ctx, "a"); existed || err != nil {
		t.Fatalf("delete of a missing key: %v %v", existed, err)
	}

	must(t, s.SetCache(ctx, "a", "", 0)) // an empty value is a value
	if e, err := s.GetCacheWithTTL(ctx, "a"); !e.Found || e.Value != "" || e.TTL != NoLifetime || err != nil {
		t.Fatalf("no lifetime: %+v %v", e, err)
	}
	if ttl, found, err := s.TTL(ctx, "a"); ttl != NoLifetime || !found || err != nil {
		t.Fatalf("TTL without a lifetime: %v %v %v", ttl, found, err)
	}
	must(t, s.SetCache(ctx, "a", "b", time.Hour))
	if e, err := s.GetCacheWithTTL(ctx, "a"); e.Value != "b" || e.TTL <= 59*time.Minute || e.TTL > time.Hour || err != nil {
		t.Fatalf("with a lifetime: %+v %v", e, err)
	}
	if got := srv.Do(t, "TTL", "a"); got != int64(3600) {
		t.Errorf("TTL in Redis = %v", got)
	}
	must(t, s.SetCache(ctx, "short", "b", 1500*time.Millisecond))
	if got := srv.Do(t, "PTTL", "short").(int64); got <= 1000 || got > 1500 {
		t.Errorf("PTTL in Redis = %v", got)
	}
	if ok, err := s.Exists(ctx, "a"); !ok || err != nil {
		t.Errorf("exists: %v %v", ok, err)
	}
	if existed, err := s.DeleteCache(ctx, "a"); !existed || err != nil {
		t.Errorf("delete: %v %v", existed, err)
	}
	if ok, err := s.Exists(ctx, "a"); ok || err != nil {
		t.Errorf("exists after delete: %v %v", ok, err)
	}
}

func TestService_PrefixStandsBeforeEveryKeyAndChannel(t *testing.T) {
	s, srv := start(t, func(c *madcrow.Config) { c.KeyPrefix = "app:" })
	ctx := t.Context()
	must(t, s.SetCache(ctx, "a", "b", 0))
	must(t, s.SetSession(ctx, "s1", map[string]any{}, 0))
	_, err := s.CheckRateLimit(ctx, "rate_limit:u", 1, time.Minute)
	must(t, err)
	for key, kind := range map[string]string{"app:a": "string", "app:session:s1": "string", "app:rate_limit:u": "zset"} {
		if got := srv.Do(t, "TYPE", key); got != kind {
			t.Errorf("TYPE %s = %v, want %s", key, got, kind)
		}
	}
	if n := srv.Do(t, "DBSIZE"); n != int64(3) {
		t.Errorf("%v keys, want 3", n)
	}
}

func TestService_ReservedAndUnusableArgumentsAreRefusedUnsent(t *testing.T) {
	s, _ := start(t)
	raw := New(s.redis, Options{ReservedKeys: true})
	ctx := t.Context()
	long := strings.Repeat("é", 256)
	for name, tc := range map[string]struct {
		field string
		err   error
	}{
		"empty key":            {"key", second(s.GetCacheWithTTL(ctx, ""))},
		"long key":             {"key", second(s.GetCacheWithTTL(ctx, long))},
		"session by the cache": {"key", s.SetCache(ctx, "session:x", "v", 0)},
		"limit by the cache":   {"key", second(s.DeleteCache(ctx, "rate_limit:x"))},
		"typed package":        {"key", second(s.Exists(ctx, "m1:x"))},
		"login limit":          {"key", second(s.CheckRateLimit(ctx, "login_attempts:x", 1, time.Second))},
		"negative lifetime":    {"ttl", s.SetCache(ctx, "k", "v", -time.Second)},
		"limit 0":              {"limit", second(s.CheckRateLimit(ctx, "k", 0, time.Second))},
		"window too small":     {"window", second(s.CheckRateLimit(ctx, "k", 1, time.Millisecond))},
		"no session id":        {"session_id", s.SetSession(ctx, "", map[string]any{}, 0)},
		"session is a list":    {"data", s.SetSession(ctx, "x", []int{1}, 0)},
		"session is null":      {"data", s.SetSession(ctx, "x", nil, 0)},
		"session is no JSON":   {"data", s.SetSession(ctx, "x", make(chan int), 0)},
		"no channel":           {"channel", second(s.Publish(ctx, "", "m"))},
	} {
		var v *madcrow.ArgumentError
		if !errors.As(tc.err, &v) || v.Argument != tc.field {
			t.Errorf("%s: %v, want an ArgumentError of %s", name, tc.err, tc.field)
			continue
		}
		if p := problem.From(tc.err); p.Status != 422 || len(p.Errors) != 1 || p.Errors[0].Field != tc.field {
			t.Errorf("%s: problem %+v", name, p)
		}
	}
	must(t, s.SetCache(ctx, long[2:], "255 characters", 0))
	must(t, raw.SetCache(ctx, "session:x", "{}", 0))
	if _, err := s.CheckRateLimit(ctx, "rate_limit:"+strings.Repeat("k", 255), 1, time.Second); err != nil {
		t.Errorf("the route's prefix counts against the caller: %v", err)
	}
}

func TestService_FailureIsAnErrorWithOperationTableAndStatus(t *testing.T) {
	s, srv := start(t)
	ctx := t.Context()
	srv.Do(t, "RPUSH", "list", "x")
	_, _, err := s.GetCache(ctx, "list")
	wantProblem(t, err, 409, "REDIS_WRONG_TYPE", "get", TableCache)
	if !errors.Is(err, madcrow.ErrWrongType) {
		t.Errorf("%v is not ErrWrongType", err)
	}
	srv.Do(t, "SET", "string", "x")
	_, err = s.CheckRateLimit(ctx, "string", 1, time.Minute)
	wantProblem(t, err, 409, "REDIS_WRONG_TYPE", "check", TableRateLimits)
	if limited, err := s.IsRateLimited(ctx, "string", 1, time.Minute); !limited || err == nil {
		t.Errorf("a limiter that failed let a request pass: %v %v", limited, err)
	}
	srv.Do(t, "SET", "session:bad", "[1]")
	_, found, err := s.GetSession(ctx, "bad")
	wantProblem(t, err, 500, "REDIS_ERROR", "get", TableSessions)
	if found || !errors.Is(err, ErrCorrupt) {
		t.Errorf("corrupt session: %v %v", found, err)
	}

	srv.Kill()
	waitFor(t, func() bool { return !s.Available() })
	wantProblem(t, s.Unavailable("get", TableCache), 503, "REDIS_UNAVAILABLE", "get", TableCache)
	wantProblem(t, s.SetCache(ctx, "a", "b", 0), 503, "REDIS_UNAVAILABLE", "set", TableCache)
	_, err = s.DeleteCache(ctx, "a")
	wantProblem(t, err, 503, "REDIS_UNAVAILABLE", "delete", TableCache)
	_, err = s.DeleteSession(ctx, "a")
	wantProblem(t, err, 503, "REDIS_UNAVAILABLE", "delete", TableSessions)
	_, err = s.Publish(ctx, "c", "m")
	wantProblem(t, err, 503, "REDIS_UNAVAILABLE", "publish", TablePubSub)
}

func TestError_EveryKindHasItsStatusAndHidesTheCause(t *testing.T) {
	for kind, status := range map[madcrow.Kind]int{
		madcrow.KindUnavailable: 503, madcrow.KindAuth: 503, madcrow.KindLoading: 503, madcrow.KindBusy: 503,
		madcrow.KindReadOnly: 503, madcrow.KindOutOfMemory: 503, madcrow.KindTimeout: 504, madcrow.KindTooLarge: 413,
		madcrow.KindWrongType: 409, madcrow.KindConflict: 409, madcrow.KindPermission: 500, madcrow.KindServer: 500,
		madcrow.KindConfig: 500, madcrow.KindCanceled: 503,
	} {
		err := Failed("get", TableCache, &madcrow.Error{Op: "GET", Kind: kind, Err: errors.New("10.1.2.3 key:secret")})
		p := problem.From(err)
		if p.Status != status || p.Operation != "get" || p.Table != TableCache {
			t.Errorf("%v: %+v", kind, p)
		}
		if (p.RetryAfter > 0) != (status == 503) {
			t.Errorf("%v: Retry-After %v", kind, p.RetryAfter)
		}
		text, jsonErr := json.Marshal(p)
		if jsonErr != nil || strings.Contains(string(text), "10.1.2.3") || strings.Contains(string(text), "secret") {
			t.Errorf("%v: %s %v", kind, text, jsonErr)
		}
	}
}

func wantProblem(t *testing.T, err error, status int, code, operation, table string) {
	t.Helper()
	var e *madcrow.Error
	if !errors.As(err, &e) {
		t.Errorf("%v (%T) is not a *madcrow.Error", err, err)
		return
	}
	p := problem.From(err)
	if p.Status != status || p.Code != code || p.Operation != operation || p.Table != table {
		t.Errorf("problem of %v: %+v", err, p)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen within 10 s")
		}
	}
}
