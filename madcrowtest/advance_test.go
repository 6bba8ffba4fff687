package madcrowtest_test

import (
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
)

func TestAdvance_LetsKeysAge(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	s.Advance(t, time.Hour) // of an empty server
	s.Do(t, "SET", "long", "v", "PX", "10000000")
	s.Do(t, "SET", "short", "v", "PX", "1000000")
	s.Do(t, "SET", "ever", "v")
	r := madcrowtest.Open(t, func() madcrow.Config { c := s.Config(); c.DB = 3; return c }())
	other := testkit.Must[*cache.Cache[string]](t)(cache.New(r, "c", cache.Options[string]{TTL: 10 * time.Minute}))
	t.Cleanup(func() { _ = other.Close(t.Context()) })
	testkit.NoError(t, other.Set(t.Context(), "k", "v"))

	s.Advance(t, 1000*time.Second)
	for key, want := range map[string]int64{"long": 1, "short": 0, "ever": 1} {
		if got := s.Do(t, "EXISTS", key); got != want {
			t.Errorf("%s: %v, want %d", key, got, want)
		}
	}
	if left, _ := s.Do(t, "PTTL", "long").(int64); left > 9000000 || left < 8000000 {
		t.Errorf("%d ms are left", left)
	}
	if _, found, err := other.Get(t.Context(), "k"); found || err != nil {
		t.Errorf("the cached value in another database is still there: %v", err)
	}
}

// A limit is fresh after its window, without a wait of an hour.
func TestAdvance_RefreshesALimit(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := madcrowtest.Open(t, s.Config())
	limit := func() *ratelimit.Limiter {
		return testkit.Must[*ratelimit.Limiter](t)(ratelimit.New(r, "tries", ratelimit.Options{Rate: ratelimit.PerHour(1), FailPolicy: madcrow.FailClosed}))
	}
	here, elsewhere := limit(), limit()
	allowed := func(l *ratelimit.Limiter) bool {
		return testkit.Must[ratelimit.Decision](t)(l.Allow(t.Context(), "ada")).Allowed
	}
	if !allowed(here) || allowed(here) { // here remembers the denial
		t.Fatal("the limit is not 1")
	}
	s.Advance(t, time.Hour)
	if !allowed(elsewhere) {
		t.Error("it still counts after its window")
	}
}

func TestEventually_WaitsForAState(t *testing.T) {
	n := 0
	madcrowtest.Eventually(t, "the third time", func() bool { n++; return n == 3 })
	if n != 3 {
		t.Error(n)
	}
}
