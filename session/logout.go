package session

import (
	"context"
	"errors"

	"github.com/madcrow-go/madcrow"
)

// Logout ends the session and clears the client's cookie. Under an identifier from
// before a rotation it ends the rotated session, for Options.RotationGrace. Of several
// cookies of the name it ends the sessions of the last eight. After an error the
// session may still be active, and Logout may be called again; the cookie is cleared
// anyway. [ErrHeadersSent] alone means that only the cookie is left.
func (s *Session[T]) Logout(ctx context.Context) error {
	var ofCookie error
	if s.cookie != nil {
		ofCookie = s.cookie.expire()
	}
	if err := s.acquire(ctx); err != nil {
		return s.m.wrap("logout", err)
	}
	defer s.release()
	ids := append(append(s.other.stale, s.other.rivals...), s.other.candidates...)
	if s.state.id != (ident{}) {
		ids = append(ids, s.state.id)
		s.m.event(ctx, madcrow.EventSessionLogout)
	}
	s.setEnded()
	s.other = otherIDs{}
	var failed error
	ended := 0
	for _, id := range ids {
		err := s.m.end(ctx, id)
		if made(err) {
			ended++
		}
		if err != nil {
			failed = errors.Join(failed, err)
			s.other.stale = append(s.other.stale, id) // the next Logout waits for the replicas again
		}
	}
	if ended > 0 {
		ofCookie = applied(ofCookie)
	}
	err := errors.Join(failed, ofCookie)
	if ended > 0 && ended < len(ids) { // neither all of it nor nothing was done
		return fail.WrapAs("logout", s.m.name, madcrow.OutcomeUnknown, err)
	}
	return s.m.wrap("logout", err)
}
