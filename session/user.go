package session

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/madcrow-go/madcrow"
)

// Device describes the client of a session, as recorded when the session was made.
type Device struct {
	// Address is the client's, by Options.Client; empty without it.
	Address string `json:"a,omitempty"`
	// UserAgent is the header's, at most 256 bytes of it.
	UserAgent string `json:"u,omitempty"`
}

const maxUserAgent = 256

func (d Device) encode() string {
	text, _ := json.Marshal(d) // two strings: it cannot fail
	return string(text)
}

// Info is one session of a user.
type Info struct {
	// Handle names the session for [Manager.Revoke]. It is a hash: it cannot be
	// used as an identifier.
	Handle string
	Device Device
	// Created and LastUsed are by the clock of Redis; LastUsed is exact to a tenth
	// of the idle time. Ends is the absolute end.
	Created, LastUsed, Ends time.Time
}

// List returns the live sessions of a user, the newest first. It takes two round
// trips.
func (m *Manager[T]) List(ctx context.Context, user string) ([]Info, error) {
	if err := m.checkUser("list", user); err != nil {
		return nil, err
	}
	list, err := m.store.list(ctx, user)
	if err != nil {
		return nil, m.wrap("list", err)
	}
	if len(list) == 0 {
		m.secret.compare(ctx, false)
	}
	slices.SortFunc(list, func(a, b Info) int { return b.Created.Compare(a.Created) })
	return list, nil
}

// Revoke ends one session of a user, by its handle, and the session that it was
// rotated to within Options.RotationGrace. It reports whether there was one. The handle may
// be untrusted: a session of another user is never ended.
func (m *Manager[T]) Revoke(ctx context.Context, user, handle string) (bool, error) {
	if err := m.checkUser("revoke", user); err != nil {
		return false, err
	}
	rep, err := m.store.revoke(ctx, user, handle)
	m.dropCopies(handle, rep)
	if rep.status == statusDone {
		m.event(ctx, madcrow.EventSessionRevoked)
	} else if err == nil {
		m.secret.compare(ctx, false)
	}
	return rep.status == statusDone, m.wrap("revoke", err)
}

// RevokeAll ends every session of a user in all processes, and returns how many
// were listed, which may include sessions that had expired unused. It takes one
// round trip, whatever their number.
func (m *Manager[T]) RevokeAll(ctx context.Context, user string) (int, error) {
	if err := m.checkUser("revoke all", user); err != nil {
		return 0, err
	}
	rep, err := m.store.revokeAll(ctx, user)
	m.revoked(ctx, rep)
	if err == nil && rep.count == 0 {
		m.secret.compare(ctx, false)
	}
	return rep.count, m.wrap("revoke all", err)
}

// revoked drops all fallback copies after a revocation of several sessions.
func (m *Manager[T]) revoked(ctx context.Context, rep reply) {
	m.fallback.dropAll()
	if rep.count > 0 {
		m.events.CountN(ctx, madcrow.EventSessionRevoked, rep.count)
	}
}

// RevokeOthers ends every session of the user but this one, and counts like
// RevokeAll. If this session has ended or was rotated, it returns [ErrEnded] or
// [ErrRotated] and ends none.
func (s *Session[T]) RevokeOthers(ctx context.Context) (n int, err error) {
	const op = "revoke others"
	if err := s.m.store.extended(); err != nil {
		return 0, s.m.wrap(op, err)
	}
	err = s.change(ctx, op, func() error {
		if s.state.rec.user == "" {
			return because(ErrNoUser, s.state.why)
		}
		rep, err := s.m.store.revokeOthers(ctx, s.state.id)
		s.m.revoked(ctx, rep)
		if made(err) && rep.status == statusNone {
			return s.notChanged(rep.reason)
		}
		n = rep.count
		return err
	})
	return n, err
}
