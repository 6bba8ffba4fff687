package madcrow

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
	errNotConnected = errors.New("not connected yet")
	// errRefused is a dial that the gate did not let through. Nothing was sent.
	errRefused        = errors.New("connection is not open")
	errPlainText      = errors.New("the server answered in plain text")
	errSilent         = errors.New("no answer in time")
	errMoved          = errors.New("the master has moved")
	errLagging        = errors.New("only Sentinels that lag behind answer")
	errLeft           = errors.New("the caller has left")
	errFull           = errors.New("too many calls are waiting for an answer")
	errBorrowed       = errors.New("all connections for transactions and large values are in use")
	errNoSubscription = errors.New("Receive takes SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE")
)

// contextKind tells a caller that gave up from a deadline that passed.
func contextKind(err error) Kind {
	if errors.Is(err, context.Canceled) {
		return KindCanceled
	}
	return KindTimeout
}

// waited keeps the reason of a wait in the error of the one who waited.
func waited(err error, cause *Error) error {
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

const maxClientsText = "max number of clients reached"

// classifyReply reads an error reply. Any other error of a single command is a
// refusal too; a script may have written before it failed.
func classifyReply(text string) (kind Kind, passing bool) {
	code, _, _ := strings.Cut(text, " ")
	if k, ok := replyKinds[code]; ok {
		return k.kind, k.passing
	}
	if strings.Contains(text, maxClientsText) {
		return KindUnavailable, true
	}
	return KindServer, false
}

// ownWords are refusals as Redis itself words them. Only those say of a script
// that it did not run: the script may have made up any other text, or written
// before it failed. What a command inside a script says ends with its name.
var ownWords = []string{
	"NOSCRIPT No matching script", "EXECABORT ", "LOADING Redis is loading", "LOADING Valkey is loading",
	"BUSY Redis is busy running", "BUSY Valkey is busy running", "MASTERDOWN Link with MASTER is down",
	"CLUSTERDOWN ", "TRYAGAIN Multiple keys request", "CROSSSLOT ", "MOVED ", "ASK ",
	"READONLY You can't write against a read only", "NOREPLICAS Not enough good replicas",
	"NOAUTH Authentication required", "NOPERM ", "MISCONF ", "OOM ", "ERR max number of clients",
}

func isOwnWord(text string) bool {
	return !strings.Contains(text, " script: ") && slices.ContainsFunc(ownWords, func(w string) bool { return strings.HasPrefix(text, w) })
}

// isScript says whether an error reply leaves the outcome open.
func isScript(op string) bool {
	for _, name := range [...]string{"EVAL", "EVALSHA", "FCALL", "EXEC"} {
		if strings.EqualFold(op, name) {
			return true
		}
	}
	return false
}

// failure is the verdict over one failed try.
type failure struct {
	*Error
	// again says that the same call may be tried again: surely nothing was
	// applied, or applying it twice is harmless.
	again bool
	// backoff says to wait a little before that.
	backoff bool
	// lesson is the kind when it says something of the node.
	lesson Kind
}

// repeat says what comes of it when a command runs twice.
type repeat uint8

const (
	once  repeat = iota // it must not
	twice               // it may
	reads               // nothing: it changes nothing
)

func repeatOf(c Command) repeat {
	switch {
	case c.IsReadOnly():
		return reads
	case c.IsRetryable():
		return twice
	}
	return once
}

// classify turns the error of one sent command into a verdict.
func classify(ctx context.Context, op string, err error, r repeat) failure {
	e := &Error{Op: op, Err: err}
	f := failure{Error: e}
	if own := (*Error)(nil); errors.As(err, &own) {
		e.Kind, e.Outcome, e.Err, e.permanent = own.Kind, own.Outcome, own.Err, own.permanent
		f.again = errors.Is(err, errRefused)
		return f
	}
	if reply, ok := rueidis.IsRedisErr(err); ok {
		kind, passing := classifyReply(reply.Error())
		e.Kind, e.Outcome = kind, OutcomeNotApplied
		if isScript(op) && !isOwnWord(reply.Error()) {
			e.Outcome = OutcomeUnknown
			return f
		}
		f.again, f.backoff = passing, passing
		// NOREPLICAS and MISCONF say nothing of whether it is a master.
		if kind != KindReadOnly || strings.HasPrefix(reply.Error(), "READONLY ") {
			f.lesson = kind
		}
		return f
	}
	switch {
	case errors.Is(err, errRefused):
		e.Kind, e.Outcome, f.again = KindUnavailable, OutcomeNotApplied, true
	case errors.Is(err, errHops) && r == once: // a redirection is a refusal
		e.Kind, e.Outcome = KindUnavailable, OutcomeNotApplied
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		e.Kind, e.Outcome = contextKind(ctx.Err()), OutcomeUnknown
	case errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Outcome = KindTimeout, OutcomeUnknown
	default:
		e.Kind, e.Outcome, f.again = KindUnavailable, OutcomeUnknown, r >= twice
	}
	if r == reads {
		e.Outcome = OutcomeNotApplied
	}
	return f
}

// refusal is what a server answered that cannot serve now.
type refusal string

func (r refusal) Error() string { return string(r) }

// withoutArguments cuts off what a server says of a command that it does not
// know: AUTH's and HELLO's arguments are a password.
func withoutArguments(err error) error {
	if text, _, cut := strings.Cut(err.Error(), ", with args beginning with"); cut {
		return refusal(text)
	}
	return err
}

// connectError explains why a connection could not be made: what to look at,
// and whether it is permanent, so that trying again at once is of no use.
func connectError(addr string, useTLS bool, err error) *Error {
	permanent := false
	e := &Error{Op: "connect", Kind: KindUnavailable, Outcome: OutcomeNotApplied}
	hint := ""
	var (
		unknownCA x509.UnknownAuthorityError
		wrongHost x509.HostnameError
		badCert   x509.CertificateInvalidError
		notTLS    tls.RecordHeaderError
		refused   refusal
	)
	if reply, ok := rueidis.IsRedisErr(err); ok {
		err = withoutArguments(err)
		e.Kind, _ = classifyReply(reply.Error())
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
			e.Kind, _ = classifyReply(string(refused))
		case errors.As(err, &unknownCA):
			hint, permanent = "; the certificate is signed by an authority that is not trusted: set REDIS_SSL_CA_FILE to its certificate", true
		case errors.As(err, &wrongHost):
			hint, permanent = "; the certificate is for another name: set REDIS_SSL_SERVER_NAME if that is intended", true
		case errors.As(err, &badCert):
			hint, permanent = "; the server's certificate is not valid", true
		case errors.As(err, &notTLS), errors.Is(err, errPlainText):
			hint, permanent = "; the server does not speak TLS on this port: set REDIS_USE_SSL=false or use the TLS port", true
		case !useTLS && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
			hint = "; the server hung up at once: does it expect TLS (REDIS_USE_SSL=true)?"
		}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		hint = "; check the host name (REDIS_HOST)"
	}
	e.permanent = permanent
	e.Err = fmt.Errorf("%s: %w%s", addr, err, hint)
	return e
}
