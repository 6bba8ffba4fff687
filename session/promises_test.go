package session_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/session"
)

// counter counts what reaches Redis, and what the package reports.
type counter struct {
	madcrow.NopRecorder
	mu     sync.Mutex
	calls  map[string]int
	events map[string]int
}

func (c *counter) Operation(_ context.Context, o madcrow.Operation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[o.Name]++
}

func (c *counter) Event(_ context.Context, ev madcrow.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := ev.Type.Name()
	if ev.Reason != "" {
		name += "/" + ev.Reason
	}
	c.events[name] += ev.N
}

// took returns the calls since the last time.
func (c *counter) took() (n int, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.calls {
		n += k
	}
	what = fmt.Sprint(c.calls)
	clear(c.calls)
	return n, what
}

func counted(t testing.TB) (*madcrow.Redis, *counter) {
	t.Helper()
	c := &counter{calls: map[string]int{}, events: map[string]int{}}
	cfg := config
	cfg.KeyPrefix, cfg.Recorder, cfg.CommandTimeout = t.Name()+":", c, 10*time.Second
	return openConfig(t, cfg), c
}

func TestRoundTrips_AreWhatIsPromised(t *testing.T) {
	r, c := counted(t)
	m, few := newManager(t, r, options{}), newManager(t, r, options{MaxPerUser: 5})
	everything(t, few, "warm") // Redis knows the scripts
	login(t, m, "warm")        // once a minute a login also compares the Secret
	c.took()
	want := func(what string, n int) {
		t.Helper()
		if got, calls := c.took(); got != n {
			t.Errorf("%s: %d calls %s, want %d", what, got, calls, n)
		}
	}
	serve(m, madcrow.FailClosed, strings.Repeat("A", 56), func(*session.Session[cart]) {})
	want("a request that does not use its session", 0)
	s := m.Open("")
	_, _, _ = s.Get(t.Context())
	must(t, s.Logout(t.Context()))
	must(t, s.Rotate(t.Context()))
	_, _ = s.TakeFlashes(t.Context())
	want("no identifier, and no write", 0)
	must(t, s.Update(t.Context(), add("x")))
	want("the first write", 1)
	s = m.Open(s.Token())
	_, _, _ = s.Get(t.Context())
	_, _ = s.User(t.Context())
	_, _ = s.TakeFlashes(t.Context())
	want("reading, often", 1)
	must(t, s.Update(t.Context(), add("y")))
	want("a commit", 1)
	must(t, s.Login(t.Context(), "alice"))
	want("a login", 2)
	other := few.Open("")
	must(t, other.Login(t.Context(), "alice"))
	want("a login with MaxPerUser, of a new client", 3)
	must(t, other.Login(t.Context(), "alice"))
	want("a login with MaxPerUser", 4)
	must(t, s.Rotate(t.Context()))
	want("a rotation", 1)
	_, err := m.List(t.Context(), "alice")
	must(t, err)
	want("a list", 2)
	_, err = s.RevokeOthers(t.Context())
	must(t, err)
	want("revoke others", 1)
	_, err = m.Revoke(t.Context(), "alice", "what no handle looks like")
	must(t, err)
	want("a handle that is none", 0)
	_, err = m.RevokeAll(t.Context(), "alice")
	must(t, err)
	want("revoke all", 1)
	must(t, s.Logout(t.Context()))
	want("a logout", 1)
}

func TestEvents_CountGuessesAndFailures(t *testing.T) {
	r, c := counted(t)
	m := newManager(t, r, options{})
	s := login(t, m, "alice")
	alive(t, m, "not one of ours")
	alive(t, m, strings.Repeat("A", 56))
	must(t, s.Logout(t.Context()))
	alive(t, m, s.Token())
	other, err := session.New(r, "web", session.Options[int]{Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	_, _, _ = other.Open(stored(t, m, "x").Token()).Get(t.Context())
	want := map[string]int{
		"created": 2, "login": 1, "logout": 1,
		"missing/no_cookie": 3, "missing/malformed": 1, "missing/unknown": 1, "missing/undecodable": 1,
	}
	if !maps.Equal(c.events, want) {
		t.Errorf("%v, want %v", c.events, want)
	}
}

// Whoever reads Redis cannot use what he sees.
func TestIdentifier_IsNowhereInRedis(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	m := newManager(t, openConfig(t, srv.Config()), options{})
	s := stored(t, m, "x")
	tokens := []string{s.Token()}
	must(t, s.Login(t.Context(), "alice"))
	tokens = append(tokens, s.Token())
	must(t, s.Rotate(t.Context()))
	tokens = append(tokens, s.Token())
	var all strings.Builder
	keys, _ := srv.Do(t, "KEYS", "*").([]any)
	for _, k := range keys {
		fmt.Fprintln(&all, k)
		switch srv.Do(t, "TYPE", k.(string)) {
		case "hash":
			fmt.Fprintln(&all, srv.Do(t, "HGETALL", k.(string)))
		case "zset":
			fmt.Fprintln(&all, srv.Do(t, "ZRANGE", k.(string), "0", "-1"))
		default:
			fmt.Fprintln(&all, srv.Do(t, "GET", k.(string)))
		}
	}
	seen := map[string]bool{}
	for _, token := range tokens {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		must(t, err)
		if len(raw) != 42 || seen[string(raw[10:])] {
			t.Errorf("%d bytes, or seen before", len(raw))
		}
		seen[string(raw[10:])] = true
		for _, part := range []string{token, token[16:], string(raw[10:]), fmt.Sprintf("%x", raw[10:])} {
			if strings.Contains(all.String(), part) {
				t.Errorf("%q is in Redis", part)
			}
		}
		if alive(t, m, m.Open(token).Handle()) {
			t.Error("the handle was taken for the identifier")
		}
	}
	if len(keys) != 6 { // one is the fingerprint of the Secret
		t.Errorf("%d keys: %v", len(keys), keys)
	}
}

// A change of the secret ends the sessions of all users: a revocation would not
// find them any more.
func TestSecret_AChangeEndsTheSessionsOfAllUsers(t *testing.T) {
	r := open(t)
	before, after := newManager(t, r, options{Secret: key(1)}), newManager(t, r, options{Secret: key(2)})
	token, anonymous := login(t, before, "alice").Token(), stored(t, before, "x").Token()
	if alive(t, after, token) {
		t.Error("alive")
	}
	if err := after.Open(token).Update(t.Context(), add("x")); err != nil {
		t.Error(err) // a new session without user
	}
	if !alive(t, before, token) || !alive(t, after, anonymous) {
		t.Error("more than that was ended")
	}
}

func TestUpdate_TooLargeIsRefusedUnchanged(t *testing.T) {
	cfg := config
	cfg.KeyPrefix, cfg.MaxValueSize = t.Name()+":", 10000
	m := newManager(t, openConfig(t, cfg), options{})
	s := stored(t, m, "x")
	for name, err := range map[string]error{
		"Update":   s.Update(t.Context(), add(strings.Repeat("x", 20000))),
		"create":   m.Open("").Update(t.Context(), add(strings.Repeat("x", 20000))),
		"AddFlash": s.AddFlash(t.Context(), "info", strings.Repeat("x", 20000)),
	} {
		if !errors.Is(err, madcrow.ErrTooLarge) || problem.From(err).Status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, s.Update(t.Context(), add("y")))
	if c, _, err := m.Open(s.Token()).Get(t.Context()); err != nil || strings.Join(c.Items, "") != "xy" {
		t.Errorf("%+v %v", c, err)
	}
}

type picky struct{ Never chan int }

func TestUpdate_WhatCannotBeJSONIsRefused(t *testing.T) {
	m, err := session.New(open(t), "web", session.Options[picky]{})
	must(t, err)
	var v *madcrow.ArgumentError
	s := m.Open("")
	if err := s.Update(t.Context(), func(*picky) error { return nil }); !errors.As(err, &v) || s.Token() != "" {
		t.Errorf("%v", err)
	}
}

// Data that no longer decodes is a new session and a count; the identifier is
// not adopted for it.
func TestUndecodable_StartsANewSessionAndIsReported(t *testing.T) {
	r := open(t)
	var reported []error
	m := newManager(t, r, options{})
	other, err := session.New(r, "web", session.Options[[]int]{OnUndecodable: func(_ context.Context, err error) { reported = append(reported, err) }})
	must(t, err)
	token := stored(t, m, "a secret word").Token()
	s := other.Open(token)
	if _, found, err := s.Get(t.Context()); found || err != nil {
		t.Errorf("%v %v", found, err)
	}
	must(t, s.Update(t.Context(), func(d *[]int) error { *d = []int{1}; return nil }))
	if s.Token() == token || len(reported) != 1 || strings.Contains(reported[0].Error(), "secret") {
		t.Errorf("%v", reported)
	}
	if !alive(t, m, token) {
		t.Error("it was deleted: who rolls back has lost it")
	}
}

func TestErrors_HaveTheirStatus(t *testing.T) {
	for err, want := range map[error]int{
		session.ErrEnded: 401, session.ErrRotated: 401, session.ErrNoUser: 401,
		session.ErrConflict: 409, session.ErrHeadersSent: 500, session.ErrNoMiddleware: 500, session.ErrFastAPILayout: 500,
		session.ErrNotReplicated: 503, madcrow.ErrUnavailable: 503, madcrow.ErrTimeout: 504, madcrow.ErrTooLarge: 413,
	} {
		if got := problem.From(session.Failed(err)).Status; got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
	// The cause counts: a time-out was a 503 where the change had been made, and
	// a caller that gave up was a 504 where it had waited for another call.
	timeout := &madcrow.Error{Op: "WAIT", Kind: madcrow.KindTimeout}
	for _, tc := range []struct {
		err  error
		want int
	}{
		{errors.Join(session.ErrNotReplicated, timeout), 504},
		{fmt.Errorf("%w: %w", session.ErrOldSessionActive, timeout), 504},
		{session.ErrOldSessionActive, 503},
		{&madcrow.Error{Op: "wait", Kind: madcrow.KindTimeout, Err: session.ErrInUse}, 504},
		{&madcrow.Error{Op: "wait", Kind: madcrow.KindCanceled, Err: session.ErrInUse}, 503},
		{errors.Join(session.ErrNotReplicated, session.ErrHeadersSent), 500},
		{errors.Join(session.ErrRotated, timeout), 401},
	} {
		p := problem.From(session.Failed(tc.err))
		if p.Status != tc.want || (p.RetryAfter > 0) != (tc.want == 503) {
			t.Errorf("%v: %d, Retry-After %v; want %d", tc.err, p.Status, p.RetryAfter, tc.want)
		}
	}
	m := newManager(t, open(t), options{})
	for _, user := range []string{"", strings.Repeat("x", 513)} {
		for name, err := range map[string]error{
			"Login": m.Open("").Login(t.Context(), user), "List": second(m.List(t.Context(), user)),
			"Revoke": second(m.Revoke(t.Context(), user, "x")), "RevokeAll": second(m.RevokeAll(t.Context(), user)),
		} {
			if problem.From(err).Status != http.StatusInternalServerError {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, opt := range []session.LoginOption{session.WithLifetimes(0, time.Hour), session.WithLifetimes(time.Hour, time.Minute), session.WithLifetimes(time.Hour, 11*365*24*time.Hour)} {
		if err := m.Open("").Login(t.Context(), "alice", opt); problem.From(err).Status != http.StatusInternalServerError {
			t.Error(err)
		}
	}
}

func TestFlash_EachToOneCallerAlone(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := m.Open("")
	for i := range 40 {
		must(t, s.AddFlash(t.Context(), "info", fmt.Sprint(i)))
	}
	var mu sync.Mutex
	var all []session.Flash
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			f, err := m.Open(s.Token()).TakeFlashes(t.Context())
			must(t, err)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, f...)
		})
	}
	wg.Wait()
	if len(all) != 32 || all[0].Text != "8" || all[31].Text != "39" {
		t.Errorf("%v", all)
	}
}

func TestFrom_OutsideOfMiddlewareEverythingIsAnError(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := m.From(httptest.NewRequest("GET", "/", nil).Context())
	for name, err := range map[string]error{
		"User": second(s.User(t.Context())), "Update": s.Update(t.Context(), add("x")), "Login": s.Login(t.Context(), "alice"),
		"Rotate": s.Rotate(t.Context()), "Logout": s.Logout(t.Context()), "RevokeOthers": second(s.RevokeOthers(t.Context())),
		"AddFlash": s.AddFlash(t.Context(), "", "x"), "TakeFlashes": second(s.TakeFlashes(t.Context())),
	} {
		if !errors.Is(err, session.ErrNoMiddleware) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Token() != "" || s.Handle() != "" || s.Degraded() != nil {
		t.Error("it has something")
	}
}

// Where a key or a type was lost, every request filled the log with one line.
func TestUndecodable_IsLoggedOnceForEachReason(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{})
	var log strings.Builder
	other, err := session.New(r, "web", session.Options[[]int]{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	must(t, err)
	for range 3 {
		if _, found, err := other.Open(stored(t, m, "x").Token()).Get(t.Context()); found || err != nil {
			t.Errorf("%v %v", found, err)
		}
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d lines: %s", n, log.String())
	}
}
