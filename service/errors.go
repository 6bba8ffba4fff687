package service

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/problem"
)

// The tables, Error.Name of a failed operation: FastAPI Madcrow's names for the kinds of data.
const (
	TableCache      = "redis_cache"
	TableSessions   = "redis_sessions"
	TableRateLimits = "redis_rate_limits"
	TablePubSub     = "redis_pubsub"
)

// retryAfter is the Retry-After of responses: the prober tries again after half a
// second at most.
const retryAfter = time.Second

var fail = operr.Maker{Package: "service", Problem: problemOf}

// Failed returns err as the [*madcrow.Error] of a failed operation ("get") on a
// table, for routes that do more than this package; nil stays nil. Its HTTP response
// names both, and shows only the kind of the cause.
func Failed(operation, table string, err error) error { return fail.Wrap(operation, table, err) }

func problemOf(op, table string, err error) problem.Problem {
	p := causeProblem(err)
	p.Operation, p.Table = op, table
	return p
}

func causeProblem(err error) problem.Problem {
	var m *madcrow.Error
	switch {
	case errors.As(err, &m):
		return m.Problem()
	case errors.Is(err, madcrow.ErrUnavailable), errors.Is(err, madcrow.ErrClosed):
		return problem.Problem{Status: http.StatusServiceUnavailable, Code: "REDIS_UNAVAILABLE", Message: "Redis is not available", RetryAfter: retryAfter}
	}
	return problem.Problem{Status: http.StatusInternalServerError, Code: "REDIS_ERROR", Message: "The Redis operation failed"}
}

// ErrCorrupt is the cause of a [*madcrow.Error] when the stored data is not valid for the
// table, for example a session that is not a JSON object.
var ErrCorrupt = errors.New("stored data is not valid")

// invalid returns the error of an argument. Arguments of this package are data of an
// HTTP client, so it is a 422 that names the argument.
func invalid(argument, reason string) error {
	return operr.Unprocessable(argument, fail.Argument("call", "", argument, reason))
}
