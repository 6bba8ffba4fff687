package session

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/problem"
)

// Errors of sessions, for errors.Is. Each describes its HTTP response: a handler may
// return ErrNoUser itself, which is a 401.
var (
	// ErrEnded: the session was logged out, revoked or expired while the request
	// was under way. It is not created again. The error also holds [ErrUnknown] or
	// [ErrRevoked], where Redis tells.
	ErrEnded error = &sentinel{"the session has ended", "ended", endedProblem}
	// ErrRotated: a write under the identifier from before a rotation or a login,
	// within Options.RotationGrace after it.
	ErrRotated error = &sentinel{"the session has a new identifier", "rotated", endedProblem}
	// ErrConflict: other writers were faster 32 times in a row, in an Update or,
	// with Options.EncryptionKeys, a Rotate.
	ErrConflict error = &sentinel{"too many concurrent changes of the session", "", problem.Problem{Status: http.StatusConflict, Code: "SESSION_CONFLICT", Message: "The session was changed at the same time"}}
	// ErrHeadersSent: a change needs a cookie after the response has started.
	ErrHeadersSent error = &sentinel{"the response has started: the session cookie cannot be set", "", mistake}
	// ErrNotReplicated: the change was made, but fewer replicas than
	// Options.WaitReplicas confirmed it.
	ErrNotReplicated error = &sentinel{"the change was made, but too few replicas confirmed it", "", unavailable}
	// ErrOldSessionActive: the login, or with Options.FastAPILayout the rotation,
	// was made, but the session under the previous identifier could not be ended and
	// may still be read with it. The next Login or Logout of the same Session ends
	// it.
	ErrOldSessionActive error = &sentinel{"the previous session could not be invalidated", "", unavailable}
	// ErrInUse: another call on the same Session did not return in time, for
	// example because the function given to Update uses the session. It is also
	// [madcrow.ErrTimeout].
	ErrInUse error = &sentinel{"another call on this session has not returned in time", "", timeout}
	// ErrFastAPILayout: Options.FastAPILayout does not support the operation.
	ErrFastAPILayout error = &sentinel{"the FastAPI layout has no users, lists or flashes", "", mistake}
	// ErrNoUser: the operation needs a session with a user. The error also holds
	// the reason of [Session.Why], if there is no session at all.
	ErrNoUser error = &sentinel{"no user is logged in", "", endedProblem}
	// ErrNoMiddleware: the context has no session.
	ErrNoMiddleware error = &sentinel{"the handler is not behind Manager.Middleware", "", mistake}
)

var (
	endedProblem = problem.Problem{Status: http.StatusUnauthorized, Code: "SESSION_ENDED", Message: "There is no valid session"}
	mistake      = problem.Problem{Status: http.StatusInternalServerError}
	unavailable  = problem.Problem{Status: http.StatusServiceUnavailable, Code: "SESSION_UNAVAILABLE", Message: unavailableMessage, RetryAfter: time.Second}
	timeout      = problem.Problem{Status: http.StatusGatewayTimeout, Code: "SESSION_TIMEOUT", Message: unavailableMessage}
)

// sentinel is an error that describes its response.
type sentinel struct {
	text    string
	reason  string // why there is no session, in a word; "" for other errors
	problem problem.Problem
}

func (e *sentinel) Error() string { return e.text }

// Problem implements [problem.Describer].
func (e *sentinel) Problem() problem.Problem { return e.problem }

var fail = operr.Maker{Package: "session", Problem: problemOf}

// wrap returns err as the error of an operation; nil stays nil.
func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrNotReplicated) || errors.Is(err, ErrOldSessionActive) {
		return fail.WrapAs(op, name, madcrow.OutcomeApplied, err)
	}
	return fail.Wrap(op, name, err)
}

// problemOf returns 401 for a session that has ended or has no user, 409 for a
// conflict, 504 for a deadline, 500 for a mistake of the program and 503 otherwise.
func problemOf(_, _ string, err error) problem.Problem {
	p := unavailable
	own := decisive(err)
	switch {
	case own != nil:
		p = own.problem
	case errors.Is(err, madcrow.ErrTooLarge):
		p = problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "VALUE_TOO_LARGE", Message: "The session is too large"}
	case errors.Is(err, madcrow.ErrTimeout):
		p = timeout
	}
	return p
}

// decisive returns the error of this package in err that decides its response,
// whatever else failed; nil for none. The response of the others depends on why
// Redis failed.
func decisive(err error) *sentinel {
	for _, target := range [...]error{
		ErrEnded, ErrNoUser, ErrRotated, ErrConflict, ErrHeadersSent, ErrNoMiddleware, ErrFastAPILayout,
		ErrNoCookie, ErrMalformed, ErrUnknown, ErrRevoked, ErrTwoCookies, ErrOtherSecret, ErrUndecodable,
	} {
		if own := (*sentinel)(nil); errors.Is(err, target) && errors.As(target, &own) {
			return own
		}
	}
	return nil
}

const unavailableMessage = "The session is not available at the moment"
