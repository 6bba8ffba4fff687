package session_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/session"
)

// event is one call in a random schedule, and when it was made.
type event struct {
	kind       action
	start, end int64
	token      string // under which
	made       string // the new identifier
	item       string
	items      []string
	ok         bool
}

// schedule is a random one: many goroutines, each with Session objects of its
// own, do everything at once to the sessions of one user.
type schedule struct {
	t      testing.TB
	m      *session.Manager[cart]
	user   string
	clock  atomic.Int64
	mu     sync.Mutex
	tokens []string
	users  map[string]bool // those that are somebody's
	events []event
}

func (s *schedule) pick(rng *rand.Rand) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The latest are the most interesting.
	return s.tokens[len(s.tokens)-1-rng.IntN(min(len(s.tokens), 4))]
}

func (s *schedule) step(rng *rand.Rand, o *session.Session[cart], item string) {
	ctx := s.t.Context()
	e := event{kind: action(rng.IntN(40)), token: o.Token(), item: item}
	e.start = s.clock.Add(1)
	var err error
	switch {
	case e.kind < 18:
		e.kind = doSave
		err = o.Update(ctx, add(item))
	case e.kind < 28:
		e.kind = doLoad
		var c cart
		c, e.ok, err = s.m.Open(e.token).Get(ctx)
		e.items = c.Items
	case e.kind < 33:
		e.kind = doRotate
		err = o.Rotate(ctx)
	case e.kind < 36:
		e.kind = doLogin
		err = o.Login(ctx, s.user)
	case e.kind < 37:
		e.kind = doDestroy
		err = o.Logout(ctx)
	case e.kind < 38:
		e.kind = doRevokeOne
		e.ok, err = s.m.Revoke(ctx, s.user, o.Handle())
	case e.kind < 39:
		e.kind = doRevokeOthers
		_, err = o.RevokeOthers(ctx)
	default:
		e.kind = doRevokeAll
		_, err = s.m.RevokeAll(ctx, s.user)
	}
	e.end = s.clock.Add(1)
	for _, known := range []error{nil, session.ErrEnded, session.ErrRotated, session.ErrConflict, session.ErrNoUser} {
		if errors.Is(err, known) {
			if e.kind != doLoad && e.kind != doRevokeOne {
				e.ok = err == nil
			}
			s.record(e, o)
			return
		}
	}
	s.t.Errorf("%v: %v", e.kind, err)
}

func (s *schedule) record(e event, o *session.Session[cart]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := o.Token(); e.ok && now != e.token && now != "" && e.kind != doLoad {
		e.made = now
		s.tokens = append(s.tokens, now)
		s.users[now] = e.kind == doLogin || e.kind == doRotate && s.users[e.token]
	}
	s.events = append(s.events, e)
}

// issued says when an identifier was surely there.
func (s *schedule) issued(token string) int64 {
	for _, e := range s.events {
		if e.made == token {
			return e.end
		}
	}
	return 0
}

// rotated is what an identifier became.
func (s *schedule) rotated(token string) string {
	for _, e := range s.events {
		if e.token == token && e.kind == doRotate && e.made != "" {
			return e.made
		}
	}
	return ""
}

// short is enough of an identifier to tell it from others.
func short(token string) string { return token[max(0, len(token)-6):] }

// barred says whether one may have ended the others before that time.
func (s *schedule) barred(token string, before int64) bool {
	return slices.ContainsFunc(s.events, func(e event) bool {
		return e.kind == doRevokeOthers && e.ok && e.token == token && e.start < before
	})
}

// check looks for what must never happen.
func (s *schedule) check() (dead, kept int) {
	ends := map[string]int64{} // when it was surely ended
	end := func(token string, at int64) {
		if old, has := ends[token]; !has || at < old {
			ends[token] = at
		}
	}
	touched := map[string]bool{} // ended by somebody, perhaps
	moves, moved := map[string]int{}, map[string]string{}
	for _, e := range s.events {
		switch {
		case e.token == "" && e.kind != doRevokeAll:
		case e.kind == doDestroy, e.kind == doRevokeOne:
			for at := e.token; at != ""; at = s.rotated(at) {
				touched[at] = true
			}
			if e.kind == doDestroy || e.ok {
				end(e.token, e.end)
			}
			// What it became ends with it, unless that had gone on already or had,
			// perhaps, ended the others before.
			next := s.rotated(e.token)
			if next != "" && s.users[next] && s.rotated(next) == "" && !s.barred(next, e.end) && (e.kind == doDestroy || e.ok) {
				end(next, max(e.end, s.issued(next)))
			}
		case (e.kind == doRevokeAll || e.kind == doRevokeOthers) && e.ok:
			for _, token := range s.tokens {
				if e.kind == doRevokeOthers && token == e.token || !s.users[token] {
					continue
				}
				touched[token] = true
				if s.issued(token) < e.start {
					end(token, e.end)
				}
			}
		case e.kind == doLogin:
			// One that fails may have taken what was there to where a revocation
			// ended it.
			moves[e.token]++
			if e.ok {
				end(e.token, e.end)
				moved[e.token] = e.made
			}
		case e.kind == doRotate && e.ok && e.made != "":
			moves[e.token]++
			moved[e.token] = e.made
		}
	}
	for _, e := range s.events {
		at, gone := ends[e.token]
		if !gone || e.start < at {
			continue
		}
		dead++
		if e.ok && (e.kind == doLoad || e.made == "" && (e.kind == doSave || e.kind == doRevokeOthers)) {
			s.t.Errorf("%v under an identifier that had ended", e.kind)
		}
	}
	saved := map[string][]string{}
	refused := map[string]bool{}
	for _, e := range s.events {
		if e.kind == doSave && e.ok {
			at := e.token
			if e.made != "" {
				at = e.made
			}
			saved[at] = append(saved[at], e.item)
		} else if e.kind == doSave {
			refused[e.item] = true
		}
	}
	for _, token := range s.tokens {
		c, found, err := s.m.Open(token).Get(s.t.Context())
		if err != nil {
			s.t.Error(err)
		}
		if !found {
			continue
		}
		if at, gone := ends[token]; gone {
			s.t.Errorf("%s is readable, and ended at %d", short(token), at)
		}
		sorted := slices.Clone(c.Items)
		slices.Sort(sorted)
		if len(slices.Compact(sorted)) != len(c.Items) {
			s.t.Errorf("an item is there more than once: %v", c.Items)
		}
		for _, item := range c.Items {
			if refused[item] {
				s.t.Errorf("%s was refused, and is there", item)
			}
		}
		if _, rotated := moved[token]; rotated {
			continue // in the grace
		}
		for at := token; at != ""; at = s.before(at, touched, moves) {
			for _, item := range saved[at] {
				kept++
				if !slices.Contains(c.Items, item) {
					s.t.Errorf("%s was acknowledged under %s, and is lost in %s", item, short(at), short(token))
				}
			}
		}
	}
	return dead, kept
}

// before is the identifier whose data went on to that of token, if it surely
// did.
func (s *schedule) before(token string, touched map[string]bool, moves map[string]int) string {
	for _, e := range s.events {
		if e.made == token && (e.kind == doRotate || e.kind == doLogin && !touched[e.token] && moves[e.token] == 1) {
			return e.token
		}
	}
	return ""
}

func TestRace_RandomSchedules(t *testing.T) {
	m := newManager(t, open(t), options{RotationGrace: 5 * time.Minute})
	dead, kept, calls := 0, 0, 0
	seeds := uint64(100)
	if soak {
		seeds = 5000
	}
	for seed := range seeds {
		s := &schedule{t: t, m: m, user: fmt.Sprint("user ", seed), users: map[string]bool{}}
		if first := m.Open(""); seed%2 == 0 {
			must(t, first.Update(t.Context(), add("first")))
			s.tokens = []string{first.Token()}
		} else {
			must(t, first.Login(t.Context(), s.user))
			s.tokens = []string{first.Token()}
			s.users[first.Token()] = true
		}
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(g)))
				o := m.Open(s.pick(rng))
				for i := range 20 {
					if rng.IntN(4) == 0 {
						o = m.Open(s.pick(rng))
					}
					s.step(rng, o, fmt.Sprintf("%d-%d", g, i))
				}
			})
		}
		wg.Wait()
		d, k := s.check()
		dead, kept, calls = dead+d, kept+k, calls+len(s.events)
		if t.Failed() {
			for _, e := range s.events {
				t.Logf("%d to %d: %v %s, under %s, made %s, done %v", e.start, e.end, e.kind, e.item, short(e.token), short(e.made), e.ok)
			}
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d calls; %d of them under an identifier that had ended; %d acknowledged updates looked for", calls, dead, kept)
}
