package session

import (
	"context"
	"errors"

	"github.com/madcrow-go/madcrow"
)

const (
	// maxTries bounds how often a change is tried while other writers are faster.
	maxTries = 32
	// maxCASRetries is how often a login or a rotation yields to other writers.
	// After that it replaces any version: an attacker who has the identifier must
	// not keep its owner from changing it.
	maxCASRetries = 4
)

// Update changes the data and stores it at once. If there is no session it creates
// one, and sends its cookie. If another writer was faster, Update loads the data
// again and calls change again: change must have no other effects, and must not use
// this session ([ErrInUse]). An error of change ends Update, which returns it as it
// is. Other errors are a [*madcrow.Error] with [ErrEnded] if the session was ended
// in the meantime, [ErrRotated], [ErrConflict], [ErrHeadersSent],
// [ErrNotReplicated], or the error of Redis, whose outcome tells whether the data
// may have been stored; the next read then asks Redis again.
//
// After ErrEnded and after Logout the next Update creates a new session, without a
// user.
func (s *Session[T]) Update(ctx context.Context, change func(data *T) error) error {
	return s.update(ctx, func(c *content[T]) error { return change(&c.Data) })
}

func (s *Session[T]) update(ctx context.Context, change func(*content[T]) error) error {
	var ofChange error
	err := s.change(ctx, "commit", func() error {
		for range maxTries {
			next, err := s.copyContent()
			if err != nil {
				return err
			}
			if ofChange = change(&next); ofChange != nil {
				return nil
			}
			if done, err := s.commit(ctx, next); done || err != nil {
				return err
			}
			s.m.event(ctx, madcrow.EventSessionConflict)
		}
		return ErrConflict
	})
	if err != nil {
		return err
	}
	return ofChange
}

// copyContent decodes the data again, so that a change that fails leaves no trace.
func (s *Session[T]) copyContent() (content[T], error) {
	if s.state.phase != phaseActive {
		return content[T]{}, nil
	}
	return s.m.codec.decode(s.state.rec.data, s.state.rec.user, s.state.id)
}

// commit stores next. false is a conflict: the state is then the newer one.
func (s *Session[T]) commit(ctx context.Context, next content[T]) (bool, error) {
	switch s.state.phase {
	case phaseReplaced:
		return false, ErrRotated
	case phaseNone:
		return true, s.m.wrap("create", s.create(ctx, next))
	}
	id, rec := s.state.id, s.state.rec
	data, err := s.m.codec.encode(next, rec.user, id)
	if err != nil {
		return false, err
	}
	since := s.m.fallback.begin()
	rep, err := s.m.store.commit(ctx, id, rec.version, data)
	if !made(err) {
		s.setUnloaded()
		return false, err
	}
	if refused, err := s.refused(ctx, rep); refused {
		return false, err
	}
	rec.version, rec.data = rep.rec.version, data
	s.state.rec, s.state.content = rec, next
	s.m.fallback.put(id, rec, since)
	return true, err
}

// create makes a session without a user.
func (s *Session[T]) create(ctx context.Context, c content[T]) error {
	if err := s.cookieReady(); err != nil { // before the session is stored
		return err
	}
	id := s.m.store.newID("")
	rec, err := s.store(ctx, id, "", c, lifetimes{idle: s.m.opt.IdleTimeout, absolute: s.m.opt.AbsoluteTimeout}, "")
	if !made(err) {
		return err
	}
	s.setActive(id, rec, c)
	s.endRivals(ctx)
	return errors.Join(s.sendCookie(), err)
}

// store creates a session in Redis and returns its record. replaces is the member of
// a session that ends next.
func (s *Session[T]) store(ctx context.Context, id ident, user string, c content[T], life lifetimes, replaces string) (record, error) {
	data, err := s.m.codec.encode(c, user, id)
	if err != nil {
		return record{}, err
	}
	evicted, err := s.m.store.create(ctx, newSession{id: id, user: user, data: data, device: s.device, life: life, replaces: replaces})
	if !made(err) {
		return record{}, err
	}
	for _, member := range evicted {
		s.m.fallback.drop(ident{member: member})
		s.m.event(ctx, madcrow.EventSessionEvicted)
	}
	s.m.event(ctx, madcrow.EventSessionCreated)
	return record{version: "1", user: user, data: data, remember: life.remember, ends: life.absolute, left: life.idle}, err
}

// cookieReady returns ErrHeadersSent if the client can no longer get a cookie.
func (s *Session[T]) cookieReady() error {
	if s.cookie == nil {
		return nil
	}
	return s.cookie.ready()
}

// sendCookie gives the client the identifier of a session that was stored.
func (s *Session[T]) sendCookie() error {
	if s.cookie == nil {
		return nil
	}
	persist := s.state.rec.ends
	if !s.state.rec.remember {
		persist = 0
	}
	return applied(s.cookie.set(s.state.id.token, persist))
}
