package fault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/redis/rueidis"
)

var (
	ErrNotConnected = errors.New("not connected yet")
	// ErrNotOpen is a call on a connection that is not open. Nothing was sent.
	ErrNotOpen          = errors.New("connection is not open")
	ErrPlainText        = errors.New("the server answered in plain text")
	ErrSilent           = errors.New("no answer in time")
	ErrMoved            = errors.New("the master has moved")
	ErrCallerLeft       = errors.New("the caller has left")
	ErrTooManyRedirects = errors.New("the cluster redirected the call too often")
	ErrUncovered        = errors.New("no node of the cluster serves this slot")
	ErrFull             = errors.New("too many calls are waiting for an answer")
	ErrDedicatedBusy    = errors.New("all connections for transactions and large values are in use")
)

// ContextKind distinguishes a caller that gave up from a deadline that passed.
func ContextKind(err error) Kind {
	if errors.Is(err, context.Canceled) {
		return KindCanceled
	}
	return KindTimeout
}

// Waited keeps the reason of a wait in the error of a call that waited in vain.
func Waited(err error, cause *Error) error {
	if cause == nil {
		return fmt.Errorf("%w while connecting", err)
	}
	return fmt.Errorf("%w while reconnecting after: %w", err, cause.Err)
}

// replyKinds are the error codes of Redis that mean something to us: what kind
// they are, and whether the same command may succeed a moment later. All of
// them are refusals: nothing was applied. Source: the error codes in Redis'
// server.c (shared objects) and cluster.c.
var replyKinds = map[string]struct {
	kind    Kind
	passing bool
}{
	"LOADING":     {KindLoading, true},
	"MASTERDOWN":  {KindUnavailable, true},
	"CLUSTERDOWN": {KindUnavailable, true},
	"TRYAGAIN":    {KindUnavailable, true},
	"BUSY":        {KindBusy, true},
	"MOVED":       {KindUnavailable, false},
	"ASK":         {KindUnavailable, true},
	"READONLY":    {KindReadOnly, false},
	"NOREPLICAS":  {KindReadOnly, true},
	"MISCONF":     {KindReadOnly, false},
	"OOM":         {KindOutOfMemory, false},
	"NOAUTH":      {KindAuth, false},
	"WRONGPASS":   {KindAuth, false},
	"NOPERM":      {KindPermission, false},
	"DENIED":      {KindUnavailable, false},
	"WRONGTYPE":   {KindWrongType, false},
	"EXECABORT":   {KindServer, false},
	"NOSCRIPT":    {KindServer, false},
}

// plainTexts are refusals that come without a code of their own, by how they
// begin after the ERR that rueidis takes off.
var plainTexts = []struct {
	text    string
	kind    Kind
	passing bool
}{
	{"max number of clients", KindUnavailable, true},
	{"max concurrent connections exceeded", KindUnavailable, true}, // Upstash
	{"DB capacity quota exceeded", KindOutOfMemory, false},         // Upstash
	{"max request size exceeded", KindTooLarge, false},             // Upstash
	{"max single record size exceeded", KindTooLarge, false},       // Upstash
	{"max key size exceeded", KindTooLarge, false},                 // Upstash
	{"Out of memory", KindOutOfMemory, false},                      // Dragonfly
	{"Can not execute during LOADING", KindLoading, true},          // Dragonfly
	// What a command inside a script may not do: Redis 6.0 and 7.0, later ones.
	{"The user executing the script ", KindPermission, false},
	{"ACL failure in script: ", KindPermission, false},
	{"Script attempted to execute a command while the cluster is down", KindUnavailable, true},
	{"Script attempted to execute a write command while the cluster is down", KindUnavailable, true},
}

// outOfQuota recognises that a provider's quota of requests is used up. Upstash
// says "ERR max requests limit exceeded", and earlier "ERR max daily request
// limit exceeded", with figures after it.
func outOfQuota(text string) bool {
	return strings.HasPrefix(text, "max ") && strings.Contains(text, " limit exceeded")
}

// RefusesConnection says whether a server answers that it takes no connection
// now, whatever is asked on it.
func RefusesConnection(text string) bool {
	return strings.HasPrefix(text, "LOADING ") || strings.HasPrefix(text, "DENIED ") ||
		strings.HasPrefix(text, "ERR max number of clients") || strings.HasPrefix(text, "ERR max concurrent connections")
}

// ClassifyReply reads an error reply. Any other error of a single command is a
// refusal too; a script may have written before it failed.
func ClassifyReply(text string) (kind Kind, passing bool) {
	text, _ = unwrapReply(text)
	code, _, _ := strings.Cut(text, " ")
	if k, ok := replyKinds[code]; ok {
		return k.kind, k.passing
	}
	for _, p := range plainTexts {
		if strings.HasPrefix(text, p.text) {
			return p.kind, p.passing
		}
	}
	if outOfQuota(text) {
		return KindUnavailable, false
	}
	return KindServer, false
}

// saidBy is where an error reply arose.
type saidBy uint8

const (
	byServer  saidBy = iota // it answers the command itself
	inScript                // a command inside a script failed, or the script raised it
	inForeign               // the same, in a server that is no Redis and checks otherwise
)

// unwrapReply takes off what servers put around the error of a command inside
// a script or a transaction, so that it reads as outside of one:
//
//	READONLY … script: 6163…89e3, on @user_script:1.    Redis 7 and 8, Valkey 8
//	READONLY … script: on @user_script:1.               Valkey 9
//	ERR Error running script (call to f_6163…): @user_script:1: @user_script: 1: -READONLY …   Redis 6
//	@user_script: 1: -READONLY …                        Redis 6, caught by redis.pcall and returned
//	ERR Error running script (call to 6163…): @user_script:2: -READONLY …   Dragonfly
//	EXECABORT Transaction discarded because of: READONLY …   Redis 7 and later
func unwrapReply(text string) (inner string, from saidBy) {
	text = strings.TrimPrefix(text, "ERR ")
	if inner, ok := strings.CutPrefix(text, "EXECABORT Transaction discarded because of: "); ok {
		return inner, byServer
	}
	if i := strings.LastIndex(text, " script: "); i >= 0 && strings.Contains(text[i:], "on @user_") {
		return text[:i], inScript
	}
	from = inScript
	rest, raised := strings.CutPrefix(text, "Error running script (call to ")
	if raised {
		name, after, ok := strings.Cut(rest, "): ")
		if !ok {
			return text, byServer
		}
		if rest = after; !strings.HasPrefix(name, "f_") {
			from = inForeign
		}
	}
	inner, ok := cutPosition(rest)
	if !ok {
		return text, byServer
	}
	return strings.TrimPrefix(inner, "-"), from
}

// cutPosition takes off "@user_script:1: " and "@user_script: 1: ". What the
// script itself raises has it without the @, and keeps it.
func cutPosition(text string) (inner string, cut bool) {
	for {
		rest, ok := strings.CutPrefix(text, "@user_")
		if !ok {
			return text, cut
		}
		_, rest, ok = strings.Cut(rest, ":") // script, function
		rest = strings.TrimLeft(strings.TrimLeft(rest, " "), "0123456789")
		rest, isPosition := strings.CutPrefix(rest, ": ")
		if !ok || !isPosition {
			return text, cut
		}
		text, cut = rest, true
	}
}

// ownWords are refusals as servers themselves word them; * is the server's
// name. Only those say of a script that it did not run: the script may have
// made up any other text, or written before it failed. A script that returns
// one of these texts to the letter, with redis.error_reply, says so itself:
// nothing tells it apart.
var ownWords = []string{
	"NOSCRIPT No matching script", "LOADING * is loading ", "LOADING * is restoring ", "Can not execute during LOADING",
	"BUSY * is busy running", "MASTERDOWN Link with MASTER is down",
	"CLUSTERDOWN ", "TRYAGAIN Multiple keys request", "CROSSSLOT ", "MOVED ", "ASK ",
	"NOAUTH Authentication required", "NOPERM this user has no permissions", "NOPERM No permissions to access", "NOPERM User ",
	"max number of clients",
	"max requests limit exceeded", "max daily request limit exceeded", "max monthly request limit exceeded",
}

// firstWriteWords are refusals that Redis also gives to a command inside a
// script, and only before the script has written:
//
//   - READONLY: Redis looks at its role before each write of a script
//     (scriptVerifyWriteCommandAllow in script.c; luaRedisGenericCommand in
//     6.0). The role does not change while a script runs, since nothing else
//     does, so the first write was refused like all others. A node that is
//     demoted by its cluster while a script runs for seconds drops what it had
//     written alone.
//   - NOREPLICAS (from 7.0) and MISCONF: at the same place, by numbers that the
//     event loop keeps, which stands still meanwhile.
//   - OOM: scriptVerifyOOM lets a script go on that has written
//     (SCRIPT_WRITE_DIRTY, lua_write_dirty in 6.0).
//
// For a script that runs longer than busy-reply-threshold (5 s) Redis looks
// after its connections in between; then a replica may leave in the middle.
var firstWriteWords = []string{
	"READONLY You can't write against a read only", "NOREPLICAS Not enough good ",
	"MISCONF * is configured to save", "MISCONF Errors writing to the AOF", "OOM command not allowed when used memory",
}

func wordedAs(text string, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		before, after, named := strings.Cut(w, "*")
		rest, ok := strings.CutPrefix(text, before)
		if ok && named {
			_, rest, ok = strings.Cut(rest, " ")
			ok = ok && strings.HasPrefix(" "+rest, after)
		}
		return ok
	})
}

// ScriptNotApplied says whether nothing was applied, by the error of a script or a
// transaction.
func ScriptNotApplied(text string) bool {
	inner, from := unwrapReply(text)
	switch from {
	case inScript:
		return wordedAs(inner, firstWriteWords)
	case inForeign:
		// What else others check before each command is not known.
		return wordedAs(inner, firstWriteWords[:1])
	}
	return wordedAs(inner, ownWords) || wordedAs(inner, firstWriteWords) || strings.HasPrefix(text, "EXECABORT ")
}

// isScript says whether an error reply leaves the outcome open. Those that only
// read (EVAL_RO, EVALSHA_RO, FCALL_RO) are not among them: Redis refuses every
// write and every message inside of them.
func isScript(op string) bool {
	for _, name := range [...]string{"EVAL", "EVALSHA", "FCALL", "EXEC"} {
		if strings.EqualFold(op, name) {
			return true
		}
	}
	return false
}

// refusesScripts recognises such a server by its answer to EVAL or EVALSHA.
func refusesScripts(op, text string) bool {
	if !strings.EqualFold(op, "EVAL") && !strings.EqualFold(op, "EVALSHA") {
		return false
	}
	text = strings.TrimPrefix(text, "ERR ")
	rest, unknown := strings.CutPrefix(text, "unknown command ")
	return strings.HasPrefix(text, "NOPERM ") && strings.Contains(strings.ToLower(text), "eval") ||
		strings.HasPrefix(text, "This instance has Lua scripting support disabled") ||
		unknown && len(rest) > len(op)+1 && strings.EqualFold(rest[1:len(op)+1], op)
}

// Failure is what is known of one failed try.
type Failure struct {
	*Error
	// Retry says that the same call may be tried again: surely nothing was
	// applied, or applying it twice is harmless.
	Retry bool
	// Backoff says to wait a little before that.
	Backoff bool
	// NodeFault is the kind when it says something about the node (its role, the
	// credentials), not about the command.
	NodeFault Kind
	// SlotMoving says that the keys of the call are on their way to another node.
	SlotMoving bool
	// Restricts is what the node refuses, though it is connected.
	Restricts Restriction
}

// Idempotency says what a second run of a command does.
type Idempotency uint8

const (
	NonIdempotent Idempotency = iota // it may change more: it must not run twice
	Idempotent                       // it changes nothing more
	ReadOnly                         // it changes nothing at all
)

// IdempotencyOf says what a second run of a command does, as far as the client
// knows.
func IdempotencyOf(c rueidis.Completed) Idempotency {
	switch {
	case c.IsReadOnly():
		return ReadOnly
	case c.IsRetryable():
		return Idempotent
	}
	return NonIdempotent
}

// Classify says what the error of one sent command means.
func Classify(ctx context.Context, op string, err error, idem Idempotency) Failure {
	e := &Error{Op: op, Err: err}
	f := Failure{Error: e}
	if own := (*Error)(nil); errors.As(err, &own) {
		e.Kind, e.Outcome, e.Err, e.Permanent = own.Kind, own.Outcome, own.Err, own.Permanent
		f.Retry = errors.Is(err, ErrNotOpen)
		return f
	}
	if reply, ok := rueidis.IsRedisErr(err); ok {
		f.read(op, reply.Error())
		return f
	}
	switch {
	case errors.Is(err, ErrNotOpen):
		e.Kind, e.Outcome, f.Retry = KindUnavailable, OutcomeNotApplied, true
	case errors.Is(err, ErrTooManyRedirects): // a redirection is a refusal
		e.Kind, e.Outcome = KindUnavailable, OutcomeNotApplied
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		e.Kind, e.Outcome = ContextKind(ctx.Err()), OutcomeUnknown
	case errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Outcome = KindTimeout, OutcomeUnknown
	default:
		e.Kind, e.Outcome, f.Retry = KindUnavailable, OutcomeUnknown, idem >= Idempotent
	}
	if idem == ReadOnly {
		e.Outcome = OutcomeNotApplied
	}
	return f
}

// read classifies an error reply.
func (f *Failure) read(op, text string) {
	kind, passing := ClassifyReply(text)
	f.Kind, f.Outcome = kind, OutcomeNotApplied
	inner, from := unwrapReply(text)
	switch {
	case refusesScripts(op, text):
		f.Restricts = NoScripts
		f.Err = fmt.Errorf("%w: %w", ErrNoScripts, WithoutArguments(f.Err))
		return
	case isScript(op) && !ScriptNotApplied(text):
		f.Outcome = OutcomeUnknown
		return
	case from == byServer:
		f.Retry, f.Backoff = passing, passing
	default:
		f.Later = passing
	}
	if strings.HasPrefix(inner, "TRYAGAIN ") {
		f.SlotMoving = true
		f.Err = fmt.Errorf("%w: %w", ErrSlotMoving, f.Err)
	}
	// NOREPLICAS and MISCONF say nothing of whether it is a master.
	if kind != KindReadOnly || strings.HasPrefix(inner, "READONLY ") {
		f.NodeFault = kind
	}
	if outOfQuota(inner) {
		f.Restricts = NoQuota
		f.Err = fmt.Errorf("%w: %w", ErrQuota, f.Err)
	}
}

// Refusal is what a server answered that cannot serve now.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// WithoutArguments cuts off what a server says of a command that it does not
// know: AUTH's and HELLO's arguments are a password.
func WithoutArguments(err error) error {
	if text, _, cut := strings.Cut(err.Error(), ", with args beginning with"); cut {
		return Refusal(text)
	}
	return err
}

// Connect explains why a connection could not be made: what to look at,
// and whether it is permanent, so that trying again at once is of no use.
func Connect(addr string, useTLS bool, err error) *Error {
	permanent := false
	e := &Error{Op: "connect", Kind: KindUnavailable, Outcome: OutcomeNotApplied}
	hint := ""
	var (
		unknownCA x509.UnknownAuthorityError
		wrongHost x509.HostnameError
		badCert   x509.CertificateInvalidError
		notTLS    tls.RecordHeaderError
		refused   Refusal
		noneOfCA  Untrusted
	)
	if reply, ok := rueidis.IsRedisErr(err); ok {
		err = WithoutArguments(err)
		e.Kind, _ = ClassifyReply(reply.Error())
		switch e.Kind {
		case KindAuth:
			hint, permanent = "; check the user and the password (REDIS_USERNAME, REDIS_PASSWORD)", true
		case KindPermission:
			hint, permanent = "; grant the user this command", true
		case KindServer:
			// HELLO and SELECT answer with plain ERR for a wrong database and
			// for a password where none is set.
			e.Kind, permanent = KindUnavailable, true
		}
	} else {
		switch {
		case errors.As(err, &refused):
			e.Kind, _ = ClassifyReply(string(refused))
		case errors.As(err, &noneOfCA):
			permanent = true // it says itself what to do
		case errors.As(err, &unknownCA):
			hint, permanent = "; the certificate is signed by an authority that is not trusted: set REDIS_SSL_CA_FILE to its certificate", true
		case errors.As(err, &wrongHost):
			hint, permanent = "; the certificate is for another name: set REDIS_SSL_SERVER_NAME if that is intended", true
		case errors.As(err, &badCert):
			hint, permanent = "; the server's certificate is not valid", true
		case errors.As(err, &notTLS), errors.Is(err, ErrPlainText):
			hint, permanent = "; the server does not speak TLS on this port: set REDIS_USE_SSL=false or use the TLS port", true
		case !useTLS && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
			hint = "; the server hung up at once: does it expect TLS (REDIS_USE_SSL=true)?"
		}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		hint = "; check the host name (REDIS_HOST)"
	}
	e.Permanent = permanent
	e.Err = fmt.Errorf("%s: %w%s", addr, err, hint)
	return e
}

// Restriction is what a node refuses that is connected and answers.
type Restriction uint8

const (
	Unrestricted Restriction = iota
	NoQuota                  // its provider's quota is used up: it refuses all calls
	NoScripts                // it runs no scripts for us
	Restrictions
)

// WrongServer is the error of all calls to a server that is of no use.
func WrongServer(op string, err error) *Error {
	return &Error{Op: op, Kind: KindConfig, Outcome: OutcomeNotApplied, Err: err, Permanent: true}
}

// IsRedirect recognises MOVED and ASK.
func IsRedirect(reply string) bool {
	return strings.HasPrefix(reply, "MOVED ") || strings.HasPrefix(reply, "ASK ")
}

// IsUnknownCommand recognises that a server has no such command.
func IsUnknownCommand(reply string) bool {
	reply = strings.TrimPrefix(strings.ToLower(reply), "err ") // the client takes it off
	return strings.HasPrefix(reply, "unknown command") || strings.HasPrefix(reply, "unsupported command")
}

// CommandUnavailable says whether an error reply means that the server has no such command
// for this user.
func CommandUnavailable(err error) bool {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	kind, _ := ClassifyReply(reply.Error())
	return kind == KindPermission || strings.HasPrefix(reply.Error(), "unknown command") // without its code, ERR
}

// IsUnknownScript recognises NOSCRIPT, in the words of the server.
func IsUnknownScript(e *Error) bool {
	return e.Outcome == OutcomeNotApplied && e.Err != nil && strings.HasPrefix(e.Err.Error(), "NOSCRIPT ")
}

// Untrusted is a certificate that none of the authorities in a file signed.
type Untrusted struct{ Err error }

func (u Untrusted) Error() string {
	return u.Err.Error() + "; none of the authorities in the file that REDIS_SSL_CA_FILE names signed the server's certificate: add the one that did"
}

func (u Untrusted) Unwrap() error { return u.Err }
