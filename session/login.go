package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/madcrow-go/madcrow"
)

// maxUser bounds the name of a user.
const maxUser = 512

func (m *Manager[T]) checkUser(op, user string) error {
	if user == "" || len(user) > maxUser {
		return fail.Argument(op, m.name, "user", "must have 1 to 512 bytes")
	}
	return nil
}

// Login gives the session to a user, under a new identifier. The session under the
// old identifier ends: an attacker who knows that identifier cannot follow. Login
// keeps the data, including concurrent changes until then, unless they are another
// user's or the old session has ended in the meantime. user has 1 to 512 bytes, any
// of them. Login takes two round trips, and two more with Options.MaxPerUser.
//
// An error means that no login was made and the client keeps its session. The
// exceptions are [ErrNotReplicated], [ErrOldSessionActive], an unknown outcome, and
// [ErrEnded], where a concurrent revocation may have ended the old session too.
func (s *Session[T]) Login(ctx context.Context, user string, opts ...LoginOption) error {
	const op = "login"
	if err := s.m.store.extended(); err != nil {
		return s.m.wrap(op, err)
	}
	if err := s.m.checkUser(op, user); err != nil {
		return err
	}
	life, err := s.m.opt.lifetimesOf(s.m.name, opts)
	if err != nil {
		return err
	}
	return s.change(ctx, op, func() error {
		if s.state.rec.frozen {
			return ErrRotated
		}
		if err := s.cookieReady(); err != nil {
			return err
		}
		return s.login(ctx, user, life)
	})
}

// successor is the session that a login creates.
type successor[T any] struct {
	id      ident
	rec     record
	content content[T]
}

// login creates the new session first and ends the old one after it: if it fails
// between the two, the client has a session that works.
func (s *Session[T]) login(ctx context.Context, user string, life lifetimes) error {
	next := successor[T]{id: s.m.store.newID(user)}
	if s.keepsData(user) {
		next.content = s.state.content
	}
	replaces := ""
	if s.state.phase == phaseActive && s.state.id.handle == next.id.handle {
		replaces = s.state.id.member
	}
	var problems error // of a login that was made
	var err error
	if next.rec, err = s.store(ctx, next.id, user, next.content, life, replaces); !made(err) {
		return err
	}
	problems = errors.Join(problems, err)
	var kept []ident // still active; the next login or logout ends them
	if s.state.phase == phaseActive {
		err := s.endPrevious(ctx, &next)
		if errors.Is(err, ErrOldSessionActive) {
			kept = append(kept, s.state.id) // not tried again now: without the grace
		} else if !made(err) {
			_ = s.m.end(ctx, next.id)
			return err
		}
		problems = errors.Join(problems, err)
	}
	left, err := s.endAll(ctx, append(s.other.stale, s.other.rivals...))
	s.other.rivals, s.other.stale = nil, append(left, kept...)
	if len(left) > 0 && !errors.Is(problems, ErrOldSessionActive) {
		err = fmt.Errorf("%w: %w", ErrOldSessionActive, err)
	}
	problems = errors.Join(problems, err)
	s.setActive(next.id, next.rec, next.content)
	s.m.event(ctx, madcrow.EventSessionLogin)
	s.m.secret.compare(ctx, true)
	return errors.Join(s.sendCookie(), problems)
}

// keepsData reports whether a login of user keeps the data.
func (s *Session[T]) keepsData(user string) bool {
	return s.state.rec.user == "" || s.state.rec.user == user
}

// endPrevious ends the session that next replaces. Concurrent changes there go into
// next; if that session has ended, its data is dropped from next. Any error but
// ErrOldSessionActive and ErrNotReplicated is a failed login.
func (s *Session[T]) endPrevious(ctx context.Context, next *successor[T]) error {
	version := s.state.rec.version
	if !s.keepsData(next.rec.user) {
		version = "" // whatever it is
	}
	var short error
	for try := range maxTries {
		if try == maxCASRetries && version != "" {
			version = anyVersion
		}
		rep, err := s.m.store.supersede(ctx, s.state.id, version)
		s.m.dropCopies(s.state.id.member, rep)
		switch {
		case !made(err):
			return fmt.Errorf("%w: %w", ErrOldSessionActive, err)
		case rep.status == statusDone, rep.reason == reasonRotated: // the latter by another login of this client
			return errors.Join(short, err)
		case rep.reason == reasonFrozen:
			return ErrRotated
		}
		short = errors.Join(short, err)
		data := content[T]{} // of a session that has ended
		if rep.status == statusRecord {
			if c, bad := s.m.codec.decode(rep.rec.data, rep.rec.user, s.state.id); bad == nil {
				data = c
			}
			if version != anyVersion {
				version = rep.rec.version
			}
		}
		err = s.storeInSuccessor(ctx, next, data)
		if !made(err) {
			return err
		}
		short = errors.Join(short, err)
		if rep.status == statusNone || version == anyVersion {
			return short
		}
	}
	return ErrConflict
}

// storeInSuccessor replaces the data of next.
func (s *Session[T]) storeInSuccessor(ctx context.Context, next *successor[T], data content[T]) error {
	encoded, err := s.m.codec.encode(data, next.rec.user, next.id)
	if err != nil {
		return err
	}
	rep, err := s.m.store.commit(ctx, next.id, next.rec.version, encoded)
	switch {
	case !made(err):
		return err
	case rep.status != statusDone: // no other client knows it, but it can be revoked
		return ErrEnded
	}
	next.rec.version, next.rec.data, next.content = rep.rec.version, encoded, data
	return err
}

// endAll ends sessions and returns those that could not be ended.
func (s *Session[T]) endAll(ctx context.Context, ids []ident) (left []ident, failed error) {
	for _, id := range ids {
		err := s.m.end(ctx, id)
		if !made(err) {
			left = append(left, id)
		}
		failed = errors.Join(failed, err)
	}
	return left, failed
}

// endRivals ends the rivals after a new session has taken their place. Those that
// cannot be ended become stale.
func (s *Session[T]) endRivals(ctx context.Context) {
	left, _ := s.endAll(ctx, s.other.rivals)
	s.other.rivals, s.other.stale = nil, append(s.other.stale, left...)
}
