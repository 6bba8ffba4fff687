package semaphore

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow/problem"
)

// MiddlewareOptions configure a [Middleware]. The zero value refuses a request at
// once when all leases are taken.
type MiddlewareOptions struct {
	// MaxWait is how long a request may wait for a lease. Defaults to 0: it does not
	// wait.
	MaxWait time.Duration
	// Logger is for refused requests, each with its error_id. Defaults to the logger
	// of the semaphore.
	Logger *slog.Logger
}

// All is the subject of all requests together, for [Middleware]: so many at a time
// in all.
func All(*http.Request) (string, error) { return "all", nil }

// Middleware lets a request pass while it holds a lease of s. by says whose lease it
// is: [All], or for so many of each client, ratelimit.ByClient(clients).Subject.
//
//	busy := semaphore.Middleware(exports, semaphore.All, semaphore.MiddlewareOptions{MaxWait: time.Second})
//	mux.Handle("POST /exports", busy(export))
//
// The context of the request ends with the lease, too: context.Cause is then
// [ErrLeaseLost]. The lease is released when next returns. A refused request gets a
// problem document (package problem):
//
//	429 or 503 SEMAPHORE_BUSY   all leases are taken: [Options].DeniedStatus
//	503 LIMIT_UNAVAILABLE, 504 LIMIT_TIMEOUT
//	                            not decided, under madcrow.FailClosed
//	400 KEY_MISSING             by returned ""
//
// An error of by is answered with its problem. Middleware panics if s or by is nil.
func Middleware(s *Semaphore, by func(*http.Request) (string, error), o MiddlewareOptions) func(next http.Handler) http.Handler {
	if s == nil || by == nil {
		panic("semaphore: Middleware needs a semaphore, and says by whom it counts, such as semaphore.All")
	}
	if o.Logger == nil {
		o.Logger = s.opt.Logger
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			lease, err := s.admit(r, by, o.MaxWait)
			if err != nil {
				problem.Write(w, r, o.Logger, err)
				return
			}
			defer lease.releaseAnyway(r.Context())
			inner := r.WithContext(lease.Context())
			next.ServeHTTP(w, inner)
			// A mux inside sets the pattern in the copy; logs outside read it here.
			r.Pattern = inner.Pattern
		})
	}
}

// admit acquires the lease of a request. An error is the response.
func (s *Semaphore) admit(r *http.Request, by func(*http.Request) (string, error), wait time.Duration) (*Lease, error) {
	subject, err := by(r)
	if err != nil {
		return nil, err
	}
	if subject == "" {
		return nil, errNoKey
	}
	if wait > 0 {
		return s.Acquire(r.Context(), subject, MaxWait(wait))
	}
	lease, d, err := s.TryAcquire(r.Context(), subject)
	if err == nil && lease == nil {
		err = d.Err()
	}
	return lease, err
}

var errNoKey = problem.New(http.StatusBadRequest, "KEY_MISSING", "Missing key of the concurrency limit")
