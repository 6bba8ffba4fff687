package pubsub

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
	// ErrQueued is returned by Publish when Redis is away and the message waits
	// in the outbox.
	ErrQueued = errors.New("redis is away: the message is sent when it is back")
	// ErrOutboxFull is returned by Publish when the outbox takes no more.
	ErrOutboxFull = errors.New("the outbox is full")
	// ErrHistoryLost says that messages after a position are not kept any more.
	// Read again what the messages are about, and go on from the position of the
	// next event.
	ErrHistoryLost = errors.New("the history does not go back so far")
	// ErrSlow ends a subscription of the rule [Disconnect].
	ErrSlow = errors.New("the subscriber is too slow")
	// ErrMalformed is a message that cannot be decoded. The subscription goes
	// on after it.
	ErrMalformed = errors.New("the message cannot be decoded")
	// ErrTooOld is a server that does not know the commands that are needed; the
	// text says for what, and which version has them.
	ErrTooOld = errors.New("the server is too old")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the bus is closed")
)

var errReply = errors.New("unexpected reply")

var fail = operr.Maker{Package: "pubsub", Problem: problemOf}

// problemOf returns a 503, or a 504 for a deadline, and a 413 for a message that
// is too large.
func problemOf(_, _ string, err error) problem.Problem {
	switch {
	case errors.Is(err, madcrow.ErrTooLarge):
		return problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "VALUE_TOO_LARGE", Message: "The message is too large"}
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

// nameNoSharded gives the error of a server without sharded channels its name.
func nameNoSharded(err error) error {
	if err != nil && strings.Contains(err.Error(), "unknown command") {
		return fmt.Errorf("%w: sharded channels need Redis 7.0 or later: %w", ErrTooOld, err)
	}
	return err
}
