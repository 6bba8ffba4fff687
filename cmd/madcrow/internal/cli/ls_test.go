package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/inventory"
	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/semaphore"
	"github.com/madcrow-go/madcrow/service"
	"github.com/madcrow-go/madcrow/session"
	"github.com/madcrow-go/madcrow/stream"
)

// must fails the test with the error of a step.
func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// everything leaves something of each package in Redis.
func everything(t *testing.T, cfg madcrow.Config) *madcrow.Redis {
	t.Helper()
	cfg.KeyPrefix, cfg.CommandTimeout = "app[1]:", 5*time.Second
	r, ctx := madcrowtest.Open(t, cfg), t.Context()
	products := must(cache.New(r, "products", cache.Options[member]{TTL: time.Hour}))(t)
	for i := range 3 {
		if err := products.Set(ctx, fmt.Sprint(i), member{ID: i}, cache.WithTags("all")); err != nil {
			t.Fatal(err)
		}
	}
	pages := must(httpcache.New(r, "pages", httpcache.Options{}))(t)
	pages.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = w.Write([]byte("x"))
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))

	for name, a := range map[string]ratelimit.Algorithm{
		"api": ratelimit.SlidingLog(), "day": ratelimit.SlidingWindow(10), "burst": ratelimit.GCRA(5), "old": ratelimit.SortedSetLog(),
	} {
		l := must(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.PerHour(10), FailPolicy: madcrow.FailClosed, Algorithm: a}))(t)
		for _, subject := range []string{"ann", "bob"} {
			must(l.Allow(ctx, subject))(t)
		}
		if err := l.Block(ctx, "eve", time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	must(must(ratelimit.NewLogin(r, "login", ratelimit.LoginOptions{FailPolicy: madcrow.FailClosed}))(t).Attempt(ctx, "127.0.0.1|bob"))(t)
	exports := must(semaphore.New(r, "exports", semaphore.Options{Limit: 2, FailPolicy: madcrow.FailClosed}))(t)
	lease, _, err := exports.TryAcquire(ctx, "ann")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lease.Release(context.Background()) })

	for name, users := range map[string][]string{"web": {"ann", "ann", "bob"}, "admin": {"root"}} {
		s := &shop{t: t, redis: r, m: must(session.New(r, name, session.Options[basket]{}))(t)}
		for _, user := range users {
			s.login(user, "", "")
		}
	}
	mails := must(stream.New(r, "mails", stream.Options[string]{KeepDone: true}))(t)
	for i := range 3 {
		must(mails.Publish(ctx, fmt.Sprint(i)))(t)
	}
	for _, group := range []string{"senders", "audit"} {
		work(t, mails, group)
	}
	must(must(stream.New(r, "other's", stream.Options[string]{}))(t).Publish(ctx, "x"))(t)

	bus := must(pubsub.New(r, pubsub.Options{}))(t)
	t.Cleanup(func() { _ = bus.Close(context.Background()) })
	news := must(pubsub.NewRecoverable(bus, "news", pubsub.RecoverableOptions[string]{}))(t)
	for range 2 {
		if _, err := news.Publish(ctx, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := service.New(r, service.Options{}).SetCache(ctx, "plain", "x", 0); err != nil {
		t.Fatal(err)
	}
	return r
}

// work has a group do all, but for one dead letter.
func work(t *testing.T, s *stream.Stream[string], group string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Work(ctx, group, func(_ context.Context, d stream.Delivery[string]) error {
			if d.Message == "1" {
				return errors.New("bad")
			}
			return nil
		}, stream.WorkOptions{Workers: 1, MaxDeliveries: 1})
	}()
	testkit.Eventually(t, "the group has done it", func() bool {
		lag, err := s.Lag(ctx, group)
		return err == nil && lag.Waiting == 0 && lag.Pending == 0 && lag.Dead == 1
	})
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

const wholeInventory = `CACHE     KIND     ENTRIES  LOADING
pages     http     1        0
products  objects  3        0

LIMIT  ALGORITHM       SUBJECTS  BLOCKED
api    sliding-log     2         1
burst  gcra            2         1
day    sliding-window  2         1
login  login           1         0
old    sorted-set-log  2         1

SEMAPHORE  SUBJECTS  BLOCKED
exports    1         0

SESSIONS  LIVE  USERS
admin     1     1
web       3     2

STREAM                                        MESSAGES  GROUP    WAITING  PENDING  WORKERS  DEAD  LOST
mails                                         3         audit    0        0        0        1     0
mails                                         3         senders  0        0        0        1     0
~[A-Za-z0-9_-]{43}  1         -        -        -        -        -     -

TOPIC  HISTORY  KEPT
news   2        (1h0m0s|59m\d+s)

OTHER                                                               KEYS
tags of caches                                                      2
other keys: plain strings of 'madcrow cache', and of other programs  1`

func TestList_FindsWhatProgramsLeftThere(t *testing.T) {
	blanks := regexp.MustCompile(` {2,}`)
	for name, start := range map[string]func() (madcrow.Config, string){
		"standalone": func() (madcrow.Config, string) {
			s := madcrowtest.StartRedis(t)
			return s.Config(), "redis://" + s.Addr()
		},
		"cluster": func() (madcrow.Config, string) {
			cfg := madcrowtest.StartCluster(t).Config()
			return cfg, "redis-cluster://" + strings.Join(cfg.Cluster.Addresses, ",")
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, url := start()
			r := everything(t, cfg)
			for i := range 5000 { // several pages on each node
				if err := r.Do(t.Context(), r.B().Set().Key(fmt.Sprintf("other:m1:cache:%d:gen", i)).Value("x").Build()).Err(); err != nil {
					t.Fatal(err)
				}
			}
			env := []string{"REDIS_URL=" + url, "REDIS_KEY_PREFIX=app[1]:"}
			code, stdout, stderr := command(t, env, "ls")
			if ok, err := regexp.MatchString("^"+blanks.ReplaceAllString(wholeInventory, " +")+"$", stdout); code != exitOK || !ok || err != nil || stderr != "" {
				t.Errorf("exit code %d, %v:\n%s%s", code, err, stdout, stderr)
			}
			for kind, want := range map[string]string{
				"caches": "CACHE", "limits": "LIMIT", "semaphores": "SEMAPHORE", "sessions": "SESSIONS", "streams": "STREAM", "topics": "TOPIC",
			} {
				if code, stdout, stderr := command(t, env, "ls", kind); code != exitOK || !strings.HasPrefix(stdout, want+" ") || strings.Contains(stdout, "\n\n") || stderr != "" {
					t.Errorf("%s: exit code %d:\n%s%s", kind, code, stdout, stderr)
				}
			}
			code, stdout, _ = command(t, env, "ls", "-o", "json")
			var inv inventory.Inventory
			if err := json.Unmarshal([]byte(stdout), &inv); code != exitOK || err != nil || !inv.Complete || len(inv.Caches) != 2 || !inv.Caches[0].HTTP || inv.Keys < 5000 || inv.Streams[0].Groups[1].Name != "senders" {
				t.Errorf("exit code %d, %v: %s", code, err, stdout)
			}
			// Under the wrong prefix it says where there is something.
			env[1] = "REDIS_KEY_PREFIX=ap:"
			code, stdout, stderr = command(t, env, "ls")
			if code != exitMiss || stdout != "" || !strings.HasPrefix(stderr, `madcrow: nothing of Madcrow's under the prefix "ap:"; the database has `) || !strings.Contains(stderr, `the prefix "app[1]:"`) {
				t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
			}
			if code, stdout, stderr := command(t, env, "ls", "limits", "-o", "json"); code != exitMiss || !strings.Contains(stdout, `"limits":[]`) || !strings.HasPrefix(stderr, `madcrow: no limits under the prefix "ap:"`) {
				t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
			}
		})
	}
}

// A search that is cut off shows what it found, says so, and does not fail.
func TestList_SaysThatItWasCutOff(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	slow := madcrowtest.StartProxy(t, s.Addr())
	slow.SetDelay(50 * time.Millisecond) // 300 pages take 15 seconds
	s.Do(t, "EVAL", "for i = 1, 300000 do redis.call('SET', 'app:m1:limit:n' .. (i % 10) .. ':g:{' .. i .. '}', 'x') end", "0")
	code, stdout, stderr := command(t, []string{"REDIS_URL=redis://" + slow.Addr(), "REDIS_KEY_PREFIX=app:", "REDIS_COMMAND_TIMEOUT=5s"}, "ls", "--timeout", "5s")
	if code != exitOK || !strings.Contains(stdout, "gcra") || !regexp.MustCompile(`^madcrow: looked at about \d+000 of 300000 keys\nmadcrow: there may be more: the time is over: about \d+ of 300000 keys were looked at\n$`).MatchString(stderr) {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
}

func TestList_MistakesAreUsageErrors(t *testing.T) {
	for args, want := range map[string]string{
		"ls stream":            `there are no "stream": give caches, limits, semaphores, sessions, streams, topics: did you mean "streams"?`,
		"ls streams topics":    "wrong number of arguments",
		"ls -o xml":            "--output",
		"ls --timeout 0s":      "--timeout",
		"ls --env-file absent": "absent",
	} {
		if code, stdout, stderr := command(t, nil, strings.Fields(args)...); code != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("madcrow %s: exit code %d:\n%s%s", args, code, stdout, stderr)
		}
	}
}
