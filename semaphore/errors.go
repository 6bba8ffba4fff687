package semaphore

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/problem"
)

// ErrLeaseLost is the cause of a lease that ended without a Release: it was not
// renewed in time, or Redis lost it.
var ErrLeaseLost error = leaseLost{}

type leaseLost struct{}

func (leaseLost) Error() string { return "the lease was lost" }

// Problem returns a 503.
func (leaseLost) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusServiceUnavailable, Code: "LEASE_LOST", Message: "The request lost its lease", RetryAfter: time.Second}
}

// fail makes the errors of this package.
var fail = operr.Maker{Package: "semaphore", Problem: problemOf}

func (s *Semaphore) failed(op string, err error) error { return fail.Wrap(op, s.name, err) }

// problemOf is a 503, or a 504 for a deadline.
func problemOf(_, _ string, err error) problem.Problem {
	if errors.Is(err, madcrow.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
		return problem.Problem{Status: http.StatusGatewayTimeout, Code: "LIMIT_TIMEOUT", Message: "The concurrency limit could not be decided in time"}
	}
	return problem.Problem{Status: http.StatusServiceUnavailable, Code: "LIMIT_UNAVAILABLE", Message: "The concurrency limit cannot be decided at the moment", RetryAfter: time.Second}
}
