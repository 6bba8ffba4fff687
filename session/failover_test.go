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
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/session"
)

// everything uses each verb once, on sessions of one user.
func everything(t testing.TB, m *session.Manager[cart], user string) {
	t.Helper()
	s := stored(t, m, "x")
	must(t, s.AddFlash(t.Context(), "info", "hello"))
	must(t, s.Rotate(t.Context()))
	must(t, s.Login(t.Context(), user, session.Remember()))
	must(t, s.Login(t.Context(), user))
	must(t, s.Rotate(t.Context()))
	must(t, s.Update(t.Context(), add("y")))
	if f, err := s.TakeFlashes(t.Context()); err != nil || len(f) != 1 {
		t.Errorf("%q: flashes %v %v", user, f, err)
	}
	other, third := login(t, m, user), login(t, m, user)
	if c, found, err := m.Open(s.Token()).Get(t.Context()); !found || err != nil || c.N != 2 {
		t.Errorf("%q: %+v %v %v", user, c, found, err)
	}
	if list, err := m.List(t.Context(), user); err != nil || len(list) != 3 {
		t.Errorf("%q: %v %v", user, list, err)
	}
	if ok, err := m.Revoke(t.Context(), user, third.Handle()); !ok || err != nil {
		t.Errorf("%q: revoke %v %v", user, ok, err)
	}
	if n, err := s.RevokeOthers(t.Context()); n != 1 || err != nil || alive(t, m, other.Token()) {
		t.Errorf("%q: revoke others %d %v", user, n, err)
	}
	if n, err := m.RevokeAll(t.Context(), user); n != 1 || err != nil || alive(t, m, s.Token()) {
		t.Errorf("%q: revoke all %d %v", user, n, err)
	}
	must(t, login(t, m, user).Logout(t.Context()))
}

// anyUsers are names of users that want to break out of a key.
func anyUsers() []string {
	users := []string{"{}", "}{", "{a}", "a}b{", ":", "\x00", "\xff\xfe", "ü", "*", "s:x", "a\r\nDEL b", strings.Repeat("x", 512)}
	for i := range 40 {
		users = append(users, fmt.Sprint("user", i))
	}
	return users
}

func TestCluster_EverythingOfAUserIsInOneSlot(t *testing.T) {
	c := madcrowtest.StartCluster(t)
	cfg := c.Config()
	cfg.CommandTimeout = 10 * time.Second
	r := openConfig(t, cfg)
	t.Run("EveryVerb", func(t *testing.T) {
		for name, opt := range map[string]options{
			"plain":      {},
			"sealed":     {EncryptionKeys: [][]byte{key(1)}, MaxPerUser: 5, Secret: key(2)},
			"replicated": {WaitReplicas: 1, MaxPerUser: 5, WaitTimeout: 5 * time.Second},
		} {
			m := newNamed(t, r, name, opt)
			for _, user := range anyUsers() {
				everything(t, m, user)
			}
			for i := range 20 {
				s := login(t, m, fmt.Sprint(i))
				a, b, d := m.KeysOf(s.Token())
				if c.Slot(a) != c.Slot(b) || c.Slot(a) != c.Slot(d) {
					t.Errorf("%s, %s and %s are in slots %d, %d and %d", a, b, d, c.Slot(a), c.Slot(b), c.Slot(d))
				}
			}
		}
		m := newManager(t, r, options{FastAPILayout: true})
		for range 20 {
			s := stored(t, m, "x")
			must(t, s.Rotate(t.Context()))
			must(t, s.Update(t.Context(), add("y")))
			must(t, s.Logout(t.Context()))
		}
	})
	t.Run("SlotsMoveUnderLoad", func(t *testing.T) { slotsMove(t, c, r) })
	t.Run("ReplicasOfTheRightNodeAreWaitedFor", func(t *testing.T) { rightNode(t, c, r) })
}

// slotsMove moves the slot of a user there and back while that is written.
func slotsMove(t *testing.T, c *madcrowtest.Cluster, r *madcrow.Redis) {
	var wg sync.WaitGroup
	var stop atomic.Bool
	var saved, failed atomic.Int64
	plain := newNamed(t, r, "moves", options{})
	waiting := newNamed(t, r, "moves2", options{WaitReplicas: 1, WaitTimeout: time.Second})
	first := login(t, plain, "alice")
	k, _, _ := plain.KeysOf(first.Token())
	for _, m := range []*session.Manager[cart]{plain, waiting} {
		wg.Go(func() {
			s := login(t, m, "alice")
			n := 0
			for !stop.Load() {
				err := s.Update(t.Context(), func(c *cart) error { c.N++; return nil })
				var e *madcrow.Error
				switch {
				case err == nil || errors.Is(err, session.ErrNotReplicated):
					n++
				case errors.As(err, &e) && e.Outcome == madcrow.OutcomeNotApplied && errors.Is(err, madcrow.ErrUnavailable):
					failed.Add(1) // between two nodes, and nothing was changed
				default:
					t.Errorf("while its slot moves: %v", err)
				}
			}
			saved.Add(int64(n))
			if c, found, err := m.Open(s.Token()).Get(t.Context()); !found || err != nil || c.N != n {
				t.Errorf("%d of %d updates; found %v, %v", c.N, n, found, err)
			}
		})
	}
	from := c.MasterOf(t, k)
	for _, to := range c.Nodes()[:3] {
		if to != from {
			c.MoveSlot(t, c.Slot(k), to)
			break
		}
	}
	c.MoveSlot(t, c.Slot(k), from)
	stop.Store(true)
	wg.Wait()
	if !alive(t, plain, first.Token()) {
		t.Error("a session is lost")
	}
	t.Logf("its slot moved two times: %d updates, none lost; %d said that they were not made", saved.Load(), failed.Load())
}

// rightNode freezes the replica of one master. Only sessions there are affected.
func rightNode(t *testing.T, c *madcrowtest.Cluster, r *madcrow.Redis) {
	c.WaitReady(t)
	m := newNamed(t, r, "right", options{WaitReplicas: 1, WaitTimeout: 200 * time.Millisecond})
	here := login(t, m, "alice")
	k, _, _ := m.KeysOf(here.Token())
	master := c.MasterOf(t, k)
	var there *session.Session[cart]
	for i := 0; there == nil; i++ {
		s := login(t, m, fmt.Sprint(i))
		if k, _, _ := m.KeysOf(s.Token()); c.MasterOf(t, k) != master {
			there = s
		}
	}
	replica := c.ReplicaOf(t, k)
	replica.Pause()
	defer replica.Resume()
	for i := range 10 {
		if err := here.Update(t.Context(), add(fmt.Sprint(i))); !errors.Is(err, session.ErrNotReplicated) {
			t.Fatalf("its replica is frozen: %v", err)
		}
		must(t, there.Update(t.Context(), add("x")))
	}
	if c, _, err := m.Open(here.Token()).Get(t.Context()); err != nil || c.N != 10 {
		t.Errorf("%+v %v", c, err)
	}
}

// traffic is the results of one manager in the middle of a failover.
type traffic struct {
	wait    int
	m       *session.Manager[cart]
	mu      sync.Mutex
	saved   map[string]int // the last count that was acknowledged, of each session
	revoked []string
	saves   int
}

func (tr *traffic) run(ctx context.Context, g int) {
	user := fmt.Sprint("user ", g)
	var s *session.Session[cart]
	n := 0
	for i := 0; ctx.Err() == nil; i++ {
		switch {
		case s == nil:
			if s = tr.m.Open(""); s.Login(ctx, user) != nil {
				s = nil
			}
			n = 0
		case i%10 == 9:
			token := s.Token()
			err := s.Logout(ctx)
			tr.mu.Lock()
			delete(tr.saved, token) // it may have ended in any case
			if err == nil {
				tr.revoked = append(tr.revoked, token)
			}
			tr.mu.Unlock()
			s = nil
		default:
			err := s.Update(ctx, func(c *cart) error { c.N++; n = c.N; return nil })
			tr.mu.Lock()
			if err == nil {
				tr.saves++
				tr.saved[s.Token()] = n
			}
			tr.mu.Unlock()
			if err != nil && !errors.Is(err, session.ErrNotReplicated) {
				s = nil
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// lost counts what was acknowledged and is not there.
func (tr *traffic) lost(t testing.TB) (saves, revocations int) {
	t.Helper()
	for token, n := range tr.saved {
		c, _, err := tr.m.Open(token).Get(t.Context())
		must(t, err)
		saves += max(n-c.N, 0)
	}
	for _, token := range tr.revoked {
		if alive(t, tr.m, token) {
			revocations++
		}
	}
	return saves, revocations
}

// A failover while the old master lives: what it acknowledges after that is
// lost, unless all replicas are waited for.
func TestSentinel_WaitReplicasBoundsWhatAFailoverLoses(t *testing.T) {
	set := madcrowtest.StartSentinel(t)
	cfg := set.Config()
	cfg.MaxConnections, cfg.CommandTimeout = 64, 500*time.Millisecond
	r := openConfig(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var all []*traffic
	for wait := range 3 {
		tr := &traffic{wait: wait, saved: map[string]int{}, m: newNamed(t, r, "wait"+strconv.Itoa(wait), options{WaitReplicas: wait})}
		all = append(all, tr)
		for g := range 12 {
			wg.Go(func() { tr.run(ctx, g) })
		}
	}
	time.Sleep(300 * time.Millisecond)
	set.Failover(t)
	for end := time.Now().Add(10 * time.Second); r.Status().Master != set.Master().Addr() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond)
	stop()
	wg.Wait()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := all[0].m.List(t.Context(), "x"); err == nil || time.Now().After(end) {
			break
		}
	}
	for _, tr := range all {
		saves, revocations := tr.lost(t)
		t.Logf("WaitReplicas %d of 2: of %d updates that were acknowledged %d are lost, of %d revocations %d", tr.wait, tr.saves, saves, len(tr.revoked), revocations)
		if tr.wait == 2 && (saves > 0 || revocations > 0) {
			t.Error("both replicas had acknowledged")
		}
		if tr.saves == 0 || len(tr.revoked) == 0 {
			t.Error("there was no traffic")
		}
	}
}

// serve gives a handler the session of a token.
func serve(m *session.Manager[cart], failure madcrow.FailPolicy, token string, do func(s *session.Session[cart])) {
	h := m.Middleware(failure)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { do(m.From(r.Context())) }))
	req := httptest.NewRequest("GET", "/", nil)
	req.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
	h.ServeHTTP(httptest.NewRecorder(), req)
}

// Redis is frozen: no call takes longer than its deadline, each failure does
// what it says, and nothing is written over afterwards.
func TestFrozenRedis_NoCallOutlivesItsDeadlineAndFailuresHold(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	r := openConfig(t, srv.Config())
	const deadline = 60 * time.Millisecond
	slack := 500 * time.Millisecond // the machine may be busy
	if testkit.Chaos {
		slack = 50 * time.Millisecond
	}
	var most time.Duration
	for kind, opt := range map[string]options{"usual": {}, "all": {MaxPerUser: 3, EncryptionKeys: [][]byte{key(1)}}, "wait": {WaitReplicas: 1}} {
		m := newNamed(t, r, kind, opt)
		m.Middleware(madcrow.FailStale)
		s := m.Open("")
		if err := s.Login(t.Context(), "alice"); err != nil && !errors.Is(err, session.ErrNotReplicated) {
			t.Fatal(err)
		}
		token := s.Token()
		if !alive(t, m, token) {
			t.Fatal("not there")
		}
		timed := func(name string, call func(context.Context) error) error {
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			start := time.Now()
			err := call(ctx)
			d := time.Since(start)
			if most = max(most, d); d > deadline+slack {
				t.Errorf("%s, %s took %v, with %v to go", kind, name, d, deadline)
			}
			return err
		}
		read := func(s *session.Session[cart]) (found bool, err error) {
			err = timed("Get", func(ctx context.Context) error { var err error; _, found, err = s.Get(ctx); return err })
			return found, err
		}
		writes := map[string]func(*session.Session[cart], context.Context) error{
			"Update":       func(s *session.Session[cart], ctx context.Context) error { return s.Update(ctx, add("x")) },
			"AddFlash":     func(s *session.Session[cart], ctx context.Context) error { return s.AddFlash(ctx, "", "x") },
			"Login":        func(s *session.Session[cart], ctx context.Context) error { return s.Login(ctx, "alice") },
			"Rotate":       func(s *session.Session[cart], ctx context.Context) error { return s.Rotate(ctx) },
			"RevokeOthers": func(s *session.Session[cart], ctx context.Context) error { return second(s.RevokeOthers(ctx)) },
			"List":         func(_ *session.Session[cart], ctx context.Context) error { return second(m.List(ctx, "alice")) },
			"Revoke": func(s *session.Session[cart], ctx context.Context) error {
				return second(m.Revoke(ctx, "alice", m.Open(token).Handle()))
			},
			"RevokeAll": func(_ *session.Session[cart], ctx context.Context) error { return second(m.RevokeAll(ctx, "alice")) },
			"Logout":    func(s *session.Session[cart], ctx context.Context) error { return s.Logout(ctx) },
		}
		ended := map[string]bool{"Revoke": true, "RevokeAll": true, "Logout": true, "Login": true}
		names := []string{"Update", "AddFlash", "Rotate", "RevokeOthers", "List"}
		open := loaded(t, m, token)
		srv.Pause()
		for failure, want := range map[madcrow.FailPolicy]string{madcrow.FailClosed: "error", madcrow.FailOpen: "none", madcrow.FailStale: "copy"} {
			serve(m, failure, token, func(s *session.Session[cart]) {
				found, err := read(s)
				got := map[bool]string{true: "copy", false: "none"}[found]
				if err != nil {
					got = "error"
				}
				if got != want || (s.Degraded() == nil) != (want == "error") {
					t.Errorf("%s, %v: %s, %v, degraded %v", kind, failure, got, err, s.Degraded())
				}
				for _, name := range names {
					if err := timed(name, func(ctx context.Context) error { return writes[name](s, ctx) }); !errors.Is(err, madcrow.ErrUnavailable) && !errors.Is(err, madcrow.ErrTimeout) {
						t.Errorf("%s, %v: %s: %v", kind, failure, name, err)
					}
				}
			})
		}
		for name, write := range writes {
			if !ended[name] {
				if err := timed(name, func(ctx context.Context) error { return write(open, ctx) }); err == nil {
					t.Errorf("%s: %s of a session that is loaded: no error", kind, name)
				}
			}
		}
		srv.Resume()
		awaitUp(t, r)
		if !alive(t, m, token) {
			t.Errorf("%s: it is gone", kind)
		}
		srv.Pause()
		for _, name := range []string{"Login", "Revoke", "RevokeAll", "Logout"} { // may end it, later
			if err := timed(name, func(ctx context.Context) error { return writes[name](m.Open(token), ctx) }); err == nil {
				t.Errorf("%s: %s: no error", kind, name)
			}
		}
		srv.Resume()
		awaitUp(t, r)
	}
	t.Logf("slowest call of a frozen Redis: %v, with %v to go", most, deadline)
}

func awaitUp(t testing.TB, r *madcrow.Redis) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := r.Do(t.Context(), r.B().Ping().Build()).Err()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// The reply to a change is lost: the session says what is, not what was
// thought.
func TestOutcomeUnknown_TheSessionIsReadAgain(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	proxy := madcrowtest.StartProxy(t, srv.Addr())
	cfg := srv.Config()
	cfg.Port = proxy.Port()
	cfg.CommandTimeout = 5 * time.Second
	r := openConfig(t, cfg)
	m := newManager(t, r, options{})
	direct := newManager(t, openConfig(t, srv.Config()), options{})
	everything(t, direct, "everybody") // so that Redis knows the scripts
	// unknown runs f so that its reply comes too late.
	unknown := func(name string, f func(context.Context) error) {
		t.Helper()
		proxy.SetDelay(300 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		err := f(ctx)
		proxy.SetDelay(0)
		var e *madcrow.Error
		if !errors.As(err, &e) || e.Outcome != madcrow.OutcomeUnknown {
			t.Fatalf("%s: %v", name, err)
		}
		awaitUp(t, r)
	}

	s := loaded(t, m, login(t, direct, "update").Token())
	unknown("Update", func(ctx context.Context) error { return s.Update(ctx, add("x")) })
	c, found, err := s.Get(t.Context())
	if c2, _, _ := direct.Open(s.Token()).Get(t.Context()); err != nil || !found || c.N != 1 || c2.N != 1 {
		t.Errorf("Update: %+v %v %v, in Redis %+v", c, found, err, c2)
	}
	must(t, s.Update(t.Context(), add("y")))

	s = loaded(t, m, login(t, direct, "rotate").Token())
	unknown("Rotate", func(ctx context.Context) error { return s.Rotate(ctx) })
	if _, found, err := s.Get(t.Context()); !found || err != nil {
		t.Errorf("Rotate: %v %v", found, err)
	}
	if err := s.Update(t.Context(), add("x")); !errors.Is(err, session.ErrRotated) {
		t.Errorf("Update after a rotation whose reply was lost: %v", err)
	}
	must(t, s.Logout(t.Context()))
	if list, err := direct.List(t.Context(), "rotate"); err != nil || len(list) != 0 {
		t.Errorf("logout after a rotation whose reply was lost: %v %v", list, err)
	}

	s = loaded(t, m, login(t, direct, "moved").Token())
	unknown("Rotate", func(ctx context.Context) error { return s.Rotate(ctx) })
	must(t, second(direct.RevokeAll(t.Context(), "moved")))
	if _, found, err := s.Get(t.Context()); found || err != nil {
		t.Errorf("a rotation whose reply was lost, and a revocation: %v %v", found, err)
	}

	s = loaded(t, m, stored(t, direct, "x").Token())
	old := s.Token()
	unknown("Login", func(ctx context.Context) error { return s.Login(ctx, "login") })
	if user, err := s.User(t.Context()); user != "" || err != nil || s.Token() != old || !alive(t, direct, old) {
		t.Errorf("Login: %q %v", user, err)
	}
	must(t, s.Login(t.Context(), "login"))
	if user, err := s.User(t.Context()); user != "login" || err != nil || alive(t, direct, old) {
		t.Errorf("Login once more: %q %v", user, err)
	}

	s = loaded(t, m, login(t, direct, "logout").Token())
	unknown("Logout", func(ctx context.Context) error { return s.Logout(ctx) })
	if _, found, err := s.Get(t.Context()); found || err != nil {
		t.Errorf("Logout: %v %v", found, err)
	}
	must(t, s.Logout(t.Context()))

	s = loaded(t, m, login(t, direct, "others").Token())
	unknown("RevokeOthers", func(ctx context.Context) error { return second(s.RevokeOthers(ctx)) })
	must(t, s.Update(t.Context(), add("x")))

	s = m.Open("")
	unknown("the first Update", func(ctx context.Context) error { return s.Update(ctx, add("x")) })
	if _, found, err := s.Get(t.Context()); found || err != nil || s.Token() != "" {
		t.Errorf("the first Update: %v %v %q", found, err, s.Token())
	}
}
