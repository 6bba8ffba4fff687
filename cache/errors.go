package cache

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/internal/sealed"
	"github.com/madcrow-go/madcrow/problem"
)

var (
	// ErrNotFound is what a loader returns for a value that does not exist: the
	// absence is cached. GetOrLoad, GetOrLoadWith and Load return it then, and when
	// it is cached. Methods without a loader say by found that there is none,
	// without an error.
	ErrNotFound = errors.New("not found")
	// ErrLoadTimeout is returned when a load took longer than
	// Options.HardTimeout, or was given up at Options.LoadTimeout.
	ErrLoadTimeout = errors.New("the load took too long")
	// ErrLoadFailed is returned, without loading again, within the backoff after a
	// load that failed in another process: its own error is not known here.
	ErrLoadFailed = errors.New("the load failed")
	// ErrBusy is returned when Options.MaxLoads loads are running and none ended
	// within Options.HardTimeout.
	ErrBusy = errors.New("too many loads are running")
	// ErrQueued is returned by Delete, DeleteTag, ExpireTag, Clear and Set when
	// Redis could not be reached: this process no longer serves the old value,
	// and the removal is sent when Redis is back. Others may serve it until
	// then.
	ErrQueued = errors.New("redis is away: the removal is sent when it is back")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the cache is closed")
)

// fail makes the errors of this package: a *madcrow.Error for an operation that
// failed, a *madcrow.ArgumentError for a mistake of the program.
var fail = operr.Maker{Package: "cache", Problem: problemOf}

// loadError is the error, or the panic, of a loader: the application's own.
type loadError struct{ err error }

func (e *loadError) Error() string { return e.err.Error() }

func (e *loadError) Unwrap() error { return e.err }

// problemOf returns 404 for ErrNotFound, 504 for what took too long, 503 where
// Redis or the cache itself cannot serve, and 500 for all that is the program's:
// nothing of that is shown. The error of a loader that knows its problem speaks for
// itself.
func problemOf(_, _ string, err error) problem.Problem {
	var own problem.Describer
	switch {
	case errors.Is(err, ErrNotFound):
		return problem.Problem{Status: http.StatusNotFound, Code: "NOT_FOUND", Message: "There is no such data"}
	case errors.Is(err, ErrLoadTimeout):
		return problem.Problem{Status: http.StatusGatewayTimeout, Code: "LOAD_TIMEOUT", Message: "Timed out loading the data"}
	case isLoadError(err):
		if errors.As(err, &own) {
			return own.Problem()
		}
		return problem.Problem{Status: http.StatusInternalServerError, Code: "LOAD_FAILED", Message: "The data could not be loaded"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, madcrow.ErrTimeout):
		return problem.Problem{Status: http.StatusGatewayTimeout, Code: "CACHE_TIMEOUT", Message: "Timed out waiting for the data"}
	case errors.Is(err, madcrow.ErrTooLarge):
		return problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "VALUE_TOO_LARGE", Message: "The value is too large"}
	case isOfTheCache(err):
		return problem.Problem{Status: http.StatusServiceUnavailable, Code: "CACHE_UNAVAILABLE", Message: "The data is not available at the moment", RetryAfter: time.Second}
	}
	return problem.Problem{Status: http.StatusInternalServerError}
}

// ofLoader is err as that of a loader. That there is no value is no failure.
func ofLoader(err error) error {
	if err == nil || errors.Is(err, ErrNotFound) {
		return err
	}
	return &loadError{err}
}

func isOfLoader(err error) bool {
	var e *loadError
	return errors.As(err, &e)
}

// isLoadError says whether a loader failed, here or in another process.
func isLoadError(err error) bool { return isOfLoader(err) || errors.Is(err, ErrLoadFailed) }

// isOfTheCache says whether Redis or the cache could not serve, or the caller has
// left.
func isOfTheCache(err error) bool {
	var ofRedis *madcrow.Error
	return errors.As(err, &ofRedis) || errors.Is(err, ErrBusy) || errors.Is(err, ErrClosed) ||
		errors.Is(err, ErrQueued) || errors.Is(err, context.Canceled)
}

// failed is err as it leaves an operation. The kind of a loader's error is none,
// also where that error is one of Redis: it was not the cache's Redis that failed.
func failed(op, name string, err error) error {
	if isLoadError(err) {
		return fail.WrapForeign(op, name, err)
	}
	return fail.Wrap(op, name, err)
}

// Fail returns err as operations of the cache of that name return it. It is for
// the tests of this module.
func Fail(_ sealed.Key, op, name string, err error) error { return failed(op, name, err) }
