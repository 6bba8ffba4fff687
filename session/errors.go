package session

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

var (
	// ErrEnded: the session was logged out, revoked or expired while the request
	// was under way. It is not created again.
	ErrEnded = errors.New("the session has ended")
	// ErrRotated: a write under the identifier from before a rotation or a login,
	// within Options.Grace after it.
	ErrRotated = errors.New("the session has a new identifier")
	// ErrConflict: other writers were faster 32 times in a row, in an Update or,
	// with Options.Keys, a Rotate.
	ErrConflict = errors.New("too many concurrent changes of the session")
	// ErrHeadersSent: a change needs a cookie after the response has started.
	ErrHeadersSent = errors.New("the response has started: the session cookie cannot be set")
	// ErrNotReplicated: the change was made, but fewer replicas than
	// Options.WaitReplicas confirmed it.
	ErrNotReplicated = errors.New("the change was made, but too few replicas confirmed it")
	// ErrOldSessionActive: the login was made, but the session under the previous
	// identifier could not be ended and may still be read with it. The next Login
	// or Logout of the same Session ends it.
	ErrOldSessionActive = errors.New("the previous session could not be invalidated")
	// ErrInUse: another call on the same Session did not return in time, for
	// example because the function given to Update uses the session. It is also
	// [madcrow.ErrTimeout].
	ErrInUse = errors.New("another call on this session has not returned in time")
	// ErrFastAPILayout: Options.FastAPILayout does not support the operation.
	ErrFastAPILayout = errors.New("the FastAPI layout has no users, lists or flashes")
	// ErrNoUser: the operation needs a session with a user.
	ErrNoUser = errors.New("no user is logged in")
	// ErrNoMiddleware: the context has no session.
	ErrNoMiddleware = errors.New("the handler is not behind Manager.Middleware")
)

// Error is a failed operation. It wraps its cause, so that
// errors.Is(err, madcrow.ErrUnavailable) and its like work.
type Error struct {
	// Op is the operation: "load", "commit", "login", …
	Op string
	// Err is the cause; it may name addresses and keys.
	Err error
}

// Error returns one line for logs.
func (e *Error) Error() string { return "session: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// redisTable is FastAPI Madcrow's name for this kind of data.
const redisTable = "redis_sessions"

// Problem returns 401 for a session that has ended or has no user, 409 for a
// conflict, 504 for a deadline, 500 for a mistake of the program and 503
// otherwise.
func (e *Error) Problem() problem.Problem {
	p := problem.Problem{Status: http.StatusServiceUnavailable, Code: "SESSION_UNAVAILABLE", Message: "The session is not available at the moment", RetryAfter: time.Second, Operation: e.Op, Table: redisTable}
	switch {
	case errors.Is(e.Err, ErrEnded), errors.Is(e.Err, ErrNoUser), errors.Is(e.Err, ErrRotated):
		return problem.Problem{Status: http.StatusUnauthorized, Code: "SESSION_ENDED", Message: "There is no valid session"}
	case errors.Is(e.Err, ErrConflict):
		return problem.Problem{Status: http.StatusConflict, Code: "SESSION_CONFLICT", Message: "The session was changed at the same time"}
	case errors.Is(e.Err, ErrHeadersSent), errors.Is(e.Err, ErrNoMiddleware), errors.Is(e.Err, ErrFastAPILayout):
		return problem.Problem{Status: http.StatusInternalServerError}
	case errors.Is(e.Err, madcrow.ErrTooLarge):
		return problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "VALUE_TOO_LARGE", Message: "The session is too large"}
	case errors.Is(e.Err, madcrow.ErrTimeout):
		p.Status, p.Code, p.RetryAfter = http.StatusGatewayTimeout, "SESSION_TIMEOUT", 0
	}
	return p
}

// ValidationError is an argument that cannot be used. Nothing was sent. It does
// not hold the argument.
type ValidationError struct {
	// Field is the argument or the option.
	Field string
	// Message says what is expected.
	Message string
}

// Error returns one line.
func (e *ValidationError) Error() string { return "session: " + e.Field + ": " + e.Message }

// Problem returns a 422.
func (e *ValidationError) Problem() problem.Problem {
	return problem.Problem{
		Status:  http.StatusUnprocessableEntity,
		Code:    problem.CodeValidation,
		Message: "The request is not valid",
		Errors:  []problem.FieldError{{Field: e.Field, Message: e.Message}},
	}
}

func invalid(err error) bool {
	var v *ValidationError
	return errors.As(err, &v)
}
