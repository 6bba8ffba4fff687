package madcrow

import (
	"errors"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow/problem"
)

// retryAfter is what responses about an unavailable Redis tell clients to wait: the
// connection is probed at most every half second.
const retryAfter = time.Second

// Problem returns the HTTP answer for a caller of a handler in which the
// operation failed: 503 with Retry-After where Redis cannot serve now, 504 for
// a deadline, 409 for a conflict or another kind of data, 413 for what is too
// large, and 500 for the rest. Nothing in it comes from the cause.
//
// A cause of another package that is a [problem.Describer] speaks for itself: so
// each package built on this one has its own codes and texts.
func (e *Error) Problem() problem.Problem {
	if own, ok := e.Err.(problem.Describer); ok {
		return own.Problem()
	}
	if (e.Kind == KindPermission || e.Kind == KindConfig) && errors.Is(e, ErrUnavailable) {
		return unavailable("REDIS_UNAVAILABLE", "Redis is not available") // denied already at connecting, or the wrong server
	}
	switch e.Kind {
	case KindUnavailable, KindAuth, KindCanceled:
		return unavailable("REDIS_UNAVAILABLE", "Redis is not available")
	case KindLoading:
		return unavailable("REDIS_LOADING", "Redis is starting")
	case KindBusy:
		return unavailable("REDIS_BUSY", "Redis is busy")
	case KindReadOnly:
		return unavailable("REDIS_READ_ONLY", "Redis takes no writes at the moment")
	case KindOutOfMemory:
		return unavailable("REDIS_OUT_OF_MEMORY", "Redis has no memory left")
	case KindTimeout:
		return problem.Problem{Status: http.StatusGatewayTimeout, Code: "REDIS_TIMEOUT", Message: "Redis did not answer in time"}
	case KindTooLarge:
		// 413, not 422: the members are well formed, and a smaller value of
		// the same form would do.
		return problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "VALUE_TOO_LARGE", Message: "The value is too large"}
	case KindWrongType:
		// 409, not 500: the server is well, and the same request succeeds
		// once the key is free.
		return problem.Problem{Status: http.StatusConflict, Code: "REDIS_WRONG_TYPE", Message: "The key holds data of another kind"}
	case KindConflict:
		return problem.Problem{Status: http.StatusConflict, Code: "REDIS_CONFLICT", Message: "The data was changed at the same time"}
	}
	return problem.Problem{Status: http.StatusInternalServerError, Code: "REDIS_ERROR", Message: "The Redis operation failed"}
}

func unavailable(code, message string) problem.Problem {
	return problem.Problem{Status: http.StatusServiceUnavailable, Code: code, Message: message, RetryAfter: retryAfter}
}
