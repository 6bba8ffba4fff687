package session

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/internal/keys"
)

// Options says how sessions work. The zero value works, and is safe.
type Options struct {
	// Name is part of the keys: 1 to 64 letters, digits, '-', '_', '.'.
	// Defaults to "web".
	Name string

	// Idle is how long a session lives without being used, from 1 second. It may
	// end up to a tenth sooner: not every use is written down. Defaults to 30
	// minutes.
	Idle time.Duration
	// Absolute is how long it lives at most, up to 10 years. Defaults to 12
	// hours.
	Absolute time.Duration
	// RememberIdle and RememberAbsolute are those of a session that was made
	// with [Remember]; its cookie outlives the browser. Default to 14 and 90
	// days.
	RememberIdle, RememberAbsolute time.Duration
	// Grace is how long the old identifier can read after [Session.Rotate],
	// for requests that were under way, and how long their writes under it, or
	// under that from before a [Session.Login], are [ErrRotated] and do not begin
	// a new session. Up to 5 minutes. -1 is not at all. Defaults to 10 seconds.
	Grace time.Duration
	// MaxPerUser ends the session that would end first when a user has more
	// than this many. The one that logs in again does not count. From 0 to
	// 10000. Defaults to 0: any number.
	MaxPerUser int

	// Cookie is the name of the cookie. Defaults to "__Host-session", which
	// browsers accept only with Secure, for this host alone. Others can set one of
	// another name for the whole domain; of several the one that is valid counts,
	// of two valid ones none, until a login, a logout or a new session ends both.
	Cookie string
	// InsecureCookie sends the cookie without Secure, under the default name
	// "session", for development without TLS. Never use it elsewhere.
	InsecureCookie bool
	// SameSite of the cookie. Defaults to Lax.
	SameSite http.SameSite
	// Partitioned sets the attribute of that name, for pages inside others.
	Partitioned bool

	// Secret keys the hash by which a user's sessions are kept together.
	// Without it, whoever holds an identifier can test whose it is. All
	// processes must have the same; a change ends the sessions of all users. At
	// least 16 bytes, better 32 random ones. Defaults to none.
	Secret []byte
	// Keys encrypt the data at rest (AES-256-GCM, 32 bytes each): the first
	// encrypts, all decrypt. It is bound to its session and user: who can write in
	// Redis can put it nowhere else. Data that is not encrypted, or with a key that
	// is not here, is not read. So add a new key behind the old one in all
	// processes before it is the first in any. User and device are not encrypted.
	// Defaults to none.
	Keys [][]byte

	// Client says whose address a request has, for the list of a user's
	// sessions. The zero value notes no address.
	Client clientip.Policy
	// WaitReplicas is how many replicas must have a login, a commit, a
	// rotation or a revocation before it returns, up to WaitTimeout; otherwise
	// it is [ErrNotReplicated]. Each then takes a connection of its own. Only all
	// replicas together bound what a failover loses: one that stays with the old
	// master also says that it has the change. Defaults to 0.
	WaitReplicas int
	// WaitTimeout is less than Config.CommandTimeout; a sooner deadline of the
	// caller shortens it. Defaults to 100 ms.
	WaitTimeout time.Duration
	// CopyFor is how long a copy in this process may answer reads when Redis
	// cannot be asked, where the route's [Failure] is ReadCopy. What another
	// process ended is not seen in that time. There are at most 10,000 copies, of
	// 32 MiB together. Defaults to 1 minute.
	CopyFor time.Duration

	// OnUndecodable is told of data that cannot be read, each time. Defaults to
	// a line in the log, once for each reason.
	OnUndecodable func(ctx context.Context, err error)
	// Logger receives what goes wrong where no error can be returned.
	// Defaults to that of the Redis.
	Logger *slog.Logger

	// Original reads and writes the sessions of the Python original
	// (session:{id}, one JSON object), to move away from it. There is no
	// version there, so the last writer wins, though not over one that has ended;
	// and no user: Login, List, Revoke and flashes are [ErrOriginal]. Idle is the
	// whole lifetime from the last write, in whole seconds. It excludes Keys,
	// MaxPerUser and WaitReplicas.
	Original bool
}

const (
	maxAbsolute = 10 * 365 * 24 * time.Hour
	maxGrace    = 5 * time.Minute
	minSecret   = 16
)

// filled returns the options with their defaults, or every problem.
func (o Options) filled() (Options, error) {
	var wrong []string
	between := func(name string, v *time.Duration, def, least, most time.Duration) {
		if *v == 0 {
			*v = def
		}
		if *v < least || *v > most {
			wrong = append(wrong, fmt.Sprintf("%s must be from %v to %v", name, least, most))
		}
	}
	if o.Name == "" {
		o.Name = "web"
	}
	if !keys.Plain(o.Name) || len(o.Name) > 64 || strings.ContainsAny(o.Name, ":@/+=,|") {
		wrong = append(wrong, "Name must be 1 to 64 letters, digits, '-', '_' or '.'")
	}
	between("Absolute", &o.Absolute, max(12*time.Hour, o.Idle), time.Second, maxAbsolute)
	between("Idle", &o.Idle, min(30*time.Minute, o.Absolute), time.Second, o.Absolute)
	between("RememberAbsolute", &o.RememberAbsolute, max(90*24*time.Hour, o.RememberIdle), time.Second, maxAbsolute)
	between("RememberIdle", &o.RememberIdle, min(14*24*time.Hour, o.RememberAbsolute), time.Second, o.RememberAbsolute)
	if o.Grace != -1 {
		between("Grace", &o.Grace, 10*time.Second, 0, maxGrace)
	}
	o.Grace = max(o.Grace, 0)
	between("WaitTimeout", &o.WaitTimeout, 100*time.Millisecond, time.Millisecond, time.Minute)
	between("CopyFor", &o.CopyFor, time.Minute, time.Millisecond, time.Hour)
	if o.MaxPerUser < 0 || o.MaxPerUser > 10000 || o.WaitReplicas < 0 {
		wrong = append(wrong, "MaxPerUser must be from 0 to 10000, WaitReplicas not negative")
	}
	for _, k := range o.Keys {
		if len(k) != 32 {
			wrong = append(wrong, "Keys must have 32 bytes each")
		}
	}
	if n := len(o.Secret); n > 0 && n < minSecret {
		wrong = append(wrong, "Secret must have at least 16 bytes, better 32 random ones")
	}
	if o.SameSite == 0 {
		o.SameSite = http.SameSiteLaxMode
	}
	if o.Original && (len(o.Keys) > 0 || o.MaxPerUser > 0 || o.WaitReplicas > 0) {
		wrong = append(wrong, "Original excludes Keys, MaxPerUser and WaitReplicas")
	}
	o.Secret = slices.Clone(o.Secret)
	wrong = append(wrong, o.checkCookie()...)
	if wrong != nil {
		return o, &ValidationError{Field: "options", Message: strings.Join(wrong, "; ")}
	}
	return o, nil
}

func (o *Options) checkCookie() (wrong []string) {
	if o.Cookie == "" {
		o.Cookie = "__Host-session"
		if o.InsecureCookie {
			o.Cookie = "session"
		}
	}
	if err := (&http.Cookie{Name: o.Cookie, Value: "x"}).Valid(); err != nil {
		wrong = append(wrong, "Cookie is no name of a cookie")
	}
	if o.InsecureCookie && strings.HasPrefix(o.Cookie, "__") {
		wrong = append(wrong, "Cookie: browsers drop an insecure one of this name")
	}
	if o.InsecureCookie && (o.Partitioned || o.SameSite == http.SameSiteNoneMode) {
		wrong = append(wrong, "Partitioned and SameSite=None need a secure cookie")
	}
	return wrong
}

// Failure says what a route does when its session cannot be loaded.
type Failure uint8

// The failures. Writing is an error in each of them.
const (
	// FailClosed: reading is an error too.
	FailClosed Failure = iota
	// ReadAnonymous: reading finds no session, and [Session.Degraded] tells.
	ReadAnonymous
	// ReadCopy: reading finds what this process read last, for up to
	// Options.CopyFor; without a copy it is an error. Copies are kept from when
	// a [Manager.Middleware] with it was made.
	ReadCopy
)

// LoginOption changes one session when it is made.
type LoginOption func(*lifetimes)

type lifetimes struct {
	idle, absolute time.Duration
	remember       bool
}

// Remember gives the session the Remember lifetimes of the options, and a
// cookie that outlives the browser.
func Remember() LoginOption {
	return func(l *lifetimes) { l.remember = true }
}

// WithLifetimes gives the session lifetimes of its own: idle from 1 second,
// absolute at least idle, at most 10 years.
func WithLifetimes(idle, absolute time.Duration) LoginOption {
	return func(l *lifetimes) { l.idle, l.absolute = idle, absolute }
}

func (o Options) lifetimesOf(opts []LoginOption) (lifetimes, error) {
	l := lifetimes{}
	for _, set := range opts {
		set(&l)
	}
	if l.idle == 0 && l.absolute == 0 {
		l.idle, l.absolute = o.Idle, o.Absolute
		if l.remember {
			l.idle, l.absolute = o.RememberIdle, o.RememberAbsolute
		}
	}
	if l.idle < time.Second || l.absolute < l.idle || l.absolute > maxAbsolute {
		return l, &ValidationError{Field: "lifetimes", Message: "idle must be at least 1 second, absolute at least idle and at most 10 years"}
	}
	return l, nil
}
