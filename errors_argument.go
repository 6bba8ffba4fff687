package madcrow

import (
	"net/http"
	"strconv"

	"github.com/madcrow-go/madcrow/problem"
)

// ArgumentError is a mistake of the program: an argument or an option that
// cannot be used. Nothing was sent to Redis, and the same call will fail again.
// It is the one error of this kind in all packages of this module; find it with
// [errors.As].
//
// It is answered with 500, never with 422: the request of the client may have
// been fine. Where an argument is data of the client (the key of a cache in the
// path, say), only the code at the boundary knows that. It checks the data
// before the call, and answers [problem.Validation]; package service does so for
// its callers.
type ArgumentError struct {
	// Op is the call: "cache.set", "ratelimit.new", "pubsub.publish", …
	Op string
	// Name is the instance: see [Error.Name].
	Name string
	// Argument is the parameter or the option: "key", "Options.TTL", …
	Argument string
	// Reason says what is expected, so that it is also what to do. It does not
	// hold the argument, which may be a secret.
	Reason string
}

// Error returns one line: the call, the argument and what is expected of it.
func (e *ArgumentError) Error() string {
	text := "madcrow: " + e.Op
	if e.Name != "" {
		text += " " + strconv.Quote(e.Name)
	}
	return text + ": argument " + e.Argument + ": " + e.Reason
}

// Problem returns a 500, which says nothing of the argument.
func (e *ArgumentError) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusInternalServerError}
}
