// Package fault knows what failed: the errors of the engine, what kind they are,
// whether anything was applied, and what an error reply of a server means. The
// root package makes its public errors of them.
package fault

import (
	"errors"
	"strings"

	"github.com/madcrow-go/madcrow/internal/logonce"
)

// Kind says what went wrong. The zero value is no kind. The kinds are those of the
// root package, in the same order.
type Kind uint8

// The kinds of an [Error].
const (
	_ Kind = iota
	KindUnavailable
	KindTimeout
	KindCanceled
	KindReadOnly
	KindOutOfMemory
	KindAuth
	KindPermission
	KindLoading
	KindBusy
	KindConflict
	KindWrongType
	KindTooLarge
	KindConfig
	KindServer
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
	return "none"
}

// Outcome says whether a failed call changed anything in Redis. The outcomes
// are those of the root package, in the same order.
type Outcome uint8

// The outcomes of a failed call.
const (
	OutcomeUnknown Outcome = iota
	OutcomeNotApplied
	OutcomeApplied
)

// Sentinel errors: the root package has them under the same names, and says
// there what they mean.
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
	ErrQuota       = errors.New("the quota of requests is used up")
	ErrNoScripts   = errors.New("the server runs no Lua scripts for this user: start it with scripts (Garnet: --lua), or grant the user EVAL and EVALSHA")
	ErrSlotMoving  = errors.New("the slot is being moved to another node")
	ErrClosed      = errors.New("client is closed")
)

var kindSentinels = [...]error{
	KindUnavailable: ErrUnavailable,
	KindTimeout:     ErrTimeout,
	KindCanceled:    ErrCanceled,
	KindReadOnly:    ErrReadOnly,
	KindOutOfMemory: ErrOutOfMemory,
	KindAuth:        ErrAuth,
	KindPermission:  ErrPermission,
	KindLoading:     ErrLoading,
	KindBusy:        ErrBusy,
	KindConflict:    ErrConflict,
	KindWrongType:   ErrWrongType,
	KindTooLarge:    ErrTooLarge,
	KindConfig:      ErrConfig,
	KindServer:      ErrServer,
}

// Error is a failed call, or a server that cannot serve, as the engine
// knows it. The root package makes its public error of it.
type Error struct {
	Op      string
	Kind    Kind
	Outcome Outcome
	Err     error

	Permanent bool // of a connection: it will not mend by itself
	Later     bool // of a script or a transaction: refused whole, perhaps only for a moment
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

// Is matches the sentinel errors.
func (e *Error) Is(target error) bool { return IsKind(e.Kind, e.Permanent, target) }

// IsKind says whether an error of a kind is the sentinel error target. What keeps
// a connection from being made is unavailable too.
func IsKind(k Kind, permanent bool, target error) bool {
	if int(k) < len(kindSentinels) && kindSentinels[k] == target && target != nil {
		return true
	}
	return target == ErrUnavailable && (k == KindAuth || k == KindLoading || permanent)
}

// For returns the error with the name of the command: many calls share it.
func (e *Error) For(op string) *Error {
	named := *e
	named.Op = op
	return &named
}

// NotSent is an error of a call that was not sent.
func NotSent(op string, kind Kind, err error) *Error {
	return &Error{Op: op, Kind: kind, Outcome: OutcomeNotApplied, Err: err}
}

// SameText says whether two errors read the same, numbers aside.
func SameText(a, b error) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Error() == b.Error() || logonce.Text(a) == logonce.Text(b)
}
