package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/madcrow-go/madcrow"
)

// maxUser bounds the name of a user.
const maxUser = 512

func checkUser(user string) error {
	if user == "" || len(user) > maxUser {
		return &ValidationError{Field: "user", Message: "must have 1 to 512 bytes"}
	}
	return nil
}

// Login says who the session belongs to from now on. It gets a new identifier,
// and what was under the old one is gone: nobody who knew that can come along.
// The data is kept, with what others stored there until then, unless it was
// another user's or that session has ended meanwhile. user is from 1 to 512
// bytes, any of them. It takes two round trips, and two more with
// Options.MaxPerUser.
//
// An error says that nobody was logged in and that the client keeps what it
// had, but for [ErrNotReplicated], [ErrOldSessionActive], [ErrEnded], where a revocation
// at the same time may have ended that too, and an outcome that is unknown.
func (s *Session[T]) Login(ctx context.Context, user string, opts ...LoginOption) error {
	if s.m.opt.FastAPILayout {
		return &Error{Op: "login", Err: ErrFastAPILayout}
	}
	if err := checkUser(user); err != nil {
		return err
	}
	l, err := s.m.opt.lifetimesOf(opts)
	if err != nil {
		return err
	}
	if err := s.enter(ctx, "login"); err != nil {
		return err
	}
	defer s.leave()
	if err := s.writable(ctx, "login"); err != nil {
		return err
	}
	if s.exists && s.rec.frozen {
		return &Error{Op: "login", Err: ErrRotated}
	}
	if s.carrier != nil {
		if err := s.carrier.ready(); err != nil {
			return &Error{Op: "login", Err: err}
		}
	}
	return s.login(ctx, user, l)
}

// fresh is a session that a login makes.
type fresh[T any] struct {
	id  ident
	rec record
	c   content[T]
}

func (s *Session[T]) login(ctx context.Context, user string, l lifetimes) error {
	f := fresh[T]{id: newIdent(s.m.handles.of(user)), c: s.now}
	if !s.brings(user) {
		f.c = content[T]{}
	}
	own := ""
	if s.exists && s.id.handle == f.id.handle {
		own = s.id.member
	}
	var dead []string
	var err error
	if s.m.opt.MaxPerUser > 0 {
		if dead, err = s.m.deadOf(ctx, f.id.handle, user); err != nil {
			return &Error{Op: "login", Err: err}
		}
	}
	// First the new one: whatever ends us in between, the client keeps a
	// session that works.
	var problems error // that do not keep the login from having been made
	if f.rec, err = s.store(ctx, f.id, user, f.c, l, own, dead); !made(err) {
		return err
	}
	problems = errors.Join(problems, err)
	olds := s.olds
	s.olds, s.rivals = nil, false
	if s.exists {
		if err = s.moveTo(ctx, &f); errors.Is(err, ErrOldSessionActive) {
			s.olds = append(s.olds, s.id)
		} else if !made(err) {
			s.olds = olds
			_ = s.m.end(ctx, f.id)
			return wrap("login", err)
		}
		problems = errors.Join(problems, err)
	}
	for _, old := range olds {
		if err := s.m.end(ctx, old); !made(err) {
			s.olds = append(s.olds, old)
			problems = errors.Join(problems, fmt.Errorf("%w: %w", ErrOldSessionActive, err))
		}
	}
	s.setLoaded(f.id, f.rec, f.c)
	s.m.event("login")
	return wrap("login", errors.Join(s.send(), problems))
}

// brings says whether the data goes on to a login of user.
func (s *Session[T]) brings(user string) bool { return s.rec.user == "" || s.rec.user == user }

// moveTo ends the session whose place f takes. What others stored there
// meanwhile comes along; if it has ended, nothing does. Any error but
// ErrOldSessionActive and ErrNotReplicated is a login that fails.
func (s *Session[T]) moveTo(ctx context.Context, f *fresh[T]) error {
	version := s.rec.version
	if !s.brings(f.rec.user) {
		version = ""
	}
	var short error
	for try := range updateTries {
		if try == maxCASRetries && version != "" {
			version = "*"
		}
		list, err := s.m.eval(ctx, scriptDestroy, s.m.keysOf(s.id).list(), []string{s.id.member, "", version, millis(s.m.opt.Grace)})
		s.m.copies.drop(s.id)
		s.m.dropSuccessor(list)
		old, what, why, bad := record{}, replyNone, "", err
		if made(err) {
			short = errors.Join(short, err)
			old, what, why, bad = readRecord(list)
		}
		next := content[T]{} // of what has ended nothing comes along
		switch {
		case bad != nil:
			return fmt.Errorf("%w: %w", ErrOldSessionActive, bad)
		case what == replyDone, why == rotated: // the latter by another login of this client
			return short
		case why == frozen:
			return ErrRotated
		case what == replyRecord:
			if c, err := s.m.decode(old, s.id); err == nil {
				next = c
			}
			if version != "*" {
				version = old.version
			}
		}
		rec, done, _, err := s.m.replace(ctx, f.id, f.rec, next)
		if !made(err) {
			return err
		}
		if done != replyDone { // nobody else knows it, but it can be revoked
			return ErrEnded
		}
		short = errors.Join(short, err)
		if f.rec, f.c = rec, next; what == replyNone || version == "*" {
			return short
		}
	}
	return ErrConflict
}

// maxCASRetries is how often a login or a rotation finds that others were faster
// before it no longer lets them: who has stolen an identifier must not keep its
// owner from changing it. Until then a failure in between loses nothing.
const maxCASRetries = 4

// end removes one session, and what it became by a rotation.
func (m *Manager[T]) end(ctx context.Context, id ident) error {
	defer m.copies.drop(id)
	if m.opt.FastAPILayout {
		return m.endLegacy(ctx, id)
	}
	list, err := m.eval(ctx, scriptDestroy, m.keysOf(id).list(), []string{id.member, "", "", "0"})
	m.dropSuccessor(list)
	return err
}

// dropSuccessor forgets what the destroyed session became by a rotation, too.
func (m *Manager[T]) dropSuccessor(list []madcrow.Message) {
	if len(list) == 2 {
		m.copies.drop(ident{member: text(list[1])}) // or why there was none, which is no member
	}
}

// Logout ends the session, and has the client forget its cookie. Under an
// identifier from before a rotation it ends what that became, for
// Options.Grace. Of several cookies of the name, where it is not known which one
// counts, it ends the sessions of the last eight. An error means that the session may live
// on, and Logout may be called again; the cookie is cleared all the same.
// [ErrHeadersSent] alone means that only the cookie is left.
func (s *Session[T]) Logout(ctx context.Context) error {
	var cookie error
	if s.carrier != nil {
		cookie = s.carrier.clear()
	}
	if err := s.enter(ctx, "logout"); err != nil {
		return err
	}
	defer s.leave()
	ids := append(s.olds, s.shown...)
	if s.has {
		ids = append(ids, s.id)
		s.m.event("logout")
	}
	s.setEnded()
	s.olds, s.shown, s.rivals, s.replaced, s.degraded = nil, nil, false, false, nil
	var failed error
	for _, id := range ids {
		if err := s.m.end(ctx, id); err != nil {
			failed = errors.Join(failed, err)
			s.olds = append(s.olds, id) // asked again, it waits for the replicas again
		}
	}
	return wrap("logout", errors.Join(failed, cookie))
}

// Rotate gives the session a new identifier, for a change of what it may do.
// For Options.Grace, but not beyond the next rotation or RevokeOthers, the old
// one can read what was there before, and not write; that of a session without
// user cannot even read. It does nothing where there is no session.
func (s *Session[T]) Rotate(ctx context.Context) error {
	if err := s.enter(ctx, "rotate"); err != nil {
		return err
	}
	defer s.leave()
	if err := s.writable(ctx, "rotate"); err != nil || !s.exists {
		return err
	}
	if s.carrier != nil {
		if err := s.carrier.ready(); err != nil {
			return &Error{Op: "rotate", Err: err}
		}
	}
	if s.m.opt.FastAPILayout {
		return s.rotateLegacy(ctx)
	}
	id := newIdent(s.id.handle)
	for try := range updateTries {
		done, err := s.rotate(ctx, id, try >= maxCASRetries && len(s.m.seal.keys) == 0)
		if done || err != nil {
			return err
		}
	}
	return &Error{Op: "rotate", Err: ErrConflict}
}

// rotate moves the session, whatever it holds if that is not sealed and asis is
// true; false is a conflict, after which it is loaded.
func (s *Session[T]) rotate(ctx context.Context, id ident, asis bool) (bool, error) {
	version, data := "", ""
	if !asis {
		var err error
		version = s.rec.version
		if data, err = s.m.reseal(s.rec, s.id, id); err != nil {
			return false, &Error{Op: "rotate", Err: err}
		}
	}
	keys := append(s.m.keysOf(s.id).list(), s.m.keysOf(id).session)
	list, err := s.m.eval(ctx, scriptRotate, keys, []string{s.id.member, id.member, millis(s.m.opt.Grace), version, data})
	if !made(err) {
		s.loaded = false // it may have been moved
		return false, &Error{Op: "rotate", Err: err}
	}
	rec, what, why, bad := readRecord(list)
	switch {
	case bad != nil:
		s.loaded = false
		return false, &Error{Op: "rotate", Err: bad}
	case what == replyNone:
		return false, s.refused("rotate", why)
	case what == replyRecord:
		if s.take(ctx, rec); !s.exists {
			return false, &Error{Op: "rotate", Err: ErrEnded}
		}
		return false, nil
	}
	s.m.copies.drop(s.id)
	s.m.event("rotated")
	rec = s.rec
	rec.data, rec.ends = data, leftOf(list, s.rec.ends)
	s.setLoaded(id, rec, s.now)
	s.loaded = !asis // what was moved may be newer
	if bad := s.send(); bad != nil {
		return true, &Error{Op: "rotate", Err: bad}
	}
	return true, wrap("rotate", err)
}
