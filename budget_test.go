package madcrow_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/semaphore"
	"github.com/madcrow-go/madcrow/session"
	"github.com/madcrow-go/madcrow/stream"
)

// everyCall makes one call of each package on some data of its own. Each has run
// once, so that its keys exist.
func everyCall(t *testing.T, r *madcrow.Redis) map[string]func(context.Context) error {
	t.Helper()
	c := must(cache.New[string](r, "budget", cache.Options[string]{TTL: time.Minute, LeaseTTL: 10 * time.Second}))(t)
	tagged := must(cache.New[string](r, "tagged", cache.Options[string]{TTL: time.Minute, Tags: []string{"all"}}))(t)
	load := func(context.Context) (string, error) { return "v", nil }
	limits := map[string]*ratelimit.Limiter{}
	var all []*ratelimit.Limiter
	for name, a := range map[string]ratelimit.Algorithm{"log": ratelimit.SlidingLog(), "gcra": ratelimit.GCRA(100)} {
		limits[name] = must(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.PerMinute(100), FailPolicy: madcrow.FailClosed, Algorithm: a}))(t)
		all = append(all, limits[name])
	}
	group := must(ratelimit.Join(all...))(t)
	login := must(ratelimit.NewLogin(r, "login", ratelimit.LoginOptions{MaxAttempts: 100, Window: time.Minute, Blocks: []time.Duration{time.Minute}, FailPolicy: madcrow.FailClosed}))(t)
	bucket := must(ratelimit.NewTokenBucket(r, "bucket", ratelimit.TokenBucketOptions{Rate: ratelimit.PerMinute(100), Burst: 100, FailPolicy: madcrow.FailClosed}))(t)
	places := must(semaphore.New(r, "places", semaphore.Options{Limit: 1000, FailPolicy: madcrow.FailClosed, LeaseTTL: time.Minute}))(t)
	sessions := must(session.New(r, "budget", session.Options[int]{InsecureCookie: true}))(t)
	bus := must(pubsub.New(r, pubsub.Options{}))(t)
	topic := must(pubsub.NewTopic[string](bus, "budget", pubsub.TopicOptions[string]{}))(t)
	history := must(pubsub.NewRecoverable[string](bus, "budget", pubsub.RecoverableOptions[string]{}))(t)
	jobs := must(stream.New[string](r, "budget", stream.Options[string]{}))(t)
	// visit makes a request with a cookie, and returns the cookie of the response.
	visit := func(ctx context.Context, cookie *http.Cookie, fn func(context.Context, *session.Session[int]) error) (out *http.Cookie, err error) {
		w, req := httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		if cookie != nil {
			req.AddCookie(cookie)
		}
		sessions.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			err = fn(req.Context(), sessions.From(req.Context()))
		})).ServeHTTP(w, req)
		for _, c := range w.Result().Cookies() {
			out = c
		}
		return out, err
	}
	update := func(ctx context.Context, s *session.Session[int]) error {
		return s.Update(ctx, func(n *int) error { *n++; return nil })
	}
	login1 := func(ctx context.Context, s *session.Session[int]) error { return s.Login(ctx, "user") }
	guest, err := visit(t.Context(), nil, update)
	if err != nil {
		t.Fatal(err)
	}
	member, err := visit(t.Context(), nil, login1)
	if err != nil {
		t.Fatal(err)
	}
	read := func(ctx context.Context, s *session.Session[int]) error { _, _, err := s.Get(ctx); return err }
	calls := map[string]func(context.Context) error{
		"cache.Set":        func(ctx context.Context) error { return c.Set(ctx, "set", "v") },
		"cache.Set tagged": func(ctx context.Context) error { return tagged.Set(ctx, "set", "v") },
		"cache.SetMany": func(ctx context.Context) error {
			return c.SetMany(ctx, map[string]string{"m1": "v", "m2": "v", "m3": "v"})
		},
		"cache.Get":       func(ctx context.Context) error { _, _, err := c.Get(ctx, "get"); return err },
		"cache.Delete":    func(ctx context.Context) error { return c.Delete(ctx, "delete") },
		"cache.DeleteTag": func(ctx context.Context) error { return tagged.DeleteTag(ctx, "all") },
		"cache.GetOrLoad": func(ctx context.Context) error { _, err := c.GetOrLoad(ctx, "load", load); return err },
		"cache.GetOrLoadMany": func(ctx context.Context) error {
			_, err := c.GetOrLoadMany(ctx, []string{"l1", "l2", "l3"}, func(_ context.Context, keys []string) (map[string]string, error) {
				return map[string]string{"l1": "v"}, nil
			})
			return err
		},
		"Group.Allow":       func(ctx context.Context) error { _, err := group.Allow(ctx, "joint"); return err },
		"Group.Reset":       func(ctx context.Context) error { return group.Reset(ctx, "joint") },
		"Login.Attempt":     func(ctx context.Context) error { _, err := login.Attempt(ctx, "user"); return err },
		"Login.Reset":       func(ctx context.Context) error { return login.Reset(ctx, "user2") },
		"Bucket.Allow":      func(ctx context.Context) error { _, err := bucket.Allow(ctx, "s"); return err },
		"Bucket.Reserve":    func(ctx context.Context) error { _, err := bucket.Reserve(ctx, "s", 1, time.Minute); return err },
		"Places.TryAcquire": func(ctx context.Context) error { _, _, err := places.TryAcquire(ctx, "s"); return err },
		"topic.Publish":     func(ctx context.Context) error { _, err := topic.Publish(ctx, "m"); return err },
		"history.Publish":   func(ctx context.Context) error { _, err := history.Publish(ctx, "m"); return err },
		"stream.Publish":    func(ctx context.Context) error { _, err := jobs.Publish(ctx, "m"); return err },
	}
	for name, fn := range map[string]func(context.Context, *session.Session[int]) error{"Get": read, "Update": update} {
		calls["session "+name] = func(ctx context.Context) error { _, err := visit(ctx, guest, fn); return err }
		calls["user's session "+name] = func(ctx context.Context) error { _, err := visit(ctx, member, fn); return err }
	}
	calls["session new"] = func(ctx context.Context) error { _, err := visit(ctx, nil, update); return err }
	calls["session Login"] = func(ctx context.Context) error { _, err := visit(ctx, nil, login1); return err }
	for name, l := range limits {
		calls["Limiter.Allow "+name] = func(ctx context.Context) error { _, err := l.Allow(ctx, "s"); return err }
		calls["Limiter.Peek "+name] = func(ctx context.Context) error { _, err := l.Peek(ctx, "s"); return err }
		calls["Limiter.Block "+name] = func(ctx context.Context) error { return l.Block(ctx, "blocked", time.Minute) }
		calls["Limiter.Reset "+name] = func(ctx context.Context) error { return l.Reset(ctx, "s2") }
	}
	if madcrowtest.OlderThan(t, "6.2") {
		delete(calls, "stream.Publish")
	}
	if r.Config().Cluster.Enabled && madcrowtest.OlderThan(t, "7.0") {
		delete(calls, "history.Publish") // it needs sharded channels
	}
	for name, call := range calls {
		if err := call(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return calls
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// cache.Set took twice the time-out, and Limiter.Allow one and a quarter of it:
// after a refusal until the deadline each began another way, with a deadline of
// its own.
func TestBudget_NoCallOfAPackagePassesItWhileASlotMovesThatNeverArrives(t *testing.T) {
	for _, name := range []string{"the new node answers", "the new node is frozen"} {
		t.Run(name, func(t *testing.T) {
			c, r := startCluster(t)
			calls := everyCall(t, r)
			nodes := c.Nodes()
			for i, n := range nodes {
				list, _ := n.Do(t, "KEYS", "*").([]any)
				to := nodes[0]
				if i == 0 {
					to = nodes[1]
				}
				begun := map[int]bool{}
				for _, k := range list {
					key, _ := k.(string)
					if slot := c.Slot(key); !begun[slot] {
						begun[slot] = true
						c.BeginMove(t, slot, to)
					}
				}
			}
			frozen := name == "the new node is frozen"
			if frozen {
				nodes[0].Pause()
				defer nodes[0].Resume()
			}
			for name, err := range allWithin(t, r, calls) {
				if err != nil && !frozen && name != "session Login" { // a user's new key is waited for
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func TestBudget_NoCallOfAPackagePassesItWhenRedisIsFrozen(t *testing.T) {
	s, r := server(t)
	calls := everyCall(t, r)
	s.Pause()
	defer s.Resume()
	allWithin(t, r, calls)
}

func TestBudget_NoCallOfAPackagePassesItWhenReplicasAreMissing(t *testing.T) {
	s, r := server(t)
	calls := everyCall(t, r)
	s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	defer s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "0")
	allWithin(t, r, calls)
}

// allWithin makes all calls at the same time, fails where one passes its time, and returns their errors.
func allWithin(t *testing.T, r *madcrow.Redis, calls map[string]func(context.Context) error) map[string]error {
	t.Helper()
	most := r.Config().CommandTimeout + testkit.Slack(100*time.Millisecond)
	var wg sync.WaitGroup
	var mu sync.Mutex
	errs := map[string]error{}
	for name, call := range calls {
		wg.Go(func() {
			began := time.Now()
			err := call(t.Context())
			took := time.Since(began)
			if took > most {
				t.Errorf("%s took %v of %v: %v", name, took, most, err)
			}
			mu.Lock()
			errs[name] = err
			mu.Unlock()
		})
	}
	wg.Wait()
	return errs
}

// A command is kept, to send it again, where it costs nothing.
func TestBudget_ACallAllocatesItsReplyAndNoMore(t *testing.T) {
	_, r := server(t)
	ctx := t.Context()
	mustSet(t, r, "k", "v")
	names := strings.Split("a b c d e f g h i j l", " ")
	for name, tc := range map[string]struct {
		most float64
		call func()
	}{
		"Do GET, the value": {1, func() { _, _, _ = r.Do(ctx, r.B().Get().Key("k").Build()).Text() }},
		"Do with Timeout":   {1, func() { _ = r.Do(ctx, r.B().Get().Key("k").Build(), madcrow.Timeout(time.Minute)).Err() }},
		"Do of 12 arguments": {0, func() {
			_ = r.Do(ctx, r.B().Del().Key(names...).Build()).Err()
		}},
		"DoMulti of 4, the values": {6, func() {
			_, _ = r.DoMulti(ctx, r.B().Get().Key("k").Build(), r.B().Get().Key("k2").Build(), r.B().Get().Key("k3").Build(), r.B().Get().Key("k4").Build())
		}},
		// Beyond 16 arguments or 4 commands they are kept in memory that is used again.
		"DoMulti of 2, 24 arguments": {5, func() {
			_, _ = r.DoMulti(ctx, r.B().Del().Key(names...).Build(), r.B().Del().Key(names...).Build())
		}},
		"DoMulti of 6": {6, func() {
			_, _ = r.DoMulti(ctx, get(r, "a"), get(r, "b"), get(r, "c"), get(r, "d"), get(r, "e"), get(r, "f"))
		}},
	} {
		least := testing.AllocsPerRun(1000, tc.call)
		for range 4 {
			least = min(least, testing.AllocsPerRun(1000, tc.call))
		}
		if testkit.Race {
			tc.most = 2*tc.most + 2 // it drops from pools at random
		}
		if least > tc.most {
			t.Errorf("%s: %v allocations, want at most %v", name, least, tc.most)
		}
	}
}
