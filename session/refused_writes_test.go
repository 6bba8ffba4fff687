package session_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/session"
)

func TestWaitReplicas_SaysWhatWasMade(t *testing.T) {
	srv := madcrowtest.StartRedis(t, madcrowtest.WithUser("mayall", "pw"), madcrowtest.WithUser("nowait", "pw", "~*", "&*", "+@all", "-wait"), madcrowtest.WithUser("noeval", "pw", "~*", "&*", "+@all", "-eval"))
	as := func(user string, opt options) *session.Manager[cart] {
		cfg := srv.Config()
		cfg.Username, cfg.Password, cfg.CommandTimeout = user, "pw", 5*time.Second
		return newManager(t, openConfig(t, cfg), opt)
	}
	plain := as("mayall", options{})
	for user, also := range map[string]error{"mayall": nil, "nowait": madcrow.ErrPermission} {
		m := as(user, options{WaitReplicas: 1, WaitTimeout: 20 * time.Millisecond})
		want := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, session.ErrNotReplicated) || also != nil && !errors.Is(err, also) {
				t.Errorf("%s, %s: %v", user, what, err)
			}
		}
		s := m.Open("")
		want("create", s.Update(t.Context(), add("a")))
		want("commit", s.Update(t.Context(), add("b")))
		must(t, plain.Open(s.Token()).Update(t.Context(), add("c")))
		want("commit after a conflict", s.Update(t.Context(), add("d")))
		old := s.Token()
		want("login", s.Login(t.Context(), user))
		if alive(t, plain, old) {
			t.Error("the old one is alive")
		}
		want("rotate", s.Rotate(t.Context()))
		if c, found, err := plain.Open(s.Token()).Get(t.Context()); !found || err != nil || strings.Join(c.Items, "") != "abcd" {
			t.Errorf("%s: %+v %v %v", user, c, found, err)
		}
		handle := login(t, plain, user).Handle()
		login(t, plain, user)
		ok, err := m.Revoke(t.Context(), user, handle)
		if want("revoke", err); !ok {
			t.Error("Revoke said that there was none")
		}
		n, err := s.RevokeOthers(t.Context())
		if want("revoke others", err); n != 1 {
			t.Errorf("RevokeOthers: %d", n)
		}
		n, err = m.RevokeAll(t.Context(), user)
		if want("revoke all", err); n != 1 {
			t.Errorf("RevokeAll: %d", n)
		}
		s = loaded(t, m, login(t, plain, user).Token())
		want("logout", s.Logout(t.Context()))
		want("logout again", s.Logout(t.Context()))
		if alive(t, plain, s.Token()) {
			t.Error("alive after a logout")
		}
	}
	m := as("noeval", options{WaitReplicas: 1})
	s := m.Open("")
	var e *madcrow.Error
	if err := s.Update(t.Context(), add("x")); !errors.As(err, &e) || e.Outcome != madcrow.OutcomeNotApplied || s.Token() != "" {
		t.Errorf("EVAL is denied: %v", err)
	}
	// The caller has less time than the replicas.
	m = as("mayall", options{WaitReplicas: 1, WaitTimeout: 2 * time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	start := time.Now()
	e = nil
	if err := m.Open("").Update(ctx, add("x")); !errors.Is(err, session.ErrNotReplicated) || errors.As(err, &e) && e.Outcome != madcrow.OutcomeApplied {
		t.Errorf("%v after %v, with 150 ms to go", err, time.Since(start))
	}
}

// Redis takes no writes, or is full: what can be read is read, and nothing is
// half written.
func TestReadOnlyAndFullRedis(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	cfg := srv.Config()
	cfg.CommandTimeout = 300 * time.Millisecond // a master without its replicas is waited for
	m := newManager(t, openConfig(t, cfg), options{})
	s, other := login(t, m, "alice"), login(t, m, "alice")
	must(t, s.Update(t.Context(), add("x")))
	k, _, _ := m.KeysOf(s.Token())
	config := func(args ...string) {
		t.Helper()
		if got := srv.Do(t, append([]string{"CONFIG", "SET"}, args...)...); got != "OK" {
			t.Fatal(got)
		}
	}
	writes := func(name string, want error) {
		t.Helper()
		for what, err := range map[string]error{
			"Update": m.Open(s.Token()).Update(t.Context(), add("y")),
			"create": m.Open("").Update(t.Context(), add("y")),
			"Login":  m.Open(s.Token()).Login(t.Context(), "alice"),
			"Rotate": m.Open(s.Token()).Rotate(t.Context()),
		} {
			if !errors.Is(err, want) {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
		if c, found, err := m.Open(s.Token()).Get(t.Context()); !found || err != nil || c.N != 1 {
			t.Errorf("%s: %+v %v %v", name, c, found, err)
		}
	}
	if !madcrowtest.OlderThan(t, "7.0") { // from there on it holds inside of scripts
		config("min-replicas-to-write", "1")
		writes("no replicas", madcrow.ErrReadOnly)
		config("min-replicas-to-write", "0")
		srv.Do(t, "PEXPIRE", k, "100000") // its use would have to be written down
		config("min-replicas-to-write", "1")
		if _, found, err := m.Open(s.Token()).Get(t.Context()); found || err == nil {
			t.Errorf("used, and not written down: %v %v", found, err)
		}
		config("min-replicas-to-write", "0")
	}
	config("maxmemory-policy", "noeviction")
	config("maxmemory", "1")
	writes("full", madcrow.ErrOutOfMemory)
	if _, err := s.RevokeOthers(t.Context()); err != nil {
		t.Errorf("revoking others while Redis is full: %v", err)
	}
	if alive(t, m, other.Token()) {
		t.Error("another is alive")
	}
	if ok, err := m.Revoke(t.Context(), "alice", s.Handle()); !ok || err != nil {
		t.Errorf("a revocation while Redis is full: %v %v", ok, err)
	}
	config("maxmemory", "0")
	if alive(t, m, s.Token()) {
		t.Error("alive")
	}
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 0 {
		t.Errorf("half a login: %v %v", list, err)
	}
}
