package service

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

// The tables of [Error]: FastAPI Madcrow's names for the kinds of data.
const (
	TableCache      = "redis_cache"
	TableSessions   = "redis_sessions"
	TableRateLimits = "redis_rate_limits"
	TablePubSub     = "redis_pubsub"
)

// retryAfter is the Retry-After of responses: the prober tries again after half a
// second at most.
const retryAfter = time.Second

// Error is a failed operation on Redis. It wraps the error of package madcrow,
// so errors.Is(err, madcrow.ErrUnavailable) and its like work.
type Error struct {
	// Operation is the method's operation: "get", "set", "delete", …
	Operation string
	// Table is the kind of data: "redis_cache", …
	Table string
	// Err is the cause; it may name addresses and keys.
	Err error
}

// Error returns one line for logs.
func (e *Error) Error() string { return e.Operation + " " + e.Table + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Problem returns the HTTP response. It shows only the kind of the cause.
func (e *Error) Problem() problem.Problem {
	p := problemOf(e.Err)
	p.Operation, p.Table = e.Operation, e.Table
	return p
}

func problemOf(err error) problem.Problem {
	var m *madcrow.Error
	switch {
	case errors.As(err, &m):
		return m.Problem()
	case errors.Is(err, madcrow.ErrUnavailable), errors.Is(err, madcrow.ErrClosed):
		return problem.Problem{Status: http.StatusServiceUnavailable, Code: "REDIS_UNAVAILABLE", Message: "Redis is not available", RetryAfter: retryAfter}
	}
	return problem.Problem{Status: http.StatusInternalServerError, Code: "REDIS_ERROR", Message: "The Redis operation failed"}
}

// ValidationError is an argument that cannot be used. Nothing was sent. It
// does not hold the argument.
type ValidationError struct {
	// Field is the argument: "key", "channel", "limit", …
	Field string
	// Message describes the expected value.
	Message string
}

// Error returns one line.
func (e *ValidationError) Error() string { return "service: " + e.Field + ": " + e.Message }

// Problem returns a 422.
func (e *ValidationError) Problem() problem.Problem {
	return problem.Problem{
		Status:  http.StatusUnprocessableEntity,
		Code:    problem.CodeValidation,
		Message: "The request is not valid",
		Errors:  []problem.FieldError{{Field: e.Field, Message: e.Message}},
	}
}

// ErrCorrupt is the cause of an [*Error] when the stored data is not valid for the
// table, for example a session that is not a JSON object.
var ErrCorrupt = errors.New("stored data is not valid")
