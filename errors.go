package madcrow

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/topology"
)

// Kind says what went wrong. The zero value is no kind.
type Kind uint8

// The kinds of [Error].
const (
	_               Kind = iota
	KindUnavailable      // no usable connection, or Redis said that it cannot serve now
	KindTimeout          // the deadline passed
	KindCanceled         // the caller gave up
	KindReadOnly         // the node takes no writes
	KindOutOfMemory      // Redis is full
	KindAuth             // wrong or missing password
	KindPermission       // the user may not run the command, or not on this key
	KindLoading          // Redis is reading its data set
	KindBusy             // Redis is running a script
	KindConflict         // a watched key changed, in every try
	KindWrongType        // the key holds another type
	KindTooLarge         // beyond Config.MaxValueSize
	KindConfig           // the configuration is wrong
	KindServer           // any other error that Redis returned
)

// String returns the kind in words.
func (k Kind) String() string { return fault.Kind(k).String() }

// Outcome says whether a failed call changed anything in Redis.
type Outcome uint8

// The outcomes of a failed call.
const (
	// OutcomeUnknown: the command was sent and no reply came. A write may or
	// may not have happened.
	OutcomeUnknown Outcome = iota
	// OutcomeNotApplied: nothing was changed; the call may be repeated.
	OutcomeNotApplied
	// OutcomeApplied: the change was made, what failed came after it.
	OutcomeApplied
)

// String returns the outcome in words.
func (o Outcome) String() string {
	switch o {
	case OutcomeNotApplied:
		return "not applied"
	case OutcomeApplied:
		return "applied"
	}
	return "unknown"
}

// Sentinel errors, for errors.Is. An authentication failure, a loading Redis,
// and whatever keeps a connection from being made are also ErrUnavailable.
var (
	ErrUnavailable = fault.ErrUnavailable
	ErrTimeout     = fault.ErrTimeout
	ErrCanceled    = fault.ErrCanceled
	ErrReadOnly    = fault.ErrReadOnly
	ErrOutOfMemory = fault.ErrOutOfMemory
	ErrAuth        = fault.ErrAuth
	ErrPermission  = fault.ErrPermission
	ErrLoading     = fault.ErrLoading
	ErrBusy        = fault.ErrBusy
	ErrConflict    = fault.ErrConflict
	ErrWrongType   = fault.ErrWrongType
	ErrTooLarge    = fault.ErrTooLarge
	ErrConfig      = fault.ErrConfig
	ErrServer      = fault.ErrServer
	// ErrQuota is also ErrUnavailable: Redis answers, and refuses all calls.
	ErrQuota = fault.ErrQuota
	// ErrNoScripts is also ErrServer or ErrPermission. Limits, sessions, caches
	// and numbered messages need scripts.
	ErrNoScripts = fault.ErrNoScripts
	// ErrClosed is returned after Close; it is also ErrUnavailable.
	ErrClosed = fault.ErrClosed
)

// Error is every error that this package, and the packages built on it, return
// for a failed operation. Errors of the caller's own functions come as they are,
// or as the cause of an Error.
//
// Three questions have an answer here, whatever went wrong: what kind of failure
// it was (Kind, or errors.Is with a sentinel), whether Redis was changed
// (Outcome, [Error.NotSent]), and whether to try again ([Error.Retryable]).
type Error struct {
	// Op is what was tried: a command's name ("GET"), "open", "tx", …; in a
	// package built on this one, that package and its operation: "cache.get".
	Op string
	// Name is the instance that failed: the name of the cache, of the limiter or
	// of the session manager, the topic or the stream. It is empty for a call of
	// [Redis] itself.
	Name string
	// Kind says what went wrong. It is 0 where Redis did not fail, as for a
	// loader's error; Err then says all.
	Kind Kind
	// Outcome says whether anything was changed.
	Outcome Outcome
	// Err is the cause. It may name addresses and keys: for logs, not for
	// strangers. It never holds a password.
	Err error

	permanent bool // of a connection: it will not mend by itself
}

// Error returns one line: what was tried, what went wrong and why.
func (e *Error) Error() string { return "madcrow: " + e.text() }

// text is Error without the name of this package. An Error inside an Error has
// the same kind and the same outcome: they are said once, by the inner one.
func (e *Error) text() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Name != "" {
		b.WriteByte(' ')
		b.WriteString(strconv.Quote(e.Name))
	}
	if inner, ok := e.inner(); ok {
		b.WriteString(": ")
		b.WriteString(inner.text())
		return b.String()
	}
	if e.Kind != 0 {
		b.WriteString(": ")
		b.WriteString(e.Kind.String())
		if e.Outcome == OutcomeUnknown {
			b.WriteString(" (outcome unknown)")
		}
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// inner returns the Error that this one hands on, with another Op and Name.
func (e *Error) inner() (*Error, bool) {
	err := e.Err
	if r, ok := err.(interface{ Transparent() error }); ok {
		err = r.Transparent()
	}
	inner, ok := err.(*Error) //nolint:errorlint // one inside of another text must not lose that text
	return inner, ok && inner.Kind == e.Kind && inner.Outcome == e.Outcome
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches the sentinel errors of this package.
func (e *Error) Is(target error) bool { return fault.IsKind(fault.Kind(e.Kind), e.permanent, target) }

// publicError makes the public error of an error of the engine; nil stays nil.
// It is called where a call returns, and allocates for a failure alone.
func publicError(e *fault.Error) *Error {
	if e == nil {
		return nil
	}
	return &Error{Op: e.Op, Kind: Kind(e.Kind), Outcome: Outcome(e.Outcome), Err: e.Err, permanent: e.Permanent}
}

// NotSent reports that Redis was surely not changed: the call was not sent, or
// Redis refused it whole. The contrary is not that it was changed: see
// [Outcome].
func (e *Error) NotSent() bool { return e.Outcome == OutcomeNotApplied }

// Temporary reports that the reason may pass without anybody changing the
// program or its arguments: Redis is away, loading, busy, failing over, or was
// too slow. It says nothing of whether the call was applied; so it is the
// question for an operation that may run twice, such as a removal. It is false
// after Close, and for a Redis that is full.
func (e *Error) Temporary() bool {
	if errors.Is(e, ErrClosed) {
		return false
	}
	switch e.Kind {
	case KindUnavailable, KindTimeout, KindCanceled, KindReadOnly, KindLoading, KindBusy, KindAuth:
		return true
	}
	return errors.Is(e, ErrUnavailable)
}

// Retryable reports that the same call may be sent again, now or a little later:
// nothing was applied ([Error.NotSent]) and the reason may pass
// ([Error.Temporary]). It is false where the caller gave up.
func (e *Error) Retryable() bool {
	return e.NotSent() && e.Kind != KindCanceled && !errors.Is(e, context.Canceled) && e.Temporary()
}

// Errors of looking for the master. Both are also ErrUnavailable.
var (
	// ErrNoSentinel: none of the Sentinels answered.
	ErrNoSentinel = topology.ErrNoSentinel
	// ErrUnknownMaster: Sentinels answered, but know no master of that name.
	ErrUnknownMaster = topology.ErrUnknownMaster
)
