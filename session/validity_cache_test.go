package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

// readTwoTimes reads a session as two requests do: the script, then plain commands.
func readTwoTimes(t *testing.T, m *session.Manager[cart], token string, c *counter) {
	t.Helper()
	c.took()
	for _, want := range []string{"session_load", "PIPELINE"} {
		if !alive(t, m, token) {
			t.Fatal("it is not there")
		}
		if n, what := c.took(); n != 1 || !strings.Contains(what, want) {
			t.Fatalf("%d calls %s, want %s", n, what, want)
		}
	}
}

// What another process did is seen by the next read, also of a session that was
// read a moment ago.
func TestValidityCache_SeesWhatOtherProcessesDid(t *testing.T) {
	r, c := counted(t)
	m := newManager(t, r, options{RotationGrace: time.Minute})
	others := newManager(t, open(t), options{RotationGrace: time.Minute})
	ctx := t.Context()
	for name, do := range map[string]func(user, token string) error{
		"logout": func(_, token string) error { return others.Open(token).Logout(ctx) },
		"revoke": func(user, token string) error {
			_, err := others.Revoke(ctx, user, others.Open(token).Handle())
			return err
		},
		"revoke all":    func(user, _ string) error { _, err := others.RevokeAll(ctx, user); return err },
		"revoke others": func(user, _ string) error { _, err := login(t, others, user).RevokeOthers(ctx); return err },
		"login":         func(user, token string) error { return others.Open(token).Login(ctx, user) },
		"login as another": func(_, token string) error {
			return others.Open(token).Login(ctx, "somebody")
		},
		"rotate, revoke others": func(_, token string) error {
			s := others.Open(token)
			if err := s.Rotate(ctx); err != nil {
				return err
			}
			_, err := s.RevokeOthers(ctx)
			return err
		},
		"evicted epoch": func(_, token string) error { _, epoch, _ := m.KeysOf(token); return del(ctx, r, epoch) },
		"evicted index": func(_, token string) error { _, _, index := m.KeysOf(token); return del(ctx, r, index) },
		"expired":       func(_, token string) error { key, _, _ := m.KeysOf(token); return del(ctx, r, key) },
	} {
		t.Run(name, func(t *testing.T) {
			user := "user of " + name
			token := login(t, m, user).Token()
			readTwoTimes(t, m, token, c)
			must(t, do(user, token))
			c.took()
			for try, most := range []int{2, 1} { // then it is forgotten
				if alive(t, m, token) {
					t.Error("it is read")
				}
				if n, what := c.took(); n > most {
					t.Errorf("%d: %d calls %s", try, n, what)
				}
			}
		})
	}
	for _, user := range []string{"", "alice"} { // without user, too
		s := m.Open("")
		must(t, s.Update(ctx, add("a")))
		if user != "" {
			must(t, s.Login(ctx, user))
		}
		token := s.Token()
		readTwoTimes(t, m, token, c)
		must(t, others.Open(token).Update(ctx, add("b")))
		got, found, err := m.Open(token).Get(ctx)
		if !found || err != nil || len(got.Items) != 2 {
			t.Errorf("after a write elsewhere: %v %v %v", got, found, err)
		}
		must(t, others.Open(token).Rotate(ctx))
		late := m.Open(token)
		if got, found, err := late.Get(ctx); found != (user != "") || err != nil || found && len(got.Items) != 2 {
			t.Errorf("after a rotation elsewhere: %v %v %v", got, found, err)
		}
		if err := late.Update(ctx, add("c")); err == nil {
			t.Error("a write under the identifier from before")
		}
	}
}

func del(ctx context.Context, r *madcrow.Redis, key string) error {
	err := r.Do(ctx, r.B().Del().Key(key).Build()).Err()
	return err
}

// A session that is in use lives on, in one round trip a request, and ends by
// both its times.
func TestValidityCache_IsTouchedWhenDueAndEndsInTime(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{IdleTimeout: 3 * time.Second, AbsoluteTimeout: 7 * time.Second})
	for _, user := range []string{"", "alice"} {
		t.Run("user "+user, func(t *testing.T) {
			t.Parallel()
			s := m.Open("")
			must(t, s.Update(t.Context(), add("a")))
			if user != "" {
				must(t, s.Login(t.Context(), user))
			}
			key, _, _ := m.KeysOf(s.Token())
			begin := time.Now()
			for time.Since(begin) < 6*time.Second {
				if !alive(t, m, s.Token()) {
					t.Fatalf("ended after %v, in use", time.Since(begin))
				}
				if left := pttl(t, r, key); time.Since(begin) < 3*time.Second && left < 2600*time.Millisecond {
					t.Fatalf("%v left after %v, in use", left, time.Since(begin))
				}
				time.Sleep(20 * time.Millisecond)
			}
			for alive(t, m, s.Token()) {
				if time.Since(begin) > 8*time.Second {
					t.Fatal("it does not end")
				}
				time.Sleep(5 * time.Millisecond)
			}
			// A tenth of the idle time earlier, at the most.
			if age := time.Since(begin); age < 6600*time.Millisecond || age > 7500*time.Millisecond {
				t.Errorf("ended after %v, want 7s", age)
			}
		})
	}
	t.Run("unused", func(t *testing.T) {
		t.Parallel()
		s := login(t, m, "bob")
		for range 10 {
			if !alive(t, m, s.Token()) {
				t.Fatal("it is not there")
			}
		}
		time.Sleep(3100 * time.Millisecond)
		if alive(t, m, s.Token()) {
			t.Error("it was not used for longer than IdleTimeout, and is there")
		}
	})
}

// One request is one round trip, whether a touch is due or not.
func TestValidityCache_OneRoundTripAlsoForATouch(t *testing.T) {
	r, c := counted(t)
	m := newManager(t, r, options{IdleTimeout: 2 * time.Second})
	token := login(t, m, "alice").Token()
	c.took()
	scripts, reads, second := 0, 0, 0
	for begin := time.Now(); time.Since(begin) < 2500*time.Millisecond; reads++ {
		if !alive(t, m, token) {
			t.Fatal("ended in use")
		}
		n, what := c.took()
		if n != 1 { // Redis looked at it later than the process could foresee
			second++
			t.Logf("read %d: %d calls %s", reads, n, what)
		}
		scripts += strings.Count(what, "session_load")
		time.Sleep(10 * time.Millisecond)
	}
	if second > 2 {
		t.Errorf("%d of %d reads took two round trips", second, reads)
	}
	// One in a tenth of the idle time, and one before it that came too soon.
	if scripts < 5 || scripts > 30 {
		t.Errorf("%d of %d reads were scripts, want 12 to 25", scripts, reads)
	}
}

// A cached session is read by Go's rule (plainlyValid in validity_cache.go), any
// other by the script's (fetch in lua/begin.lua). Whatever is done to the keys of a
// session, both rules must agree on whether it can be read, and on its data.
func TestValidityCache_AgreesWithTheScript(t *testing.T) {
	r := open(t)
	opt := options{IdleTimeout: time.Hour, AbsoluteTimeout: time.Hour, RotationGrace: time.Minute}
	cached, script := newManager(t, r, opt), newManager(t, r, opt)
	script.DisableValidityCache()
	rng := rand.New(rand.NewPCG(1, 2))
	do := func(args ...string) {
		must(t, second(r.Do(t.Context(), r.B().Arbitrary(args[0]).Keys(args[1]).Args(args[2:]...).Build()).Message()))
	}
	for round := range 300 {
		user := fmt.Sprintf("user %d", round)
		s := stored(t, cached, "a")
		if round%3 > 0 {
			must(t, s.Login(t.Context(), user))
		}
		token := s.Token()
		for range 2 { // the second read is of the cache
			if !alive(t, cached, token) {
				t.Fatal("not found")
			}
		}
		key, epoch, index := cached.KeysOf(token)
		changes := []struct {
			name string
			do   func()
		}{
			{"no data", func() { do("HDEL", key, "d") }},
			{"no version", func() { do("HDEL", key, "v") }},
			{"rotated", func() { do("HSET", key, "x", "other") }},
			{"another user", func() { do("HSET", key, "u", "another") }},
			{"another epoch at login", func() { do("HSET", key, "e", "another") }},
			{"another end", func() { do("HSET", key, "a", fmt.Sprint(time.Now().Add(time.Minute).UnixMicro())) }},
			{"ended", func() { do("HSET", key, "a", "1") }},
			{"new data", func() { _ = script.Open(token).Update(t.Context(), add("b")) }},
			{"no epoch", func() { do("DEL", epoch) }},
			{"new epoch", func() { do("SET", epoch, "another") }},
			{"no index", func() { do("DEL", index) }},
			{"another member", func() { do("ZADD", index, "9e15", "other") }},
			{"touch due", func() { do("PEXPIRE", key, "600000") }},
			{"no TTL", func() { do("PERSIST", key) }},
			{"no session", func() { do("DEL", key) }},
			{"unchanged", func() {}},
		}
		name := ""
		for range 1 + rng.IntN(2) {
			c := changes[rng.IntN(len(changes))]
			name += c.name + "; "
			c.do()
		}
		got, gotFound, gotErr := cached.Open(token).Get(t.Context())
		want, wantFound, wantErr := script.Open(token).Get(t.Context())
		if gotFound != wantFound || (gotErr == nil) != (wantErr == nil) || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q %s: cached %v %v %v, by the script %v %v %v", user, name, got, gotFound, gotErr, want, wantFound, wantErr)
		}
	}
}

// The whole request through the middleware, with the validity cache and without.
func BenchmarkMiddleware_Read(b *testing.B) {
	r := open(b)
	for _, name := range []string{"cached", "script"} {
		m := newNamed(b, r, name, options{})
		if name == "script" {
			m.DisableValidityCache()
		}
		h := m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, found, err := m.From(r.Context()).Get(r.Context()); !found || err != nil {
				b.Error(found, err)
			}
			w.WriteHeader(http.StatusNoContent)
		}))
		var cookies []string
		for i := range 1000 {
			cookies = append(cookies, "__Host-session="+login(b, m, fmt.Sprint("user ", i)).Token())
		}
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%d", name, callers), func(b *testing.B) {
				b.ReportAllocs()
				var next atomic.Int64
				b.SetParallelism((callers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						req := httptest.NewRequest("GET", "/", nil)
						req.Header["Cookie"] = []string{cookies[int(next.Add(1))%len(cookies)]}
						h.ServeHTTP(httptest.NewRecorder(), req)
					}
				})
			})
		}
	}
}
