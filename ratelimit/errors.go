package ratelimit

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/problem"
)

// ErrNever is returned by Wait for a cost above the limit.
var ErrNever = errors.New("the cost is above the limit")

// ErrTooLate is returned by Wait when the context ends before the request
// would be admitted. Wait returns it at once.
var ErrTooLate = errors.New("the deadline is before the limit admits")

// fail makes the errors of this package. A [*madcrow.Error] means that a limit
// could not be decided; it is never a denial, but for ErrNever and ErrTooLate.
var fail = operr.Maker{Package: "ratelimit", Problem: problemOf}

// problemOf is a 503, or a 504 for a deadline: a limit that cannot be decided is
// never a 429. ErrNever and ErrTooLate are decided, and are one.
func problemOf(_, name string, err error) problem.Problem {
	switch {
	case errors.Is(err, ErrNever):
		return problem.Problem{Type: typeQuota, Title: titleQuota, Status: http.StatusTooManyRequests, Code: "QUOTA_NEVER", Message: messageNever, ViolatedPolicies: []string{name}}
	case errors.Is(err, ErrTooLate):
		return problem.Problem{Type: typeQuota, Title: titleQuota, Status: http.StatusTooManyRequests, Code: "QUOTA_EXCEEDED", Message: messageUsedUp, RetryAfter: time.Second, ViolatedPolicies: []string{name}}
	case errors.Is(err, madcrow.ErrTimeout):
		return problem.Problem{Status: http.StatusGatewayTimeout, Code: "LIMIT_TIMEOUT", Message: "The rate limit could not be decided in time"}
	}
	return problem.Problem{Status: http.StatusServiceUnavailable, Code: "LIMIT_UNAVAILABLE", Message: "The rate limit cannot be decided at the moment", RetryAfter: time.Second}
}
