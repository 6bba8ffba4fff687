package pubsub

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

var (
	// ErrQueued is returned by Publish when Redis is away and the message waits
	// in the outbox.
	ErrQueued = errors.New("redis is away: the message is sent when it is back")
	// ErrOutboxFull is returned by Publish when the outbox takes no more.
	ErrOutboxFull = errors.New("the outbox is full")
	// ErrHistoryLost says that what came after a position is not all there any
	// more. Read anew what the messages are about, and go on from the position
	// of the next event.
	ErrHistoryLost = errors.New("the history does not go back so far")
	// ErrSlow ends a subscription of the rule [Disconnect].
	ErrSlow = errors.New("the subscriber is too slow")
	// ErrMalformed is a message that cannot be decoded. The subscription goes
	// on after it.
	ErrMalformed = errors.New("the message cannot be decoded")
	// ErrNoGroup says that a stream has no such group of workers.
	ErrNoGroup = errors.New("the stream has no such group")
	// ErrTooOld is a server that does not know the commands that are needed; the
	// text says for what, and since when they are there.
	ErrTooOld = errors.New("the server is too old")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the bus is closed")
)

// Error is a failed operation. It wraps its cause, so that
// errors.Is(err, madcrow.ErrUnavailable) and its like work.
type Error struct {
	// Channel is the channel, or the stream.
	Channel string
	// Op is what was tried: "publish", "subscribe", …
	Op string
	// Err is the cause; it may name addresses.
	Err error
}

// Error returns one line for logs.
func (e *Error) Error() string { return "pubsub: " + e.Channel + ": " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Problem returns a 503, or a 504 for a deadline; a 413 for a message that is too
// large and a 404 for a group that does not exist.
func (e *Error) Problem() problem.Problem {
	p := problem.Problem{Status: http.StatusServiceUnavailable, Code: "MESSAGES_UNAVAILABLE", Message: "Messages cannot be sent or received at the moment", RetryAfter: time.Second, Operation: e.Op, Table: "redis_pubsub"}
	switch {
	case errors.Is(e.Err, madcrow.ErrTooLarge):
		return problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "VALUE_TOO_LARGE", Message: "The message is too large"}
	case errors.Is(e.Err, ErrNoGroup):
		return problem.Problem{Status: http.StatusNotFound, Code: "GROUP_NOT_FOUND", Message: "There is no such group of workers"}
	case errors.Is(e.Err, ErrTooOld):
		return problem.Problem{Status: http.StatusInternalServerError, Code: "REDIS_TOO_OLD", Message: "The Redis server is too old for this", Operation: e.Op}
	case errors.Is(e.Err, madcrow.ErrTimeout):
		p.Status, p.Code, p.RetryAfter = http.StatusGatewayTimeout, "MESSAGES_TIMEOUT", 0
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
func (e *ValidationError) Error() string { return "pubsub: " + e.Field + ": " + e.Message }

// Problem returns a 422.
func (e *ValidationError) Problem() problem.Problem {
	return problem.Problem{
		Status:  http.StatusUnprocessableEntity,
		Code:    problem.CodeValidation,
		Message: "The request is not valid",
		Errors:  []problem.FieldError{{Field: e.Field, Message: e.Message}},
	}
}
