package session_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/session"
)

// The race matrix: every order of two and of three of these, on one session
// that two or three Session objects see, against a model.
type action uint8

const (
	doLoad action = iota
	doSave
	doTouch
	doRotate
	doLogin
	doDestroy
	doRevokeOne
	doRevokeAll
	doRevokeOthers
	doExpireIdle
	doExpireAbsolute
	actions
)

func (a action) String() string {
	return [...]string{"load", "save", "touch", "rotate", "login", "destroy", "revoke one", "revoke all", "revoke others", "expire (idle)", "expire (absolute)"}[a]
}

// state is what the model knows of an identifier.
type state uint8

const (
	live   state = iota
	frozen       // rotated: it reads what was
	noted        // its place was taken: nothing can be read, and no new session begins
	ended
)

// modelSession is one identifier in the model.
type modelSession struct {
	token, handle, user string
	items               []string
	state               state
	next                *modelSession // of a frozen one
	barred              bool          // that has ended the others
}

// readable says whether it can be read: what was rotated ends with what it
// became, and with the next rotation of that, and when that ends the others.
func (n *modelSession) readable() bool {
	return n.state == live || n.state == frozen && n.next.state == live && !n.barred
}

// settled is the state with that in mind.
func (n *modelSession) settled() state {
	switch {
	case n.state == frozen && n.next.state != live:
		return ended
	case n.state == frozen && n.barred:
		return noted
	}
	return n.state
}

// modelObject is a Session object, and what it believes.
type modelObject struct {
	s        *session.Session[cart]
	at       *modelSession // nil: none
	loaded   bool
	view     []string
	frozen   bool // as it was loaded
	replaced bool
}

type modelWorld struct {
	t     testing.TB
	r     *madcrow.Redis
	m     *session.Manager[cart]
	user  string
	all   []*modelSession
	n     int
	trace []string
}

func (w *modelWorld) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("%s: %s", strings.Join(w.trace, ", "), fmt.Sprintf(format, args...))
}

func (w *modelWorld) item() string { w.n++; return fmt.Sprint(w.n) }

func (w *modelWorld) add(s *session.Session[cart], user string, items []string) *modelSession {
	n := &modelSession{token: s.Token(), handle: s.Handle(), user: user, items: items}
	w.all = append(w.all, n)
	return n
}

// load is what an object does before anything else, in the model.
func (o *modelObject) load() {
	if o.loaded {
		return
	}
	o.loaded = true
	if o.at == nil {
		return
	}
	switch o.at.settled() {
	case live, frozen:
		o.view, o.frozen = o.at.items, o.at.state == frozen
	case noted:
		o.at, o.replaced = nil, true
	case ended:
		o.at = nil
	}
}

// lost is what it does when it hears that its session has ended.
func (o *modelObject) lost() { o.at, o.view, o.frozen = nil, nil, false }

func (o *modelObject) setLoaded(n *modelSession) {
	o.at, o.view, o.frozen, o.replaced, o.loaded = n, n.items, false, false, true
}

func (w *modelWorld) want(what string, err, want error) {
	w.t.Helper()
	if !errors.Is(err, want) {
		w.fail("%s: %v, want %v", what, err, want)
	}
}

// do does it, and checks what it says.
func (w *modelWorld) do(a action, o *modelObject) {
	w.t.Helper()
	ctx := w.t.Context()
	switch a {
	case doLoad, doTouch:
		if o.at != nil {
			if a == doTouch {
				w.shorten(o.at)
			}
			w.check(o.at)
		}
	case doSave:
		w.save(o)
	case doRotate:
		w.rotate(o)
	case doLogin:
		w.login(o)
	case doDestroy:
		w.want("logout", o.s.Logout(ctx), nil)
		if o.at != nil {
			w.end(o.at)
		}
		o.lost()
		o.loaded, o.replaced = true, false
	case doRevokeOne:
		handle, want := "", false
		if o.at != nil {
			handle = o.at.handle
			want = o.at.user == w.user && o.at.readable()
		}
		ok, err := w.m.Revoke(ctx, w.user, handle)
		w.want("revoke", err, nil)
		if ok != want {
			w.fail("revoked %v, want %v", ok, want)
		}
		if want {
			w.end(o.at)
		}
	case doRevokeAll:
		_, err := w.m.RevokeAll(ctx, w.user)
		w.want("revoke all", err, nil)
		w.endAll(nil)
	case doRevokeOthers:
		w.others(o)
	case doExpireIdle, doExpireAbsolute:
		if o.at != nil {
			w.expire(o.at, a == doExpireIdle)
		}
	}
}

func (w *modelWorld) save(o *modelObject) {
	w.t.Helper()
	item := w.item()
	err := o.s.Update(w.t.Context(), add(item))
	o.load()
	switch {
	case o.at == nil && o.replaced:
		w.want("save", err, session.ErrRotated)
	case o.at == nil:
		w.want("save", err, nil)
		o.setLoaded(w.add(o.s, "", []string{item}))
	case o.at.settled() == live:
		w.want("save", err, nil)
		o.at.items = append(slices.Clone(o.at.items), item)
		o.view = o.at.items
	case o.at.settled() == ended:
		w.want("save", err, session.ErrEnded)
		o.lost()
	default:
		w.want("save", err, session.ErrRotated)
	}
}

func (w *modelWorld) rotate(o *modelObject) {
	w.t.Helper()
	err := o.s.Rotate(w.t.Context())
	o.load()
	switch {
	case o.at == nil:
		w.want("rotate", err, nil)
	case o.at.settled() == live:
		w.want("rotate", err, nil)
		n := w.add(o.s, o.at.user, o.at.items)
		if o.at.state, o.at.next = frozen, n; o.at.user == "" {
			o.at.state = noted
		}
		o.setLoaded(n)
	case o.at.settled() == ended:
		w.want("rotate", err, session.ErrEnded)
		o.lost()
	default:
		w.want("rotate", err, session.ErrRotated)
	}
}

func (w *modelWorld) login(o *modelObject) {
	w.t.Helper()
	err := o.s.Login(w.t.Context(), w.user)
	o.load()
	if o.at != nil && (o.frozen || o.at.settled() == frozen) {
		w.want("login", err, session.ErrRotated)
		return
	}
	w.want("login", err, nil)
	var items []string
	if o.at != nil {
		switch o.at.settled() {
		case live:
			items = o.at.items
			o.at.state = noted
		case noted:
			items = o.view
		}
	}
	o.setLoaded(w.add(o.s, w.user, items))
}

func (w *modelWorld) others(o *modelObject) {
	w.t.Helper()
	_, err := o.s.RevokeOthers(w.t.Context())
	o.load()
	switch {
	case o.at == nil || o.at.user == "":
		w.want("revoke others", err, session.ErrNoUser)
	case o.at.settled() == live:
		w.want("revoke others", err, nil)
		w.endAll(o.at)
	case o.at.settled() == ended:
		w.want("revoke others", err, session.ErrEnded)
		o.lost()
	default:
		w.want("revoke others", err, session.ErrRotated)
	}
}

// end ends one, and what it became.
func (w *modelWorld) end(n *modelSession) {
	switch n.settled() {
	case frozen:
		n.next.state = ended
		fallthrough
	case live:
		n.state = ended
	}
}

func (w *modelWorld) endAll(but *modelSession) {
	for _, n := range w.all {
		switch {
		case n.user != w.user || n == but || n.state != live && n.state != frozen:
		case but != nil && n.next == but:
			n.barred = true
		default:
			n.state = ended
		}
	}
}

// expire lets time pass for one, and for what leads to it: its key is gone, or
// its end has come.
func (w *modelWorld) expire(n *modelSession, idle bool) {
	for _, old := range w.all {
		if old.next == n && old.state == frozen {
			w.expire(old, idle)
		}
	}
	key, _, _ := w.m.KeysOf(n.token)
	switch {
	case idle || n.state == noted:
		err := w.r.Do(w.t.Context(), w.r.B().Del().Key(key).Build()).Err()
		must(w.t, err)
	case n.settled() != ended:
		setField(w.t, w.r, key, "a", "1000000")
	}
	n.state = ended
}

// shorten brings it near to its idle end, from where a use brings it back.
func (w *modelWorld) shorten(n *modelSession) {
	if n.state == live {
		key, _, _ := w.m.KeysOf(n.token)
		pexpire(w.t, w.r, key, time.Minute)
		if alive(w.t, w.m, n.token); pttl(w.t, w.r, key) < 29*time.Minute {
			w.fail("used, and lives for %v", pttl(w.t, w.r, key))
		}
	}
}

// check reads it as a new request would.
func (w *modelWorld) check(n *modelSession) {
	w.t.Helper()
	s := w.m.Open(n.token)
	c, found, err := s.Get(w.t.Context())
	if err != nil || found != n.readable() {
		w.fail("identifier %d: found %v, %v; it is %d, next %v", slices.Index(w.all, n), found, err, n.state, n.next)
		return
	}
	user, _ := s.User(w.t.Context())
	if found && (user != n.user || !slices.Equal(c.Items, n.items)) {
		w.fail("identifier %d: %q %v, want %q %v", slices.Index(w.all, n), user, c.Items, n.user, n.items)
	}
}

func (w *modelWorld) checkAll() {
	w.t.Helper()
	for _, n := range w.all {
		w.check(n)
	}
	list, err := w.m.List(w.t.Context(), w.user)
	if err != nil {
		w.fail("%v", err)
	}
	got, want := []string{}, []string{}
	for _, i := range list {
		got = append(got, i.Handle)
	}
	for _, n := range w.all {
		if n.user == w.user && n.state == live {
			want = append(want, n.handle)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.fail("%d are listed, want %d", len(got), len(want))
	}
}

// run plays one order: of a session with user or without, with an object for
// each step or one for all, which have loaded it or not, and looks at
// everything after each step or at the end only.
func (w *modelWorld) run(order []action, variant int) {
	anonymous, one, unloaded, each := variant&1 != 0, variant&2 != 0, variant&4 != 0, variant&8 != 0
	w.trace = []string{fmt.Sprintf("variant %d", variant)}
	first := w.m.Open("")
	must(w.t, first.Update(w.t.Context(), add("first")))
	user := ""
	if !anonymous {
		must(w.t, first.Login(w.t.Context(), w.user))
		user = w.user
	}
	n := w.add(first, user, []string{"first"})
	w.add(login(w.t, w.m, w.user), w.user, nil) // another of the user
	objects := make([]*modelObject, len(order))
	for i := range objects {
		if one && i > 0 {
			objects[i] = objects[0]
			continue
		}
		o := &modelObject{s: w.m.Open(n.token), at: n}
		if !unloaded {
			_, _, err := o.s.Get(w.t.Context())
			must(w.t, err)
			o.load()
		}
		objects[i] = o
	}
	for i, a := range order {
		w.trace = append(w.trace, a.String())
		w.do(a, objects[i])
		if each {
			w.checkAll()
		}
	}
	w.checkAll()
}

// soak makes some tests long.
var soak = testkit.Soak

func TestRace_EveryOrderOfTwoAndThree(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{RotationGrace: 5 * time.Minute})
	var orders [][]action
	for a := range actions {
		for b := range actions {
			orders = append(orders, []action{a, b})
			for c := range actions {
				orders = append(orders, []action{a, b, c})
			}
		}
	}
	var next, played atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(orders) || t.Failed() {
					return
				}
				for variant := range 16 {
					// All variants of the pairs, and of each three a different one.
					if len(orders[i]) == 3 && (i+variant)%16 != 0 && !soak {
						continue
					}
					w := &modelWorld{t: t, r: r, m: m, user: fmt.Sprintf("user %d %d", i, variant)}
					w.run(orders[i], variant)
					played.Add(1)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d orders of %d actions, %d times played", len(orders), actions, played.Load())
}

// One Session object in many goroutines.
func TestRace_OneSessionObject(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := m.Open("")
	must(t, s.Login(t.Context(), "alice"))
	var wg sync.WaitGroup
	var saved atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			for i := range 20 {
				switch {
				case g == 0:
					must(t, s.Rotate(t.Context()))
				case g == 1:
					_, _, err := s.Get(t.Context())
					must(t, err)
					_, _, _ = s.Token(), s.Handle(), s.Degraded()
				case g == 2 && i%10 == 0:
					must(t, s.Login(t.Context(), "alice"))
				default:
					must(t, s.Update(t.Context(), func(c *cart) error { c.N++; return nil }))
					saved.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if c, found, err := m.Open(s.Token()).Get(t.Context()); !found || err != nil || int64(c.N) != saved.Load() {
		t.Errorf("%d, want %d; %v %v", c.N, saved.Load(), found, err)
	}
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 1 {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}

func TestRace_MaxPerUserHoldsInParallelLogins(t *testing.T) {
	m := newManager(t, open(t), options{MaxPerUser: 3})
	var mu sync.Mutex
	var tokens []string
	var wg sync.WaitGroup
	for range 24 {
		wg.Go(func() {
			s := m.Open("")
			must(t, s.Login(t.Context(), "alice"))
			mu.Lock()
			defer mu.Unlock()
			tokens = append(tokens, s.Token())
		})
	}
	wg.Wait()
	n := 0
	for _, token := range tokens {
		if alive(t, m, token) {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d of 24 sessions are alive, want 3", n)
	}
}
