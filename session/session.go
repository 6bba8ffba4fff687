package session

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
)

// updateTries bounds how often Update is tried while others are faster.
const updateTries = 32

// Session is the session of one request, or of one identifier. It is safe for
// concurrent use. Nothing is asked of Redis before a method needs it.
type Session[T any] struct {
	m       *Manager[T]
	failure Failure
	device  Device
	carrier carrier // nil: no cookie goes with it
	lost    bool    // there is no middleware around the handler

	mu       sync.Mutex
	id       ident
	has      bool // id is set: the caller showed one, or one was made
	loaded   bool
	exists   bool
	degraded error
	rec      record
	now      content[T]
}

// carrier takes the identifier to the client.
type carrier interface {
	set(token string, persist time.Duration) error
	clear() error
}

// Open returns the session of an identifier, "" for none, without a request:
// for a socket, or a program. Token tells the identifier when there is a new
// one.
func (m *Manager[T]) Open(token string) *Session[T] {
	s := &Session[T]{m: m}
	s.adopt(token)
	return s
}

func (s *Session[T]) adopt(token string) {
	if token == "" {
		return
	}
	if s.m.opt.Original {
		s.id, s.has = ident{token: token, member: token}, validOriginal(token)
	} else {
		s.id, s.has = parseIdent(token)
	}
	if !s.has {
		s.m.event("malformed")
	}
}

// Token is the identifier, "" for a session that is not stored.
func (s *Session[T]) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.has {
		return ""
	}
	return s.id.token
}

// Get returns the data; false where there is no session. The T is the caller's
// own but for what it points to: change it by Update only. The error is an
// [*Error]: the session could not be loaded, which is not the same as none.
func (s *Session[T]) Get(ctx context.Context) (data T, found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return data, false, err
	}
	return s.now.Data, s.exists, nil
}

// User returns who is logged in, "" for nobody. Errors are those of Get.
func (s *Session[T]) User(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return "", err
	}
	return s.rec.user, nil
}

// Degraded says why the session was not read from Redis, where its [Failure]
// let the request go on all the same; nil otherwise.
func (s *Session[T]) Degraded() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.degraded
}

// load asks Redis once.
func (s *Session[T]) load(ctx context.Context) error {
	if s.lost {
		return &Error{Op: "load", Err: ErrNoMiddleware}
	}
	if s.loaded {
		return nil
	}
	if !s.has {
		s.loaded = true
		return nil
	}
	rec, found, err := s.m.fetch(ctx, s.id)
	if err != nil {
		return s.withoutRedis(err)
	}
	s.take(ctx, rec, found)
	if found {
		s.m.copies.put(s.id.member, rec)
	} else {
		s.m.copies.drop(s.id.member)
	}
	return nil
}

// take makes what was read the session.
func (s *Session[T]) take(ctx context.Context, rec record, found bool) {
	s.loaded, s.exists, s.rec, s.now = true, false, record{}, content[T]{}
	if !found {
		s.has = false // never adopted: the next write makes a new one
		return
	}
	c, err := s.m.decode(rec)
	if err != nil {
		s.m.undecodable(ctx, err)
		s.has = false
		return
	}
	s.exists, s.rec, s.now = true, rec, c
}

// withoutRedis does what the failure of the route says.
func (s *Session[T]) withoutRedis(err error) error {
	failed := &Error{Op: "load", Err: err}
	if errors.Is(err, madcrow.ErrCanceled) {
		return failed
	}
	s.m.event("unavailable")
	switch s.failure {
	case ReadAnonymous:
		s.loaded, s.degraded = true, failed
		return nil
	case ReadCopy:
		if rec, ok := s.m.copies.get(s.id.member); ok {
			if c, err := s.m.decode(rec); err == nil {
				s.loaded, s.exists, s.rec, s.now, s.degraded = true, true, rec, c, failed
				return nil
			}
		}
	}
	return failed
}

func (m *Manager[T]) fetch(ctx context.Context, id ident) (rec record, found bool, err error) {
	if m.opt.Original {
		return m.fetchOriginal(ctx, id)
	}
	at := placesOf(m.prefix, id.handle, id.member)
	list, err := m.read(ctx, scriptLoad, []string{at.session, at.epoch, at.index}, []string{id.member})
	if err != nil {
		return rec, false, err
	}
	rec, what, why, err := readRecord(list)
	if err != nil {
		return rec, false, err
	}
	if what == 0 {
		m.event(why) // "missing" in numbers is somebody who guesses
		return rec, false, nil
	}
	return rec, true, nil
}

// Update changes the data and stores it at once. Where there is no session it
// makes one, and its cookie. When somebody else was faster, the data is loaded
// again and change is called again: it must not have effects of its own. An
// error of change ends it, and is returned as it is. The other errors are an
// [*Error]: [ErrEnded] for a session that was ended meanwhile, [ErrRotated],
// [ErrConflict], [ErrHeadersSent], or that of Redis.
func (s *Session[T]) Update(ctx context.Context, change func(data *T) error) error {
	return s.update(ctx, func(c *content[T]) error { return change(&c.Data) })
}

func (s *Session[T]) update(ctx context.Context, change func(*content[T]) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return err
	}
	if s.degraded != nil {
		return &Error{Op: "commit", Err: s.degraded}
	}
	for range updateTries {
		next, err := s.copyOf()
		if err != nil {
			return err
		}
		if err := change(&next); err != nil {
			return err
		}
		done, err := s.commit(ctx, next)
		if done || err != nil {
			return err
		}
		s.m.event("conflict")
	}
	return &Error{Op: "commit", Err: ErrConflict}
}

// copyOf decodes the data anew, so that a change that fails leaves nothing
// behind.
func (s *Session[T]) copyOf() (content[T], error) {
	if !s.exists {
		return content[T]{}, nil
	}
	return s.m.decode(s.rec)
}

// commit stores next; false is a conflict, after which it is loaded.
func (s *Session[T]) commit(ctx context.Context, next content[T]) (bool, error) {
	if !s.exists {
		return true, s.create(ctx, next, lifetimes{idle: s.m.opt.Idle, absolute: s.m.opt.Absolute})
	}
	data, err := s.m.encode(next, s.rec.user)
	if err != nil {
		return false, err
	}
	if s.m.opt.Original {
		return true, s.storeOriginal(ctx, data, next)
	}
	at := placesOf(s.m.prefix, s.id.handle, s.id.member)
	list, err := s.m.eval(ctx, scriptCommit, []string{at.session, at.epoch, at.index}, []string{s.id.member, s.rec.version, data})
	unreplicated := errors.Is(err, ErrNotReplicated)
	if err != nil && !unreplicated {
		s.loaded = false // it may have been stored
		return false, &Error{Op: "commit", Err: err}
	}
	rec, what, why, bad := readRecord(list)
	switch {
	case bad != nil:
		s.loaded = false
		return false, &Error{Op: "commit", Err: bad}
	case what == 0 && why == "frozen":
		return false, &Error{Op: "commit", Err: ErrRotated}
	case what == 0:
		s.gone()
		return false, &Error{Op: "commit", Err: ErrEnded}
	case what == 1:
		s.take(ctx, rec, true)
		if !s.exists {
			return false, &Error{Op: "commit", Err: ErrEnded}
		}
		return false, nil
	}
	s.rec.version, _ = list[1].ToString()
	s.rec.data, s.now = data, next
	s.m.copies.put(s.id.member, s.rec)
	if unreplicated {
		return true, &Error{Op: "commit", Err: err}
	}
	return true, nil
}

// gone notes that there is no session any more.
func (s *Session[T]) gone() {
	s.m.copies.drop(s.id.member)
	s.loaded, s.exists, s.has, s.rec, s.now = true, false, false, record{}, content[T]{}
}

// create makes a session without user.
func (s *Session[T]) create(ctx context.Context, c content[T], l lifetimes) error {
	if s.m.opt.Original {
		return s.createOriginal(ctx, c)
	}
	return s.make(ctx, newIdent(randomHandle()), "", c, l, nil)
}

// make stores a new session and sends its cookie.
func (s *Session[T]) make(ctx context.Context, id ident, user string, c content[T], l lifetimes, dead []string) error {
	if s.carrier != nil {
		if err := s.carrier.set("", 0); err != nil { // before anything is stored
			return &Error{Op: "create", Err: err}
		}
	}
	data, err := s.m.encode(c, user)
	if err != nil {
		return err
	}
	at := placesOf(s.m.prefix, id.handle, id.member)
	device := s.device.encode()
	list, err := s.m.eval(ctx, scriptCreate, []string{at.session, at.epoch, at.index}, append([]string{
		id.member, millis(l.idle), micros(l.absolute), user, data, device, rand.Text(),
		strconv.Itoa(s.m.opt.MaxPerUser), strconv.Itoa(len(dead)),
	}, dead...))
	if err != nil && !errors.Is(err, ErrNotReplicated) {
		return &Error{Op: "create", Err: err}
	}
	if n := len(list) - 1; n > 0 {
		s.m.event("evicted")
	}
	s.m.event("created")
	now := time.Now()
	s.id, s.has, s.loaded, s.exists = id, true, true, true
	s.rec = record{version: "1", user: user, data: data, created: now, ends: l.absolute, left: l.idle, device: device}
	s.now = c
	if s.carrier != nil {
		persist := time.Duration(0)
		if l.remember {
			persist = l.absolute
		}
		if bad := s.carrier.set(id.token, persist); bad != nil {
			return &Error{Op: "create", Err: bad}
		}
	}
	if err != nil {
		return &Error{Op: "create", Err: err}
	}
	return nil
}

// Login says who the session belongs to from now on. It gets a new identifier,
// and what was under the old one is gone: nobody who knew that can come along.
// The data is kept. user is from 1 to 512 bytes. It takes two round trips, and
// two more with Options.MaxPerUser.
func (s *Session[T]) Login(ctx context.Context, user string, opts ...LoginOption) error {
	if s.m.opt.Original {
		return &Error{Op: "login", Err: ErrOriginal}
	}
	if user == "" || len(user) > maxUser {
		return &ValidationError{Field: "user", Message: "must have 1 to 512 bytes"}
	}
	l, err := s.m.opt.lifetimesOf(opts)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return err
	}
	if s.degraded != nil {
		return &Error{Op: "login", Err: s.degraded}
	}
	old, had := s.id, s.exists
	handle := handleOf(s.m.opt.Secret, user)
	var dead []string
	if s.m.opt.MaxPerUser > 0 {
		if dead, err = s.m.deadOf(ctx, handle); err != nil {
			return &Error{Op: "login", Err: err}
		}
	}
	// First the new one: whatever ends us in between, the client keeps a
	// session that works.
	made := s.make(ctx, newIdent(handle), user, s.now, l, dead)
	if made != nil && !errors.Is(made, ErrNotReplicated) {
		return made
	}
	s.m.event("login")
	if had {
		if err := s.m.end(ctx, old); err != nil {
			return &Error{Op: "login", Err: err}
		}
	}
	return made
}

const maxUser = 512

// end removes one session.
func (m *Manager[T]) end(ctx context.Context, id ident) error {
	m.copies.drop(id.member)
	at := placesOf(m.prefix, id.handle, id.member)
	_, err := m.eval(ctx, scriptDestroy, []string{at.session, at.epoch, at.index}, []string{id.member})
	return err
}

// Rotate gives the session a new identifier, for a change of what it may do.
// For Options.Grace the old one can read what was there before, and not
// write. It does nothing where there is no session.
func (s *Session[T]) Rotate(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil || !s.exists {
		return err
	}
	if s.m.opt.Original {
		return s.rotateOriginal(ctx)
	}
	if s.degraded != nil {
		return &Error{Op: "rotate", Err: s.degraded}
	}
	if s.carrier != nil {
		if err := s.carrier.set("", 0); err != nil {
			return &Error{Op: "rotate", Err: err}
		}
	}
	id := newIdent(s.id.handle)
	at, to := placesOf(s.m.prefix, s.id.handle, s.id.member), placesOf(s.m.prefix, id.handle, id.member)
	list, err := s.m.eval(ctx, scriptRotate, []string{at.session, at.epoch, at.index, to.session}, []string{s.id.member, id.member, millis(s.m.opt.Grace)})
	if err != nil && !errors.Is(err, ErrNotReplicated) {
		return &Error{Op: "rotate", Err: err}
	}
	_, what, why, bad := readRecord(list)
	switch {
	case bad != nil:
		return &Error{Op: "rotate", Err: bad}
	case what == 0 && why == "frozen":
		return &Error{Op: "rotate", Err: ErrRotated}
	case what == 0:
		s.gone()
		return &Error{Op: "rotate", Err: ErrEnded}
	}
	s.m.copies.drop(s.id.member)
	s.m.event("rotated")
	s.id = id
	if s.carrier != nil {
		persist := time.Duration(0)
		if s.rec.ends > s.m.opt.Absolute { // it was to outlive the browser
			persist = s.rec.ends
		}
		if bad := s.carrier.set(id.token, persist); bad != nil {
			return &Error{Op: "rotate", Err: bad}
		}
	}
	if err != nil {
		return &Error{Op: "rotate", Err: err}
	}
	return nil
}

// Logout ends the session, and has the client forget its cookie. An error
// means that it may live on; the cookie is cleared all the same.
func (s *Session[T]) Logout(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var cookie error
	if s.carrier != nil {
		cookie = s.carrier.clear()
	}
	if !s.has {
		return wrap("logout", cookie)
	}
	id := s.id
	s.gone()
	if s.m.opt.Original {
		return wrap("logout", errors.Join(s.m.endOriginal(ctx, id), cookie))
	}
	s.m.event("logout")
	return wrap("logout", errors.Join(s.m.end(ctx, id), cookie))
}

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Err: err}
}
