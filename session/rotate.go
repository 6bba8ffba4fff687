package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/madcrow-go/madcrow"
)

// Rotate gives the session a new identifier, for a change of its rights. The old
// identifier reads the earlier state for Options.RotationGrace, but not beyond the next
// Rotate or RevokeOthers, and cannot write; that of a session without a user cannot
// read either. Without a session Rotate does nothing.
func (s *Session[T]) Rotate(ctx context.Context) error {
	return s.change(ctx, "rotate", func() error {
		if s.state.phase != phaseActive {
			return nil
		}
		if err := s.cookieReady(); err != nil {
			return err
		}
		to := s.m.store.nextID(s.state.id)
		for try := range maxTries {
			// Bound data must be encoded for the new identifier, so its version counts.
			anyVersion := try >= maxCASRetries && !s.m.codec.bound()
			if done, err := s.rotate(ctx, to, anyVersion); done || err != nil {
				return err
			}
		}
		return ErrConflict
	})
}

// rotate moves the session to another identifier. false is a conflict: the state is
// then the newer one.
func (s *Session[T]) rotate(ctx context.Context, to ident, anyVersion bool) (bool, error) {
	from, rec, c := s.state.id, s.state.rec, s.state.content
	version, data := "", ""
	if !anyVersion {
		var err error
		version = rec.version
		if data, err = s.m.codec.rebind(rec.data, rec.user, from, to); err != nil {
			return false, err
		}
	}
	rep, err := s.m.store.rotate(ctx, from, to, version, data)
	if !made(err) {
		s.setUnloaded()
		return false, err
	}
	if refused, err := s.refused(ctx, rep); refused {
		return false, err
	}
	s.m.fallback.drop(from)
	s.m.event(ctx, madcrow.EventSessionRotated)
	rec.data = data
	if rep.ends > 0 {
		rec.ends = rep.ends
	}
	s.setActive(to, rec, c)
	err = errors.Join(s.sendCookie(), err)
	if rep.copied {
		err = s.endCopied(ctx, from, err)
	}
	if anyVersion {
		s.setUnloaded() // the moved data may be newer
	}
	return true, err
}

// endCopied ends the session that was copied, and returns the error of the
// rotation. Without the new cookie the client needs the old session: the next
// login or logout ends it, as it does where this fails.
func (s *Session[T]) endCopied(ctx context.Context, from ident, err error) error {
	if err == nil {
		bad := s.m.end(ctx, from)
		if bad == nil {
			return nil
		}
		err = fmt.Errorf("%w: %w", ErrOldSessionActive, applied(bad))
	}
	s.other.stale = append(s.other.stale, from)
	return err
}
