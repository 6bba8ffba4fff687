package stream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/problem"
)

// Errors of this package, found with errors.Is in a [*madcrow.Error].
var (
	// ErrNoGroup says that the stream has no such group of workers.
	ErrNoGroup = errors.New("the stream has no such group")
	// ErrMalformed is the reason of a message that cannot be decoded.
	ErrMalformed = errors.New("the message cannot be decoded")
	// ErrTooManyDelayed says that Options.MaxDelayed messages wait already.
	ErrTooManyDelayed = errors.New("too many delayed messages wait")
	// ErrQueued is returned by Publish when Redis is away and the message waits in
	// the outbox.
	ErrQueued = errors.New("redis is away: the message is sent when it is back")
	// ErrOutboxFull is returned by Publish when the outbox takes no more.
	ErrOutboxFull = errors.New("the outbox is full")
	// ErrTooOld is a server that does not know the commands that streams need.
	ErrTooOld = errors.New("the server is too old")
	// ErrClosed is returned after [Stream.Close], by [Stream.Work] and by Publish with
	// an outbox.
	ErrClosed = errors.New("the stream is closed")
)

var errReply = errors.New("unexpected reply")

var fail = operr.Maker{Package: "stream", Problem: problemOf}

// problemOf returns a 503, or a 504 for a deadline; a 413 for a message that is
// too large, and a 404 for a group that does not exist.
func problemOf(_, _ string, err error) problem.Problem {
	switch {
	case errors.Is(err, madcrow.ErrTooLarge):
		return problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "VALUE_TOO_LARGE", Message: "The message is too large"}
	case errors.Is(err, ErrNoGroup):
		return problem.Problem{Status: http.StatusNotFound, Code: "GROUP_NOT_FOUND", Message: "There is no such group of workers"}
	case errors.Is(err, ErrTooOld):
		return problem.Problem{Status: http.StatusInternalServerError, Code: "REDIS_TOO_OLD", Message: "The Redis server is too old for this"}
	}
	p := problem.Problem{Status: http.StatusServiceUnavailable, Code: "MESSAGES_UNAVAILABLE", Message: "Messages cannot be sent or received at the moment", RetryAfter: time.Second}
	if errors.Is(err, madcrow.ErrTimeout) {
		p.Status, p.Code, p.RetryAfter = http.StatusGatewayTimeout, "MESSAGES_TIMEOUT", 0
	}
	return p
}

// permanent says that waiting does not mend an error.
func permanent(err error) bool { return operr.Permanent(err) || errors.Is(err, ErrTooOld) }

// nameTooOld gives the error of a server without the needed commands its name.
func nameTooOld(err error) error {
	var e *madcrow.Error
	if errors.As(err, &e) && e.Kind == madcrow.KindServer && strings.Contains(err.Error(), "syntax error") {
		return fmt.Errorf("%w: streams need Redis 6.2 or later: %w", ErrTooOld, err)
	}
	return err
}

// isNoKey recognises the error of a stream that does not exist.
func isNoKey(err error) bool { return err != nil && strings.Contains(err.Error(), "no such key") }

// isNoGroup recognises the error of a group that does not exist.
func isNoGroup(err error) bool { return err != nil && strings.Contains(err.Error(), "NOGROUP") }
