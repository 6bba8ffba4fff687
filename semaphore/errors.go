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

// ErrBusy says that all leases of the subject are taken: of [Semaphore.Acquire] when
// its time to wait is over, and of [Decision.Err].
var ErrBusy = errors.New("all leases are taken")

var errNoDecision = errors.New("semaphore: no semaphore has made this decision")

// busy is ErrBusy with its response; ended is the end of the wait, or nil.
type busy struct {
	ended  error
	status int
	after  time.Duration
}

func (s *Semaphore) busy(d Decision, ended error) error {
	return &busy{ended: ended, status: s.opt.DeniedStatus, after: s.comeBack(d)}
}

func (b *busy) Error() string { return ErrBusy.Error() }

func (b *busy) Unwrap() []error {
	if b.ended == nil {
		return []error{ErrBusy}
	}
	return []error{ErrBusy, b.ended}
}

type leaseLost struct{}

func (leaseLost) Error() string { return "the lease was lost" }

// Problem returns a 503.
func (leaseLost) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusServiceUnavailable, Code: "LEASE_LOST", Message: "The request lost its lease", RetryAfter: time.Second}
}

// fail makes the errors of this package.
var fail = operr.Maker{Package: "semaphore", Problem: problemOf}

func (s *Semaphore) failed(op string, err error) error { return fail.Wrap(op, s.name, err) }

// problemOf is a 503, or a 504 for a deadline; where all leases are taken, it is the
// status that the options name.
func problemOf(_, _ string, err error) problem.Problem {
	if b := (*busy)(nil); errors.As(err, &b) {
		return problem.Problem{Status: b.status, Code: "SEMAPHORE_BUSY", Message: "Too many requests at the same time", RetryAfter: b.after}
	}
	if lost := (leaseLost{}); errors.Is(err, ErrLeaseLost) {
		return lost.Problem()
	}
	if errors.Is(err, madcrow.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
		return problem.Problem{Status: http.StatusGatewayTimeout, Code: "LIMIT_TIMEOUT", Message: "The concurrency limit could not be decided in time"}
	}
	return problem.Problem{Status: http.StatusServiceUnavailable, Code: "LIMIT_UNAVAILABLE", Message: "The concurrency limit cannot be decided at the moment", RetryAfter: time.Second}
}
