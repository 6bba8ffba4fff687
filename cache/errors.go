package cache

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

var (
	// ErrNotFound is what a loader returns for a value that does not exist:
	// the absence is cached. GetOrLoad returns it then.
	ErrNotFound = errors.New("not found")
	// ErrLoadTimeout is returned when a load took longer than
	// Options.HardTimeout, or was given up at Options.LoadTimeout.
	ErrLoadTimeout = errors.New("the load took too long")
	// ErrLoadFailed is returned, within the backoff after a load that failed,
	// without loading again: in another process its own error is not known.
	ErrLoadFailed = errors.New("the load failed")
	// ErrBusy is returned when Options.MaxLoads loads are running and none
	// ended in time.
	ErrBusy = errors.New("too many loads are running")
	// ErrQueued is returned by Delete, DeleteTag, ExpireTag, Clear and Set when
	// Redis could not be reached: this process no longer serves the old value,
	// and the removal is sent when Redis is back. Others may serve it until
	// then.
	ErrQueued = errors.New("redis is away: the removal is sent when it is back")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the cache is closed")
)

// Error is a failed operation. It wraps its cause: that of Redis, so that
// errors.Is(err, madcrow.ErrUnavailable) and its like work, or that of a
// loader.
type Error struct {
	// Cache is the name given to New.
	Cache string
	// Op is what was tried: "get", "set", "load", …
	Op string
	// Err is the cause; it may name addresses and keys.
	Err error
}

// Error returns one line for logs.
func (e *Error) Error() string { return "cache: " + e.Cache + ": " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// redisTable is the original's name for the kind of data.
const redisTable = "redis_cache"

// Problem returns 404 for ErrNotFound, 504 for what took too long and 503 for
// the rest; nothing of the cause is shown. A loader's own error that knows its
// problem speaks for itself.
func (e *Error) Problem() problem.Problem {
	var own problem.Describer
	switch {
	case errors.Is(e.Err, ErrNotFound):
		return problem.Problem{Status: http.StatusNotFound, Code: "NOT_FOUND", Message: "There is no such data"}
	case errors.Is(e.Err, ErrLoadTimeout), errors.Is(e.Err, madcrow.ErrTimeout):
		return problem.Problem{Status: http.StatusGatewayTimeout, Code: "CACHE_TIMEOUT", Message: "The data could not be had in time", Operation: e.Op, Table: redisTable}
	case errors.As(e.Err, &own) && !isRedis(own):
		return own.Problem()
	case errors.Is(e.Err, madcrow.ErrTooLarge):
		return problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "VALUE_TOO_LARGE", Message: "The value is too large"}
	}
	return problem.Problem{Status: http.StatusServiceUnavailable, Code: "CACHE_UNAVAILABLE", Message: "The data is not available at the moment", RetryAfter: time.Second, Operation: e.Op, Table: redisTable}
}

// isRedis says whether Redis itself failed, whose answer is that of the cache.
func isRedis(d problem.Describer) bool {
	_, ok := d.(*madcrow.Error)
	return ok
}

// ValidationError is an argument that cannot be used. Nothing was sent. It does
// not hold the argument.
type ValidationError struct {
	// Field is the argument or the option: "key", "TTL", …
	Field string
	// Message says what is expected.
	Message string
}

// Error returns one line.
func (e *ValidationError) Error() string { return "cache: " + e.Field + ": " + e.Message }

// Problem returns a 422.
func (e *ValidationError) Problem() problem.Problem {
	return problem.Problem{
		Status:  http.StatusUnprocessableEntity,
		Code:    problem.CodeValidation,
		Message: "The request is not valid",
		Errors:  []problem.FieldError{{Field: e.Field, Message: e.Message}},
	}
}
