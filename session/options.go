package session

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/internal/keys"
)

// Options says how sessions work. The zero value works, and is safe.
type Options struct {
	// Name is part of the keys: 1 to 64 letters, digits, '-', '_', '.'.
	// Defaults to "web".
	Name string

	// Idle is how long an unused session lives, from 1 second. A use is recorded
	// once in a tenth of it, so a session may end up to a tenth sooner. Defaults
	// to 30 minutes.
	Idle time.Duration
	// Absolute is the longest life of a session, up to 10 years. Defaults to 12
	// hours.
	Absolute time.Duration
	// RememberIdle and RememberAbsolute take the place of Idle and Absolute for
	// a session made with [Remember], whose cookie outlives the browser. Default
	// to 14 and 90 days.
	RememberIdle, RememberAbsolute time.Duration
	// Grace is how long the previous identifier remains readable after
	// [Session.Rotate], for requests that were under way. In that time a write
	// under an identifier from before a Rotate or a [Session.Login] is
	// [ErrRotated] and starts no new session. Up to 5 minutes; -1 disables it.
	// Defaults to 10 seconds.
	Grace time.Duration
	// MaxPerUser is the largest number of sessions of one user. A login beyond it
	// ends the session with the earliest absolute end. The session that logs in
	// again does not count. From 0 to 10000. Defaults to 0: no bound.
	MaxPerUser int

	// Cookie is the name of the cookie. Defaults to "__Host-session", which
	// browsers accept only with Secure and from this host alone. A cookie of any
	// other name can also be set by other hosts of the domain. Of several cookies
	// of the name the valid one is used; of two valid ones neither, until a login,
	// a logout or a new session ends both.
	Cookie string
	// InsecureCookie sends the cookie without Secure, under the default name
	// "session", for development without TLS. Never use it elsewhere.
	InsecureCookie bool
	// SameSite of the cookie. Defaults to Lax.
	SameSite http.SameSite
	// Partitioned sets the attribute of that name, for pages inside others.
	Partitioned bool

	// Secret keys the hash of the user in identifiers and keys. Without it,
	// anyone who has an identifier can test which user it belongs to. All
	// processes must have the same Secret; a change ends the sessions of all
	// users. At least 16 bytes, better 32 random ones. Defaults to none.
	Secret []byte
	// Keys encrypt the data at rest (AES-256-GCM, 32 bytes each): the first
	// encrypts, all decrypt. Encrypted data is bound to its session and user, so
	// a writer in Redis cannot move it to another session. Data that is plain, or
	// encrypted with a key that is not listed, is not read. So add a new key
	// behind the old one in all processes before it is the first in any. User and
	// device are not encrypted. Defaults to none.
	Keys [][]byte

	// Client determines the client's address, for the list of a user's
	// sessions. The zero value records no address.
	Client clientip.Policy
	// WaitReplicas is how many replicas must confirm a login, a commit, a
	// rotation or a revocation within WaitTimeout; with fewer the call returns
	// [ErrNotReplicated]. Each such call uses a dedicated connection. Only the
	// confirmation of all replicas bounds the loss at a failover: a replica that
	// stays with the old master confirms as well. Defaults to 0.
	WaitReplicas int
	// WaitTimeout is less than Config.CommandTimeout; a sooner deadline of the
	// caller shortens it. Defaults to 100 ms.
	WaitTimeout time.Duration
	// CopyFor is how long a fallback copy in this process may serve reads while
	// Redis is unavailable, where the route's [Failure] is ReadCopy. A session
	// that another process ends is served until then. There are at most 10,000
	// copies, of 32 MiB together. Defaults to 1 minute.
	CopyFor time.Duration

	// OnUndecodable is called each time that stored data cannot be decoded.
	// Defaults to a line in the log, once for each reason.
	OnUndecodable func(ctx context.Context, err error)
	// Logger receives failures that no call can return. Defaults to the Redis'
	// logger.
	Logger *slog.Logger

	// FastAPILayout reads and writes the sessions of FastAPI Madcrow
	// (session:{id}, one JSON object), to migrate from it. That layout has no
	// version, so the last writer wins, but never revives an ended session. It has
	// no users: Login, List, Revoke and flashes return [ErrFastAPILayout]. Idle is
	// the whole lifetime since the last write, in whole seconds. FastAPILayout
	// excludes Keys, MaxPerUser and WaitReplicas.
	FastAPILayout bool

	timeout time.Duration // Config.CommandTimeout
}

const (
	maxAbsolute = 10 * 365 * 24 * time.Hour
	maxGrace    = 5 * time.Minute
	minSecret   = 16
)

// filled returns the options with their defaults, or an error that names every problem.
func (o Options) filled(cfg madcrow.Config) (Options, error) {
	var wrong []string
	o.timeout = cfg.CommandTimeout
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
	if !keys.ValidName(o.Name) {
		wrong = append(wrong, "Name "+keys.NameRule)
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
	if o.FastAPILayout && (len(o.Keys) > 0 || o.MaxPerUser > 0 || o.WaitReplicas > 0) {
		wrong = append(wrong, "FastAPILayout excludes Keys, MaxPerUser and WaitReplicas")
	}
	o.Secret = slices.Clone(o.Secret)
	wrong = append(wrong, o.checkCookie()...)
	if o.WaitReplicas > 0 && o.WaitTimeout >= cfg.CommandTimeout {
		wrong = append(wrong, "WaitTimeout must be less than the Redis' CommandTimeout")
	}
	if wrong != nil {
		return o, fail.Argument("new", o.Name, "Options", strings.Join(wrong, "; "))
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
		wrong = append(wrong, "Cookie must be a valid cookie name")
	}
	if o.InsecureCookie && strings.HasPrefix(o.Cookie, "__") {
		wrong = append(wrong, "Cookie: browsers reject an insecure cookie with a name that begins with __")
	}
	if o.InsecureCookie && (o.Partitioned || o.SameSite == http.SameSiteNoneMode) {
		wrong = append(wrong, "Partitioned and SameSite=None need a secure cookie")
	}
	return wrong
}

// Failure is how a route reads a session that cannot be loaded.
type Failure uint8

// The failures. Writing returns an error in each of them.
const (
	// FailClosed: reading returns the error.
	FailClosed Failure = iota
	// ReadAnonymous: reading finds no session, and [Session.Degraded] returns
	// the error.
	ReadAnonymous
	// ReadCopy: reading finds the fallback copy, the state that this process read
	// last, for up to Options.CopyFor; without a copy it returns the error. Copies
	// are kept once a [Manager.Middleware] with ReadCopy exists.
	ReadCopy
)

// LoginOption changes the session that a login makes.
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
		return l, fail.Argument("login", o.Name, "lifetimes", "idle must be at least 1 second, absolute at least idle and at most 10 years")
	}
	return l, nil
}
