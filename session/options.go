package session

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// Options says how sessions work. The zero value works, and is safe.
type Options[T any] struct {
	// Codec encodes the data. Defaults to JSON. With any other codec
	// [Manager.Inspect] cannot show the data. Stored data of another codec is not
	// read: see OnUndecodable.
	Codec madcrow.Codec[T]

	// IdleTimeout is how long an unused session lives, from 1 second. A use is
	// recorded once in a tenth of it, so a session may end up to a tenth sooner.
	// Defaults to 30 minutes.
	IdleTimeout time.Duration
	// AbsoluteTimeout is the longest life of a session, up to 10 years. Defaults
	// to 12 hours.
	AbsoluteTimeout time.Duration
	// RememberIdleTimeout and RememberAbsoluteTimeout take the place of IdleTimeout
	// and AbsoluteTimeout for a session made with [Remember], whose cookie outlives
	// the browser. Default to 14 and 90 days.
	RememberIdleTimeout, RememberAbsoluteTimeout time.Duration
	// RotationGrace is how long the previous identifier remains readable after
	// [Session.Rotate], for requests that were under way. In that time a write
	// under an identifier from before a Rotate or a [Session.Login] is
	// [ErrRotated] and starts no new session. Up to 5 minutes; -1 disables it.
	// Defaults to 10 seconds.
	RotationGrace time.Duration
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
	// users. At least 16 bytes, better 32 random ones; an empty one that is not nil
	// is refused, as that of a setting that is not set. Defaults to nil: none.
	Secret []byte
	// EncryptionKeys encrypt the data at rest (AES-256-GCM, 32 bytes each): the first
	// encrypts, all decrypt. Encrypted data is bound to its session and user, so
	// a writer in Redis cannot move it to another session. Data that is plain, or
	// encrypted with a key that is not listed, is not read. So add a new key
	// behind the old one in all processes before it is the first in any. User and
	// device are not encrypted. Defaults to none.
	EncryptionKeys [][]byte

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
	// FallbackTTL is how long a fallback copy in this process may serve reads while
	// Redis is unavailable, where the route's policy is [madcrow.FailStale]. A
	// session that another process ends is served until then. There are at most 10,000
	// copies, of 32 MiB together. Defaults to 1 minute.
	FallbackTTL time.Duration

	// OnUndecodable is called each time that stored data cannot be decoded.
	// Defaults to a line in the log, once for each reason.
	OnUndecodable func(ctx context.Context, err error)
	// Logger receives failures that no call can return. Defaults to the Redis'
	// logger.
	Logger *slog.Logger

	// FastAPILayout reads and writes the sessions of FastAPI Madcrow
	// (session:{id}, one JSON object), to migrate from it. That layout has no
	// version, so the last writer wins, but never revives an ended session. It has
	// no users: Login, List, Revoke and flashes return [ErrFastAPILayout]. IdleTimeout is
	// the whole lifetime since the last write, in whole seconds. FastAPILayout
	// excludes Codec, EncryptionKeys, MaxPerUser and WaitReplicas.
	FastAPILayout bool
}

const (
	maxAbsolute = 10 * 365 * 24 * time.Hour
	maxGrace    = 5 * time.Minute
	minSecret   = 16
)

// filled returns the options with their defaults, or an error that names every problem.
func (o Options[T]) filled(name string, cfg madcrow.Config) (Options[T], error) {
	var wrong operr.Arguments
	wrong.Check(keys.ValidName(name), "name", keys.NameRule)
	o.fillLifetimes(&wrong)
	between(&wrong, "WaitTimeout", &o.WaitTimeout, 100*time.Millisecond, time.Millisecond, time.Minute, "1 ms to 1 minute")
	between(&wrong, "FallbackTTL", &o.FallbackTTL, time.Minute, time.Millisecond, time.Hour, "1 ms to 1 hour")
	wrong.Check(o.MaxPerUser >= 0 && o.MaxPerUser <= 10000, "Options.MaxPerUser", "must be from 0 to 10000")
	wrong.Check(o.WaitReplicas >= 0, "Options.WaitReplicas", "must not be negative")
	wrong.Check(o.WaitReplicas <= 0 || o.WaitTimeout < cfg.CommandTimeout, "Options.WaitTimeout", "must be less than the Redis' CommandTimeout")
	wrong.Check(!slices.ContainsFunc(o.EncryptionKeys, func(k []byte) bool { return len(k) != 32 }), "Options.EncryptionKeys", "must have 32 bytes each")
	wrong.Check(o.Secret == nil || len(o.Secret) > 0, "Options.Secret", "is empty: is the setting that it comes from set? nil is no secret")
	wrong.Check(len(o.Secret) == 0 || len(o.Secret) >= minSecret, "Options.Secret", "must have at least 16 bytes, better 32 random ones")
	o.Secret = slices.Clone(o.Secret)
	plain := o.Codec == nil && len(o.EncryptionKeys) == 0 && o.MaxPerUser == 0 && o.WaitReplicas == 0
	wrong.Check(!o.FastAPILayout || plain, "Options.FastAPILayout", "excludes Codec, EncryptionKeys, MaxPerUser and WaitReplicas")
	o.fillCookie(&wrong)
	return o, fail.Arguments("new", name, wrong)
}

// between sets the default of an option, and checks it.
func between(wrong *operr.Arguments, name string, v *time.Duration, def, least, most time.Duration, text string) {
	if *v == 0 {
		*v = def
	}
	wrong.Check(*v >= least && *v <= most, "Options."+name, "must be from "+text)
}

func (o *Options[T]) fillLifetimes(wrong *operr.Arguments) {
	const absolute = "1 second to 10 years"
	between(wrong, "AbsoluteTimeout", &o.AbsoluteTimeout, max(12*time.Hour, o.IdleTimeout), time.Second, maxAbsolute, absolute)
	between(wrong, "IdleTimeout", &o.IdleTimeout, min(30*time.Minute, o.AbsoluteTimeout), time.Second, o.AbsoluteTimeout, "1 second to AbsoluteTimeout")
	between(wrong, "RememberAbsoluteTimeout", &o.RememberAbsoluteTimeout, max(90*24*time.Hour, o.RememberIdleTimeout), time.Second, maxAbsolute, absolute)
	between(wrong, "RememberIdleTimeout", &o.RememberIdleTimeout, min(14*24*time.Hour, o.RememberAbsoluteTimeout), time.Second, o.RememberAbsoluteTimeout, "1 second to RememberAbsoluteTimeout")
	if o.RotationGrace != -1 {
		between(wrong, "RotationGrace", &o.RotationGrace, 10*time.Second, 0, maxGrace, "0 to 5 minutes, or -1")
	}
	o.RotationGrace = max(o.RotationGrace, 0)
}

func (o *Options[T]) fillCookie(wrong *operr.Arguments) {
	if o.SameSite == 0 {
		o.SameSite = http.SameSiteLaxMode
	}
	if o.Cookie == "" {
		o.Cookie = "__Host-session"
		if o.InsecureCookie {
			o.Cookie = "session"
		}
	}
	err := (&http.Cookie{Name: o.Cookie, Value: "x"}).Valid()
	wrong.Check(err == nil, "Options.Cookie", "must be a valid name of a cookie")
	wrong.Check(!o.InsecureCookie || !strings.HasPrefix(o.Cookie, "__"), "Options.Cookie", "must not begin with __ with InsecureCookie: browsers reject it")
	wrong.Check(!o.InsecureCookie || !o.Partitioned && o.SameSite != http.SameSiteNoneMode, "Options.InsecureCookie", "excludes Partitioned and SameSite=None, which need a secure cookie")
}

// cookie returns the cookie without a value.
func (o *Options[T]) cookie() http.Cookie {
	return http.Cookie{
		Name: o.Cookie, Path: "/", Secure: !o.InsecureCookie, HttpOnly: true,
		SameSite: o.SameSite, Partitioned: o.Partitioned,
	}
}

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

func (o *Options[T]) lifetimesOf(name string, opts []LoginOption) (lifetimes, error) {
	l := lifetimes{}
	for _, set := range opts {
		set(&l)
	}
	if l.idle == 0 && l.absolute == 0 {
		l.idle, l.absolute = o.IdleTimeout, o.AbsoluteTimeout
		if l.remember {
			l.idle, l.absolute = o.RememberIdleTimeout, o.RememberAbsoluteTimeout
		}
	}
	if l.idle < time.Second || l.absolute < l.idle || l.absolute > maxAbsolute {
		return l, fail.Argument("login", name, "lifetimes", "idle must be at least 1 second, absolute at least idle and at most 10 years")
	}
	return l, nil
}
