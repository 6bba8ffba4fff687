package session

import "log/slog"

// Errors that say why a request has no session: see [Session.Why]. They are for logs
// and programs. A client gets the same 401 for each of them.
var (
	// ErrNoCookie: the request has no session cookie, or [Manager.Open] no identifier.
	ErrNoCookie error = &sentinel{"the request has no session cookie", "no_cookie", endedProblem}
	// ErrMalformed: the cookie's value is not one that this package makes.
	ErrMalformed error = &sentinel{"the session cookie is malformed", "malformed", endedProblem}
	// ErrUnknown: there is no such session in Redis. It expired, was logged out, was
	// ended for another one (Options.MaxPerUser), or Redis evicted or lost it. Redis
	// does not tell which. A guessed identifier is unknown as well.
	ErrUnknown error = &sentinel{"the session is unknown: it has expired, was ended or was evicted", "unknown", endedProblem}
	// ErrRevoked: the session was ended by RevokeAll or RevokeOthers.
	ErrRevoked error = &sentinel{"the session was revoked", "revoked", endedProblem}
	// ErrTwoCookies: the request has several cookies of the session's name, and none
	// is used: see Options.Cookie.
	ErrTwoCookies error = &sentinel{"the request has several session cookies, and none is used", "two_cookies", endedProblem}
	// ErrOtherSecret: the session is there, and was made with another Options.Secret.
	ErrOtherSecret error = &sentinel{"the session was made with another Secret", "other_secret", endedProblem}
	// ErrUndecodable: the session is there, and its data cannot be decoded: see
	// Options.OnUndecodable.
	ErrUndecodable error = &sentinel{"the session data cannot be decoded", "undecodable", endedProblem}
)

// why returns the error for what the store has replied.
func (r reason) why() error {
	switch r {
	case reasonRevoked:
		return ErrRevoked
	case reasonOtherSecret:
		return ErrOtherSecret
	case reasonFrozen, reasonRotated:
		return ErrRotated
	}
	return ErrUnknown
}

// reasonOf returns the word of an error for logs and events, "" for none.
func reasonOf(why error) string {
	if s, ok := why.(*sentinel); ok { //nolint:errorlint // the error itself
		return s.reason
	}
	return ""
}

// LogAttrs adds the reason to the line that package problem writes.
func (e *sentinel) LogAttrs() []slog.Attr {
	if e.reason == "" {
		return nil
	}
	return []slog.Attr{slog.String("reason", e.reason)}
}

// because returns err with the reason why there is no session; nil for none.
func because(err, why error) error {
	if why == nil {
		return err
	}
	return &reasoned{err, why}
}

// reasoned is an error, and why there is no session. The error decides the response.
type reasoned struct{ err, why error }

func (e *reasoned) Error() string { return e.err.Error() + ": " + e.why.Error() }

func (e *reasoned) Unwrap() []error { return []error{e.err, e.why} }

// LogAttrs adds the reason to the line that package problem writes.
func (e *reasoned) LogAttrs() []slog.Attr { return []slog.Attr{slog.String("reason", reasonOf(e.why))} }

// Why returns why there is no session, after a method that has looked for it: one of
// the errors above, [ErrRotated], [ErrEnded] after a Logout, or Degraded's error. It
// is nil if there is a session, with or without a user. It does not wait. Do not tell
// it to the client: it shows which identifiers have existed.
func (s *Session[T]) Why() error { return s.latest().why }
