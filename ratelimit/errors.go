package ratelimit

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

// ErrNever is returned by Wait for a cost above the limit.
var ErrNever = errors.New("the cost is above the limit")

// ErrTooLate is returned by Wait when the context ends before the request
// would be admitted. Wait returns it at once.
var ErrTooLate = errors.New("the deadline is before the limit admits")

// Error means that a limit could not be decided. It wraps the error of package
// madcrow, so errors.Is(err, madcrow.ErrUnavailable) and its like work. It is
// never a denial, but for the ErrNever and ErrTooLate of Wait.
type Error struct {
	// Policy is the name of the limit.
	Policy string
	// Op is the operation: "allow", "peek", "reset", …
	Op string
	// Err is the cause; it may name addresses and keys.
	Err error
}

// Error returns one line for logs.
func (e *Error) Error() string { return "ratelimit: " + e.Policy + ": " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Problem returns a 503, or a 504 for a deadline: a limit that cannot be
// decided is never a 429. ErrNever and ErrTooLate are decided, and are one.
func (e *Error) Problem() problem.Problem {
	switch {
	case errors.Is(e.Err, ErrNever):
		return problem.Problem{Type: typeQuota, Title: titleQuota, Status: http.StatusTooManyRequests, Code: "QUOTA_NEVER", Message: messageNever, ViolatedPolicies: []string{e.Policy}}
	case errors.Is(e.Err, ErrTooLate):
		return problem.Problem{Type: typeQuota, Title: titleQuota, Status: http.StatusTooManyRequests, Code: "QUOTA_EXCEEDED", Message: messageUsedUp, RetryAfter: time.Second, ViolatedPolicies: []string{e.Policy}}
	}
	if errors.Is(e.Err, madcrow.ErrTimeout) {
		return problem.Problem{Status: http.StatusGatewayTimeout, Code: "LIMIT_TIMEOUT", Message: "The rate limit could not be decided in time", Operation: e.Op, Table: redisTable}
	}
	return problem.Problem{Status: http.StatusServiceUnavailable, Code: "LIMIT_UNAVAILABLE", Message: "The rate limit cannot be decided at the moment", RetryAfter: time.Second, Operation: e.Op, Table: redisTable}
}

// redisTable is the name of FastAPI Madcrow for this kind of data.
const redisTable = "redis_rate_limits"

// ValidationError is an argument that cannot be used. Nothing was sent. It
// does not hold the argument.
type ValidationError struct {
	// Field is the argument: "name", "rate", "cost", …
	Field string
	// Message says what is expected.
	Message string
}

// Error returns one line.
func (e *ValidationError) Error() string { return "ratelimit: " + e.Field + ": " + e.Message }

// Problem returns a 422.
func (e *ValidationError) Problem() problem.Problem {
	return problem.Problem{
		Status:  http.StatusUnprocessableEntity,
		Code:    problem.CodeValidation,
		Message: "The request is not valid",
		Errors:  []problem.FieldError{{Field: e.Field, Message: e.Message}},
	}
}
