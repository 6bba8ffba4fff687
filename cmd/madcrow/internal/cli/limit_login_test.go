package cli

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// says runs madcrow and compares what it prints with a pattern.
func says(t *testing.T, s *madcrowtest.Server, code int, want, args string) {
	t.Helper()
	got, stdout, stderr := command(t, appEnv(s), strings.Fields(args)...)
	if ok, err := regexp.MatchString("^(?s:"+want+")$", strings.TrimSpace(stdout+stderr)); got != code || !ok || err != nil {
		t.Errorf("madcrow %s: exit code %d: %s%s, want %d: %s", args, got, stdout, stderr, code, want)
	}
}

// lockedOut has users fail until a login locks them out.
func lockedOut(t *testing.T, s *madcrowtest.Server, name string, o ratelimit.LoginOptions, subjects ...string) *ratelimit.Login {
	t.Helper()
	cfg := s.Config()
	cfg.KeyPrefix, o.FailPolicy, o.MaxAttempts, o.DeniedSubjects = "app:", madcrow.FailClosed, 3, -1
	l := must(ratelimit.NewLogin(madcrowtest.Open(t, cfg), name, o))(t)
	for _, subject := range subjects {
		for range 3 {
			must(l.Attempt(t.Context(), subject))(t)
		}
		if limited := must(l.IsRateLimited(t.Context(), subject))(t); !limited {
			t.Fatalf("%s is not locked out", subject)
		}
	}
	return l
}

func TestLimit_FindsAndUnlocksAUserWhoIsLockedOut(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	home := netip.MustParseAddr("127.0.0.1")
	bob, bobby, ann := ratelimit.LoginKey("bob", home), ratelimit.LoginKey("bobby", home), ratelimit.LoginKey("ann", home)
	l := lockedOut(t, s, "login", ratelimit.LoginOptions{}, bobby, bob, ann)
	says(t, s, exitOK, `LIMIT +ALGORITHM +SUBJECTS +BLOCKED\nlogin +login +3 +0`, "ls limits")
	says(t, s, exitOK, `LIMIT +ALGORITHM +SUBJECTS +BLOCKED\nlogin +login +3 +0`, "ls")

	const three = `3 counted in a window of 15m0s \(login\), all free in (15m0s|14m\d+s); give --limit to see whether a request is allowed`
	says(t, s, exitOK, three, "limit peek 127.0.0.1|bob --name login")
	says(t, s, exitDenied, `denied: try again in (15m0s|14m\d+s)`, "limit peek 127.0.0.1|bob --name login --limit 3")
	says(t, s, exitOK, `allowed: 2 of 5 left, all free in (15m0s|14m\d+s)`, "limit peek 127.0.0.1|bob --name login --limit 5 --window 15m")

	const which = `madcrow: the login "login" has nothing counted for "(?i:bob)", and no block; give one of the subjects that contain it: 127\.0\.0\.1\|bob, 127\.0\.0\.1\|bobby`
	for _, verb := range []string{"peek", "reset", "peek --limit 3", "peek --limit 3 --window 15m", "peek --algorithm login"} {
		says(t, s, exitMiss, which, "limit "+verb+" Bob --name login")
	}
	says(t, s, exitOK, `nothing is counted \(login\)`, "limit peek eve --name login")
	says(t, s, exitMiss, `madcrow: the limit "login" has nothing counted for "eve" by login, and no block`, "limit reset eve --name login")
	says(t, s, exitMiss, `madcrow: there is no limit "lgin": did you mean "login"; limits that there are: login`, "limit peek bob --name lgin")
	for _, args := range []string{"check 127.0.0.1|bob --limit 3 --window 15m", "block eve --for 1h"} {
		says(t, s, exitUsage, `madcrow: "login" is a login: there are limit peek and limit reset for it.*`, "limit "+args+" --name login")
	}

	says(t, s, exitOK, `reset`, "limit reset 127.0.0.1|bob --name login")
	if limited := must(l.IsRateLimited(t.Context(), bob))(t); limited {
		t.Error("bob is still locked out")
	}
	if limited := must(l.IsRateLimited(t.Context(), bobby))(t); !limited {
		t.Error("bobby is not locked out any more")
	}
	says(t, s, exitOK, `LIMIT +ALGORITHM +SUBJECTS +BLOCKED\nlogin +login +2 +0`, "ls limits")
}

// A block outlives its end in Redis, so that the next one is longer: what it was for
// is paid for then.
func TestLimit_SeesAndEndsTheBlockOfALogin(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	l := lockedOut(t, s, "web", ratelimit.LoginOptions{Blocks: []time.Duration{time.Hour}}, "ann", "two words")
	says(t, s, exitOK, `LIMIT +ALGORITHM +SUBJECTS +BLOCKED\nweb +login +2 +2`, "ls limits")
	says(t, s, exitDenied, `denied: blocked for (1h0m0s|59m\d+s) more`, "limit peek ann --name web")
	says(t, s, exitDenied, `\{.*"algorithm":"login","counted":3,.*"blocked_for_seconds":3\d+(\.\d+)?\}`, "limit peek ann --name web -o json")
	says(t, s, exitDenied, `denied: try again in (1h0m0s|59m\d+s)`, "limit peek ann --name web --limit 3")
	says(t, s, exitOK, `\{"key":"ann","name":"web","reset":true\}`, "limit reset ann --name web -o json")
	if limited := must(l.IsRateLimited(t.Context(), "ann"))(t); limited {
		t.Error("ann is still blocked")
	}

	lockedOut(t, s, "short", ratelimit.LoginOptions{Blocks: []time.Duration{2 * time.Second}}, "eve")
	testkit.Eventually(t, "the block is over", func() bool {
		code, stdout, _ := command(t, appEnv(s), "limit", "peek", "eve", "--name", "short")
		return code == exitOK && stdout == "nothing is counted (login)"
	})
	if n := s.Do(t, "ZCARD", "app:m1:login:short:{eve}"); n != int64(3) {
		t.Errorf("a look has left %v of 3 failures", n)
	}
}

// A KEY without --name is one of the HTTP route: that nothing is counted there says
// nothing about the limits that have names.
func TestLimit_WithoutANameSaysWhichNamesThereAre(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	says(t, s, exitOK, `nothing is counted \(sorted-set-log\)`, "limit peek 127.0.0.1")
	cfg := s.Config()
	cfg.KeyPrefix = "app:"
	api := must(ratelimit.New(madcrowtest.Open(t, cfg), "api", ratelimit.Options{Rate: ratelimit.PerHour(5), FailPolicy: madcrow.FailClosed}))(t)
	must(api.Allow(t.Context(), "127.0.0.1"))(t)
	const want = `madcrow: nothing is counted for "127\.0\.0\.1" by the HTTP route; give --name; limits that there are: api`
	says(t, s, exitMiss, want, "limit peek 127.0.0.1")
	says(t, s, exitMiss, want, "limit reset 127.0.0.1")
	says(t, s, exitOK, `allowed: 4 of 5 left.*`, "limit check 127.0.0.1 --limit 5 --window 1h")
	says(t, s, exitOK, `1 counted in a window of 1h0m0s \(sorted-set-log\).*`, "limit peek 127.0.0.1")
}

func TestLimit_LeavesTheFastAPILayoutOfLoginsAsItIs(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	lockedOut(t, s, "web", ratelimit.LoginOptions{FastAPILayout: true, Blocks: []time.Duration{time.Hour}}, "bob")
	says(t, s, exitOK, `OTHER +KEYS\ncounted logins of the FastAPI layout +1\nblocked logins of the FastAPI layout +1`, "ls")
	says(t, s, exitMiss, `madcrow: there is no limit "web"; no limits are under the prefix "app:"`, "limit peek bob --name web")
}
