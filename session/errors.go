package session

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

var (
	// ErrEnded is a session that was there and is no more: logged out, revoked
	// or expired while the request was under way. It is not made again.
	ErrEnded = errors.New("the session has ended")
	// ErrRotated is a write under the identifier from before a rotation or a
	// login, made for Options.Grace after that.
	ErrRotated = errors.New("the session has a new identifier")
	// ErrConflict is an Update that others were faster than, 32 times; with
	// Options.Keys also a Rotate.
	ErrConflict = errors.New("the session is changed by others all the time")
	// ErrHeadersSent is a change that needs a cookie after the answer began.
	ErrHeadersSent = errors.New("the answer has begun: its cookie cannot be set any more")
	// ErrNotReplicated is a change that was made, and that fewer replicas have
	// than Options.WaitReplicas.
	ErrNotReplicated = errors.New("fewer replicas than wanted have the change")
	// ErrOldLives is a login that was made, while what was under the identifier
	// from before may still be read with that one. The next Login or Logout of the
	// same Session ends it.
	ErrOldLives = errors.New("the identifier from before may still be valid")
	// ErrInUse is a call for a session on which another one takes too long, such
	// as one from inside the function given to Update. It is also
	// [madcrow.ErrTimeout].
	ErrInUse = errors.New("another call on this session has not returned")
	// ErrOriginal is what the original's sessions cannot do.
	ErrOriginal = errors.New("the original's sessions have no users")
	// ErrNoUser is what needs a session with a user.
	ErrNoUser = errors.New("nobody is logged in")
	// ErrNoMiddleware is a context without a session.
	ErrNoMiddleware = errors.New("the handler is not behind Manager.Middleware")
)

// Error is a failed operation. It wraps its cause, so that
// errors.Is(err, madcrow.ErrUnavailable) and its like work.
type Error struct {
	// Op is what was tried: "load", "commit", "login", …
	Op string
	// Err is the cause; it may name addresses and keys.
	Err error
}

// Error returns one line for logs.
func (e *Error) Error() string { return "session: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// redisTable is the original's name for the kind of data.
const redisTable = "redis_sessions"

// Problem returns 401 for a session that has ended or has no user, 409 for a
// conflict, 504 for a deadline, 500 for a mistake of the program and 503 for
// the rest.
func (e *Error) Problem() problem.Problem {
	p := problem.Problem{Status: http.StatusServiceUnavailable, Code: "SESSION_UNAVAILABLE", Message: "The session is not available at the moment", RetryAfter: time.Second, Operation: e.Op, Table: redisTable}
	switch {
	case errors.Is(e.Err, ErrEnded), errors.Is(e.Err, ErrNoUser), errors.Is(e.Err, ErrRotated):
		return problem.Problem{Status: http.StatusUnauthorized, Code: "SESSION_ENDED", Message: "There is no valid session"}
	case errors.Is(e.Err, ErrConflict):
		return problem.Problem{Status: http.StatusConflict, Code: "SESSION_CONFLICT", Message: "The session was changed at the same time"}
	case errors.Is(e.Err, ErrHeadersSent), errors.Is(e.Err, ErrNoMiddleware), errors.Is(e.Err, ErrOriginal):
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
