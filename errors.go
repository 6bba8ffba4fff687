package madcrow

import (
	"errors"
	"strings"
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

var kindNames = [...]string{
	KindUnavailable: "unavailable", KindTimeout: "timeout", KindCanceled: "canceled",
	KindReadOnly: "read-only", KindOutOfMemory: "out of memory", KindAuth: "authentication failed",
	KindPermission: "permission denied", KindLoading: "loading", KindBusy: "busy",
	KindConflict: "conflict", KindWrongType: "wrong type", KindTooLarge: "too large",
	KindConfig: "configuration", KindServer: "server error",
}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "unknown"
}

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
	ErrUnavailable = errors.New("redis is unavailable")
	ErrTimeout     = errors.New("deadline passed")
	ErrCanceled    = errors.New("canceled by the caller")
	ErrReadOnly    = errors.New("redis takes no writes")
	ErrOutOfMemory = errors.New("redis is out of memory")
	ErrAuth        = errors.New("authentication failed")
	ErrPermission  = errors.New("permission denied")
	ErrLoading     = errors.New("redis is loading its data set")
	ErrBusy        = errors.New("redis is running a script")
	ErrConflict    = errors.New("a watched key changed")
	ErrWrongType   = errors.New("the key holds another type")
	ErrTooLarge    = errors.New("value is too large")
	ErrConfig      = errors.New("configuration is wrong")
	ErrServer      = errors.New("redis returned an error")
	// ErrQuota is also ErrUnavailable: Redis answers, and refuses all calls.
	ErrQuota = errors.New("the quota of requests is used up")
	// ErrNoScripts is also ErrServer or ErrPermission. Limits, sessions, caches
	// and numbered messages need scripts.
	ErrNoScripts = errors.New("the server runs no Lua scripts for this user: start it with scripts (Garnet: --lua), or grant the user EVAL and EVALSHA")
	// ErrClosed is returned after Close; it is also ErrUnavailable.
	ErrClosed = errors.New("client is closed")
)

var kindSentinels = [...]error{
	KindUnavailable: ErrUnavailable, KindTimeout: ErrTimeout, KindCanceled: ErrCanceled,
	KindReadOnly: ErrReadOnly, KindOutOfMemory: ErrOutOfMemory, KindAuth: ErrAuth,
	KindPermission: ErrPermission, KindLoading: ErrLoading, KindBusy: ErrBusy,
	KindConflict: ErrConflict, KindWrongType: ErrWrongType, KindTooLarge: ErrTooLarge,
	KindConfig: ErrConfig, KindServer: ErrServer,
}

// Error is every error that this package returns, but for what the caller's
// own functions return.
type Error struct {
	// Op is what was tried: a command's name ("GET"), or "open", "tx", …
	Op string
	// Kind says what went wrong.
	Kind Kind
	// Outcome says whether anything was changed.
	Outcome Outcome
	// Err is the cause. It may name addresses and keys: for logs, not for
	// strangers. It never holds a password.
	Err error

	permanent bool // of a connection: it will not mend by itself
	later     bool // of a script or a transaction: refused whole, perhaps only for a moment
}

// Error returns one line: what was tried, what went wrong and why.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("madcrow: ")
	b.WriteString(e.Op)
	b.WriteString(": ")
	b.WriteString(e.Kind.String())
	if e.Outcome == OutcomeUnknown {
		b.WriteString(" (outcome unknown)")
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches the sentinel errors of this package.
func (e *Error) Is(target error) bool {
	if int(e.Kind) < len(kindSentinels) && kindSentinels[e.Kind] == target && target != nil {
		return true
	}
	return target == ErrUnavailable && (e.Kind == KindAuth || e.Kind == KindLoading || e.permanent)
}
