package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/session"
)

// login opens a session of a user.
func login(t testing.TB, m *session.Manager[cart], user string, opts ...session.LoginOption) *session.Session[cart] {
	t.Helper()
	s := m.Open("")
	if err := s.Login(t.Context(), user, opts...); err != nil {
		t.Fatal(err)
	}
	return s
}

// stored makes a session without user.
func stored(t testing.TB, m *session.Manager[cart], item string) *session.Session[cart] {
	t.Helper()
	s := m.Open("")
	if err := s.Update(t.Context(), add(item)); err != nil {
		t.Fatal(err)
	}
	return s
}

// loaded opens an identifier once more, and reads it.
func loaded(t testing.TB, m *session.Manager[cart], token string) *session.Session[cart] {
	t.Helper()
	s := m.Open(token)
	if _, found, err := s.Get(t.Context()); !found || err != nil {
		t.Fatalf("found %v, %v", found, err)
	}
	return s
}

// alive says whether an identifier can be read.
func alive(t testing.TB, m *session.Manager[cart], token string) bool {
	t.Helper()
	_, found, err := m.Open(token).Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// once calls f before the first operation of that name.
func once(name string, f func()) session.Hook {
	var first sync.Once
	return func(op string) error {
		if op == name {
			first.Do(f)
		}
		return nil
	}
}

// refuse makes the operation of that name fail, n times.
func refuse(name string, n int) session.Hook {
	return func(op string) error {
		if op == name && n > 0 {
			n--
			return &madcrow.Error{Op: name, Kind: madcrow.KindServer, Outcome: madcrow.OutcomeNotApplied, Err: errors.New("refused for a test")}
		}
		return nil
	}
}

func TestLogout_WithTheOldIdentifierEndsTheRotatedSession(t *testing.T) {
	m := newManager(t, open(t), session.Options{})
	s := login(t, m, "alice")
	old := s.Token()
	must(t, s.Rotate(t.Context()))
	must(t, m.Open(old).Logout(t.Context()))
	if alive(t, m, s.Token()) || alive(t, m, old) {
		t.Error("logged out with the identifier from before a rotation, and the session lives on")
	}
}

func TestRevoke_ByTheOldHandleEndsTheRotatedSession(t *testing.T) {
	m := newManager(t, open(t), session.Options{})
	s := login(t, m, "alice")
	list, err := m.List(t.Context(), "alice")
	must(t, err)
	must(t, s.Rotate(t.Context()))
	ok, err := m.Revoke(t.Context(), "alice", list[0].Handle)
	if !ok || err != nil || alive(t, m, s.Token()) {
		t.Errorf("revoked %v, %v, and alive %v", ok, err, alive(t, m, s.Token()))
	}
}

func TestRevoke_LeavesAStrangerInTheSameSlotAlone(t *testing.T) {
	m := newManager(t, open(t), session.Options{})
	alice := login(t, m, "alice")
	anonymous := stored(t, m, "x")
	mallory := ""
	for i := 0; mallory == "" || session.TagOf(nil, mallory) != session.TagOf(nil, "alice"); i++ {
		mallory = "mallory" + strconv.Itoa(i)
	}
	if ok, err := m.Revoke(t.Context(), mallory, alice.Handle()); ok || err != nil || !alive(t, m, alice.Token()) {
		t.Errorf("%s ended the session of alice: %v, %v", mallory, ok, err)
	}
	for _, handle := range []string{"", "x", "}{", strings.Repeat("\x00", 43), strings.Repeat("k", 1<<20), anonymous.Handle()} {
		if ok, err := m.Revoke(t.Context(), "alice", handle); ok || err != nil {
			t.Errorf("%.50q: %v, %v", handle, ok, err)
		}
	}
	if !alive(t, m, anonymous.Token()) {
		t.Error("a session without user was ended")
	}
}

func TestRevokeOthers_WithAnInvalidIdentifierEndsNoSession(t *testing.T) {
	m := newManager(t, open(t), session.Options{})
	s := login(t, m, "alice")
	other := login(t, m, "alice")
	late := loaded(t, m, s.Token())
	must(t, s.Rotate(t.Context()))
	if n, err := late.RevokeOthers(t.Context()); !errors.Is(err, session.ErrRotated) || n != 0 || !alive(t, m, s.Token()) || !alive(t, m, other.Token()) {
		t.Errorf("rotated: %d, %v; alive %v %v", n, err, alive(t, m, s.Token()), alive(t, m, other.Token()))
	}
	late = loaded(t, m, s.Token())
	must(t, s.Logout(t.Context()))
	if n, err := late.RevokeOthers(t.Context()); !errors.Is(err, session.ErrEnded) || n != 0 || !alive(t, m, other.Token()) {
		t.Errorf("ended: %d, %v; alive %v", n, err, alive(t, m, other.Token()))
	}
}

// A change of a password rotates, and ends the others: whoever has stolen the
// old identifier reads nothing any more. A request of the owner that is still
// under way with it does not begin a session in the place of the right one.
func TestRevokeOthers_EndsTheGraceOfTheOneThatIsKept(t *testing.T) {
	m := newManager(t, open(t), session.Options{})
	s := login(t, m, "alice")
	old, other := s.Token(), login(t, m, "alice")
	must(t, s.Rotate(t.Context()))
	if !alive(t, m, old) {
		t.Fatal("no grace")
	}
	if n, err := s.RevokeOthers(t.Context()); n != 1 || err != nil || alive(t, m, other.Token()) || alive(t, m, old) || !alive(t, m, s.Token()) {
		t.Errorf("%d %v; other %v, old %v, kept %v", n, err, alive(t, m, other.Token()), alive(t, m, old), alive(t, m, s.Token()))
	}
	late := m.Open(old)
	if err := late.Update(t.Context(), add("late")); !errors.Is(err, session.ErrRotated) || late.Token() != "" {
		t.Errorf("a late change: %v, %q", err, late.Token())
	}
	must(t, m.Open(old).Logout(t.Context()))
	if !alive(t, m, s.Token()) {
		t.Error("ended by an identifier that counts no more")
	}
	must(t, s.Rotate(t.Context()))
	if _, err := m.RevokeAll(t.Context(), "alice"); err != nil || alive(t, m, s.Token()) || alive(t, m, old) {
		t.Errorf("after RevokeAll: %v", err)
	}
}

func TestLogin_KeepsParallelUpdates(t *testing.T) {
	r := open(t)
	for _, at := range []string{"create", "destroy"} {
		m, others := newManager(t, r, session.Options{}), newManager(t, r, session.Options{})
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
	for name, opt := range map[string]session.Options{"plain": {}, "sealed": {Keys: [][]byte{key(1)}}} {
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
	m := newManager(t, open(t), session.Options{})
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
	m, others := newManager(t, r, session.Options{}), newManager(t, r, session.Options{})
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
	m, others := newManager(t, r, session.Options{}), newManager(t, r, session.Options{})
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
	m := newManager(t, open(t), session.Options{MaxPerUser: 2})
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
	m, few := newManager(t, r, session.Options{}), newManager(t, r, session.Options{MaxPerUser: 1})
	s := login(t, m, "alice")
	key, _, index := m.KeysOf(s.Token())
	_, err := r.Eval(t.Context(), madcrow.NewScript("many", `
		local all = redis.call('HGETALL', KEYS[1])
		for i = 1, 9000 do
			redis.call('ZADD', KEYS[2], '9e15', 'm' .. i)
			local k = string.gsub(KEYS[1], 's:[^:]*$', 's:m' .. i)
			redis.call('HSET', k, unpack(all))
			redis.call('PEXPIRE', k, 60000)
		end`), []string{key, index}, nil)
	must(t, err)
	must(t, few.Open("").Login(t.Context(), "alice"))
	if list, err := few.List(t.Context(), "alice"); err != nil || len(list) != 1 {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}

func TestLogout_CanBeRepeatedAfterAFailure(t *testing.T) {
	r := open(t)
	m := newManager(t, r, session.Options{})
	s := login(t, m, "alice")
	m.SetHook(refuse("destroy", 1))
	if err := s.Logout(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if _, found, err := s.Get(t.Context()); found || err != nil {
		t.Errorf("after a logout that failed: %v %v", found, err)
	}
	must(t, s.Logout(t.Context()))
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 0 {
		t.Errorf("a repeated logout returned nil, and the session lives on: %v %v", list, err)
	}
}

func TestLogout_OutsideOfMiddlewareIsAnError(t *testing.T) {
	m := newManager(t, open(t), session.Options{})
	if err := m.From(t.Context()).Logout(t.Context()); !errors.Is(err, session.ErrNoMiddleware) {
		t.Error(err)
	}
}

func TestLogout_EndsWhatCannotBeDecoded(t *testing.T) {
	r := open(t)
	m := newManager(t, r, session.Options{})
	s := login(t, m, "alice")
	other, err := session.New[int](r, session.Options{})
	must(t, err)
	late := other.Open(s.Token())
	if _, found, err := late.Get(t.Context()); found || err != nil {
		t.Fatal(found, err)
	}
	must(t, late.Logout(t.Context()))
	if alive(t, m, s.Token()) {
		t.Error("logged out, and alive")
	}
}

func TestLogin_SaysWhenTheOldIdentifierMayLive(t *testing.T) {
	r := open(t)
	m := newManager(t, r, session.Options{})
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
	m := newManager(t, open(t), session.Options{})
	s := stored(t, m, "x")
	fresh, early := m.Open(s.Token()), loaded(t, m, s.Token())
	must(t, s.Login(t.Context(), "alice"))
	for name, late := range map[string]*session.Session[cart]{"loaded before": early, "not loaded": fresh} {
		if err := late.Update(t.Context(), add("y")); !errors.Is(err, session.ErrRotated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMiddleware_InnerFailureHoldsAfterAnOuterLoad(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	m := newManager(t, openConfig(t, srv.Config()), session.Options{})
	token := login(t, m, "alice").Token()
	srv.Kill()
	var outer, inner, after error
	strict := m.Middleware(session.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _, inner = m.From(r.Context()).Get(r.Context())
	}))
	h := m.Middleware(session.ReadAnonymous)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.From(r.Context())
		_, _, outer = s.Get(r.Context())
		strict.ServeHTTP(w, r)
		_, _, after = s.Get(r.Context())
	}))
	req := httptest.NewRequest("GET", "/", nil)
	req.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
	h.ServeHTTP(httptest.NewRecorder(), req)
	if outer != nil || !errors.Is(inner, madcrow.ErrUnavailable) || after != nil {
		t.Errorf("outer %v, inner %v, after %v", outer, inner, after)
	}
}

// copyOf reads a session by the copy of this process.
func copyOf(t testing.TB, m *session.Manager[cart], token string) (found bool, err error) {
	t.Helper()
	h := m.Middleware(session.ReadCopy)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, found, err = m.From(r.Context()).Get(r.Context())
	}))
	req := httptest.NewRequest("GET", "/", nil)
	req.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
	h.ServeHTTP(httptest.NewRecorder(), req)
	return found, err
}

func TestReadCopy_DropsSessionsThatThisProcessEnded(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	r := openConfig(t, srv.Config())
	m := newManager(t, r, session.Options{MaxPerUser: 1})
	rival := newManager(t, r, session.Options{})
	copied := func(user string) *session.Session[cart] {
		s := login(t, rival, user)
		if found, err := copyOf(t, m, s.Token()); !found || err != nil {
			t.Fatal(found, err)
		}
		return s
	}
	gone := map[string]string{}
	s := copied("logout")
	gone["logout"] = s.Token()
	must(t, m.Open(s.Token()).Logout(t.Context()))

	s = copied("revoke")
	gone["revoke"] = s.Token()
	_, err := m.Revoke(t.Context(), "revoke", s.Handle())
	must(t, err)

	s = copied("all")
	gone["all"] = s.Token()
	_, err = m.RevokeAll(t.Context(), "all")
	must(t, err)

	s = copied("rotate")
	gone["rotate"] = s.Token()
	must(t, m.Open(s.Token()).Rotate(t.Context()))
	if found, err := copyOf(t, m, s.Token()); !found || err != nil { // in the grace
		t.Fatal(found, err)
	}

	s = copied("evicted")
	gone["evicted"] = s.Token()
	must(t, m.Open("").Login(t.Context(), "evicted"))

	// The reply of a load that began before the logout comes after it.
	s = login(t, rival, "late")
	gone["late"] = s.Token()
	late := newManager(t, r, session.Options{})
	if _, err := copyOf(t, late, ""); err != nil {
		t.Fatal(err)
	}
	late.SetHook(once("destroy", func() {
		if _, err := copyOf(t, late, s.Token()); err != nil {
			t.Error(err)
		}
	}))
	must(t, late.Open(s.Token()).Logout(t.Context()))

	// After those that forget all copies.
	for _, way := range []string{"logout by the old one", "revoke by the old one"} {
		s = login(t, rival, way)
		token, handle := s.Token(), s.Handle()
		must(t, s.Rotate(t.Context()))
		if found, err := copyOf(t, m, s.Token()); !found || err != nil {
			t.Fatal(found, err)
		}
		gone[way] = s.Token()
		if way == "logout by the old one" {
			must(t, m.Open(token).Logout(t.Context()))
		} else if ok, err := m.Revoke(t.Context(), way, handle); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}

	kept := copied("kept").Token()
	srv.Kill()
	for name, token := range gone {
		of := m
		if name == "late" {
			of = late
		}
		if found, err := copyOf(t, of, token); found || err == nil {
			t.Errorf("%s: found %v, %v", name, found, err)
		}
	}
	if found, err := copyOf(t, m, kept); !found || err != nil {
		t.Errorf("the one that was not ended: %v, %v", found, err)
	}
}

func TestRotate_KeepsTheLifeOfTheCookie(t *testing.T) {
	m := newManager(t, open(t), session.Options{})
	for _, tc := range []struct {
		name string
		opts []session.LoginOption
		want int
	}{
		{"short and remembered", []session.LoginOption{session.Remember(), session.WithLifetimes(time.Minute, time.Hour)}, 3600},
		{"remembered", []session.LoginOption{session.Remember()}, 90 * 86400},
		{"long and not remembered", []session.LoginOption{session.WithLifetimes(time.Hour, 48*time.Hour)}, 0},
		{"usual", nil, 0},
	} {
		token := login(t, m, "alice", tc.opts...).Token()
		h := m.Middleware(session.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			must(t, m.From(r.Context()).Rotate(r.Context()))
		}))
		req := httptest.NewRequest("GET", "/", nil)
		req.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if c := w.Result().Cookies(); len(c) != 1 || c[0].MaxAge > tc.want || c[0].MaxAge < tc.want-5 {
			t.Errorf("%s: %v, want Max-Age %d", tc.name, c, tc.want)
		}
	}
}

func TestSession_WaitsNoLongerThanItsContext(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	m := newManager(t, openConfig(t, srv.Config()), session.Options{})
	s := m.Open(login(t, m, "alice").Token())
	srv.Pause()
	defer srv.Resume()
	go func() { _, _, _ = s.Get(context.Background()) }()
	time.Sleep(20 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, _, err := s.Get(ctx)
	if d := time.Since(start); d > 250*time.Millisecond || !errors.Is(err, madcrow.ErrTimeout) {
		t.Errorf("%v after %v, with 50 ms to go", err, d)
	}
	_ = s.Token() // does not wait
	if d := time.Since(start); d > 300*time.Millisecond {
		t.Errorf("Token took %v", d)
	}
}

func TestUpdate_InsideUpdateIsAnError(t *testing.T) {
	cfg := config
	cfg.CommandTimeout = 300 * time.Millisecond
	m := newManager(t, openConfig(t, cfg), session.Options{Name: "inside"})
	s := stored(t, m, "x")
	done := make(chan error, 1)
	go func() {
		done <- s.Update(context.Background(), func(*cart) error { return s.Update(context.Background(), add("y")) })
	}()
	select {
	case err := <-done:
		if !errors.Is(err, session.ErrInUse) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it hangs")
	}
	must(t, s.Update(t.Context(), add("z")))
}

func TestUpdate_PanicOfTheChangeLeavesTheSessionUsable(t *testing.T) {
	m := newManager(t, open(t), session.Options{})
	s := stored(t, m, "x")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = s.Update(t.Context(), func(c *cart) error { c.Items = nil; c.N = 99; panic("of a test") })
	}()
	must(t, s.Update(t.Context(), add("y")))
	if c, _, err := s.Get(t.Context()); err != nil || c.N != 2 || len(c.Items) != 2 {
		t.Errorf("%+v %v", c, err)
	}
}
