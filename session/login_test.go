package session_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

// A late request under the first identifier, after two changes of it within the
// grace, found none and began a session: its cookie took the place of the right
// one, and the browser was logged out.
func TestRotate_RepeatedInTheGraceTheFirstIdentifierStartsNoSession(t *testing.T) {
	m := newManager(t, open(t), options{})
	rotate := func(s *session.Session[cart]) { must(t, s.Rotate(t.Context())) }
	again := func(s *session.Session[cart]) { must(t, s.Login(t.Context(), "alice")) }
	others := func(s *session.Session[cart]) { must(t, second(s.RevokeOthers(t.Context()))) }
	everywhere := func(s *session.Session[cart]) {
		must(t, second(m.RevokeAll(t.Context(), "alice")))
		// The same browser logs in again.
		must(t, m.Open(s.Token()).Login(t.Context(), "alice"))
	}
	logout := func(s *session.Session[cart]) { must(t, s.Logout(t.Context())) }
	for name, steps := range map[string][]func(*session.Session[cart]){
		"rotated two times":                    {rotate, rotate},
		"three times":                          {rotate, rotate, rotate},
		"two times, and the others ended":      {rotate, rotate, others},
		"in between":                           {rotate, others, rotate},
		"a login after it":                     {rotate, again},
		"a login before it":                    {again, rotate},
		"two logins":                           {again, again},
		"all ended, and a login":               {rotate, everywhere},
		"logged out after it":                  {rotate, logout},
		"logged out after two, and again":      {rotate, rotate, logout, again},
		"logged out after a login":             {again, logout},
		"rotated two times, the others, login": {rotate, rotate, others, again},
	} {
		t.Run(name, func(t *testing.T) {
			s := login(t, m, "alice")
			first := s.Token()
			for _, step := range steps {
				step(s)
			}
			late := m.Open(first)
			if _, found, err := late.Get(t.Context()); found || err != nil {
				t.Errorf("it reads: %v %v", found, err)
			}
			if err := late.Update(t.Context(), add("late")); !errors.Is(err, session.ErrRotated) || late.Token() != "" {
				t.Errorf("a late write: %v, new identifier %v", err, late.Token() != "")
			}
			if err := late.AddFlash(t.Context(), "info", "late"); !errors.Is(err, session.ErrRotated) {
				t.Errorf("a late message: %v", err)
			}
			if err := late.Rotate(t.Context()); err != nil || late.Token() != "" {
				t.Errorf("a late rotation: %v", err)
			}
			if n, err := late.RevokeOthers(t.Context()); !errors.Is(err, session.ErrNoUser) || n != 0 {
				t.Errorf("a late revocation: %d %v", n, err)
			}
			if ended := s.Token() == ""; !ended && !alive(t, m, s.Token()) && name != "all ended, and a login" {
				t.Error("the right one has ended")
			}
		})
	}
}

// A login whose session was rotated and ended meanwhile took its data along, and
// was said to be made where a revocation had ended what it made, too.
func TestLogin_RevivesNoDataOfARotatedAndEndedSession(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*session.Manager[cart], *session.Session[cart]) error
		when string
		want error
	}{
		"logged out": {func(_ *session.Manager[cart], s *session.Session[cart]) error { return s.Logout(t.Context()) }, "create", nil},
		"all were ended": {func(m *session.Manager[cart], _ *session.Session[cart]) error {
			return second(m.RevokeAll(t.Context(), "alice"))
		}, "create", nil},
		"this one was ended": {func(m *session.Manager[cart], s *session.Session[cart]) error {
			return second(m.Revoke(t.Context(), "alice", s.Handle()))
		}, "destroy", nil},
		"all, the new one too": {
			func(m *session.Manager[cart], _ *session.Session[cart]) error {
				return second(m.RevokeAll(t.Context(), "alice"))
			},
			"destroy", session.ErrEnded,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t)
			m, others := newManager(t, r, options{}), newManager(t, r, options{})
			s := login(t, others, "alice")
			must(t, s.Update(t.Context(), add("x")))
			first := s.Token()
			late := loaded(t, m, first)
			m.SetHook(once(c.when, func() {
				must(t, s.Rotate(t.Context()))
				must(t, c.end(others, s))
			}))
			err := late.Login(t.Context(), "alice")
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err == nil {
				if c, found, err := others.Open(late.Token()).Get(t.Context()); !found || err != nil || c.N != 0 {
					t.Errorf("%+v %v %v", c, found, err)
				}
			}
			// The note under the first identifier stays.
			if err := others.Open(first).Update(t.Context(), add("late")); !errors.Is(err, session.ErrRotated) {
				t.Errorf("a late write: %v", err)
			}
		})
	}
}

func TestLogin_KeepsParallelUpdates(t *testing.T) {
	r := open(t)
	for _, at := range []string{"create", "destroy"} {
		m, others := newManager(t, r, options{}), newManager(t, r, options{})
		s := stored(t, others, "first")
		mine := loaded(t, m, s.Token())
		m.SetHook(once(at, func() { must(t, others.Open(s.Token()).Update(t.Context(), add("second"))) }))
		must(t, mine.Login(t.Context(), "alice"))
		if c, _, err := others.Open(mine.Token()).Get(t.Context()); err != nil || fmt.Sprint(c.Items) != "[first second]" {
			t.Errorf("an update before %s: %+v %v", at, c, err)
		}
	}
}

// Somebody who knows the identifier writes without pause: its owner must be
// able to change it, and loses nothing.
func TestLogin_CannotBeKeptFromChangingTheIdentifier(t *testing.T) {
	r := open(t)
	for name, opt := range map[string]options{"plain": {}, "sealed": {EncryptionKeys: [][]byte{key(1)}}} {
		m, others := newManager(t, r, opt), newManager(t, r, opt)
		n := 1
		token := ""
		faster := func(script string) session.Hook {
			return func(op string) error {
				if op == script && alive(t, others, token) {
					if others.Open(token).Update(t.Context(), add(fmt.Sprint(n))) == nil {
						n++
					}
				}
				return nil
			}
		}
		s := stored(t, others, "0")
		mine := loaded(t, m, s.Token())
		token = s.Token()
		m.SetHook(faster("destroy"))
		must(t, mine.Login(t.Context(), "alice"))
		if c, _, err := others.Open(mine.Token()).Get(t.Context()); err != nil || c.N != n || n < 3 {
			t.Errorf("%s: login: %d of %d, %v", name, c.N, n, err)
		}
		token = mine.Token()
		m.SetHook(faster("rotate"))
		err := mine.Rotate(t.Context())
		if name == "sealed" { // it would have to be sealed again each time
			if !errors.Is(err, session.ErrConflict) || mine.Token() != token {
				t.Errorf("sealed: %v", err)
			}
		} else if err != nil || mine.Token() == token {
			t.Errorf("plain: %v", err)
		}
		m.SetHook(func(string) error { return nil })
		if c, found, err := mine.Get(t.Context()); err != nil || !found || c.N != n {
			t.Errorf("%s: rotate: %d of %d, %v", name, c.N, n, err)
		}
	}
}

func TestLogin_KeepsNoDataOfAnotherUser(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := login(t, m, "alice")
	must(t, s.Update(t.Context(), add("secret of alice")))
	must(t, s.Login(t.Context(), "alice"))
	if c, _, _ := s.Get(t.Context()); c.N != 1 {
		t.Errorf("the same user: %+v", c)
	}
	must(t, s.Login(t.Context(), "bob"))
	if c, found, err := m.Open(s.Token()).Get(t.Context()); !found || err != nil || c.N != 0 {
		t.Errorf("another user: %+v %v %v", c, found, err)
	}
}

func TestLogin_RevivesNoDataOfAnEndedSession(t *testing.T) {
	r := open(t)
	m, others := newManager(t, r, options{}), newManager(t, r, options{})
	s := login(t, others, "alice")
	must(t, s.Update(t.Context(), add("x")))
	late := loaded(t, m, s.Token())
	m.SetHook(once("create", func() { must(t, s.Logout(t.Context())) }))
	must(t, late.Login(t.Context(), "alice"))
	if c, found, err := others.Open(late.Token()).Get(t.Context()); !found || err != nil || c.N != 0 {
		t.Errorf("%+v %v %v", c, found, err)
	}
}

func TestLogin_OfARotatedSessionKeepsItsData(t *testing.T) {
	r := open(t)
	m, others := newManager(t, r, options{}), newManager(t, r, options{})
	s := login(t, others, "alice")
	late := loaded(t, m, s.Token())
	m.SetHook(once("create", func() {
		must(t, s.Rotate(t.Context()))
		must(t, s.Update(t.Context(), add("x")))
	}))
	if err := late.Login(t.Context(), "alice"); !errors.Is(err, session.ErrRotated) {
		t.Errorf("rotated meanwhile: %v", err)
	}
	if c, found, err := others.Open(s.Token()).Get(t.Context()); !found || err != nil || c.N != 1 {
		t.Errorf("%+v %v %v", c, found, err)
	}
	if list, err := others.List(t.Context(), "alice"); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
}

func TestLogin_AgainOnOneDeviceEndsNoOtherOfMaxPerUser(t *testing.T) {
	m := newManager(t, open(t), options{MaxPerUser: 2})
	first := login(t, m, "alice")
	second := login(t, m, "alice")
	for range 3 {
		must(t, second.Login(t.Context(), "alice"))
	}
	if !alive(t, m, first.Token()) || !alive(t, m, second.Token()) {
		t.Errorf("first %v, second %v", alive(t, m, first.Token()), alive(t, m, second.Token()))
	}
}

func TestLogin_WithASmallerMaxPerUserThanThereAreSessions(t *testing.T) {
	r := open(t)
	m, few := newManager(t, r, options{}), newManager(t, r, options{MaxPerUser: 1})
	s := login(t, m, "alice")
	key, _, index := m.KeysOf(s.Token())
	err := r.Eval(t.Context(), madcrow.NewScript("many", `
		local all = redis.call('HGETALL', KEYS[1])
		for i = 1, 9000 do
			redis.call('ZADD', KEYS[2], '9e15', 'm' .. i)
			local k = string.gsub(KEYS[1], 's:[^:]*$', 's:m' .. i)
			redis.call('HSET', k, unpack(all))
			redis.call('PEXPIRE', k, 60000)
		end`), []string{key, index}, nil).Err()
	must(t, err)
	must(t, few.Open("").Login(t.Context(), "alice"))
	if list, err := few.List(t.Context(), "alice"); err != nil || len(list) != 1 {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}

func TestLogin_SaysWhenTheOldIdentifierMayLive(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{})
	s := stored(t, m, "x")
	old := s.Token()
	m.SetHook(refuse("destroy", 1))
	err := s.Login(t.Context(), "alice")
	if !errors.Is(err, session.ErrOldSessionActive) || s.Token() == old || !alive(t, m, s.Token()) {
		t.Errorf("%v", err)
	}
	must(t, s.Logout(t.Context()))
	if alive(t, m, old) {
		t.Error("the old one lives on after a logout")
	}
}

func TestLogin_LateWriteUnderTheOldIdentifierMakesNoNewSession(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := stored(t, m, "x")
	fresh, early := m.Open(s.Token()), loaded(t, m, s.Token())
	must(t, s.Login(t.Context(), "alice"))
	for name, late := range map[string]*session.Session[cart]{"loaded before": early, "not loaded": fresh} {
		if err := late.Update(t.Context(), add("y")); !errors.Is(err, session.ErrRotated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// After a time-out the old session was ended at once all the same, without the
// grace for requests under way, and the error said that it was active.
func TestLogin_OldSessionThatCouldNotBeEndedIsLeftToTheNextOne(t *testing.T) {
	for name, next := range map[string]func(*session.Session[cart]) error{
		"login":  func(s *session.Session[cart]) error { return s.Login(t.Context(), "alice") },
		"logout": func(s *session.Session[cart]) error { return s.Logout(t.Context()) },
	} {
		m := newManager(t, open(t), options{})
		s := stored(t, m, "x")
		old := s.Token()
		m.SetHook(refuse("destroy", 1))
		if err := s.Login(t.Context(), "alice"); !errors.Is(err, session.ErrOldSessionActive) {
			t.Fatal(err)
		}
		if !alive(t, m, old) {
			t.Error("ended, though the error says that it is active")
		}
		must(t, next(s))
		if alive(t, m, old) {
			t.Errorf("the next %s did not end it", name)
		}
	}
}
