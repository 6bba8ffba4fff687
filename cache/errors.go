package cache

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/internal/sealed"
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

// fail makes the errors of this package: a *madcrow.Error for an operation that
// failed, a *madcrow.ArgumentError for a mistake of the program.
var fail = operr.Maker{Package: "cache", Problem: problemOf}

// redisTable is the name that the FastAPI layout has for this kind of data.
const redisTable = "redis_cache"

// problemOf returns 404 for ErrNotFound, 504 for what took too long and 503 for
// the rest; nothing of the cause is shown. A loader's own error that knows its
// problem speaks for itself.
func problemOf(op, _ string, err error) problem.Problem {
	var own problem.Describer
	switch {
	case errors.Is(err, ErrNotFound):
		return problem.Problem{Status: http.StatusNotFound, Code: "NOT_FOUND", Message: "There is no such data"}
	case errors.Is(err, ErrLoadTimeout), errors.Is(err, madcrow.ErrTimeout):
		return problem.Problem{Status: http.StatusGatewayTimeout, Code: "CACHE_TIMEOUT", Message: "Timed out loading the data", Operation: op, Table: redisTable}
	case errors.As(err, &own) && !isRedis(own):
		return own.Problem()
	case errors.Is(err, madcrow.ErrTooLarge):
		return problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "VALUE_TOO_LARGE", Message: "The value is too large"}
	}
	return problem.Problem{Status: http.StatusServiceUnavailable, Code: "CACHE_UNAVAILABLE", Message: "The data is not available at the moment", RetryAfter: time.Second, Operation: op, Table: redisTable}
}

// isRedis says whether Redis itself failed, whose response is that of the cache,
// and not another package whose errors are of the same type.
func isRedis(d problem.Describer) bool {
	e, ok := d.(*madcrow.Error)
	if !ok {
		return false
	}
	_, ofPackage := e.Err.(problem.Describer)
	return !ofPackage
}

// Fail returns err as operations of the cache of that name return it. It is for
// the tests of this module.
func Fail(_ sealed.Key, op, name string, err error) error { return fail.Wrap(op, name, err) }
