package httpcache

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/cachelimit"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// Options says how a [Cache] works. The zero value works, and stores what
// says that it may be.
type Options struct {
	// DefaultTTL is how long a response is fresh that does not say so itself,
	// and has the status 200, 203, 204, 300, 301, 308, 404, 405, 410 or 414.
	// Defaults to 0: it is not stored.
	DefaultTTL time.Duration
	// MinTTL and MaxTTL bound what responses say. MinTTL does not concern
	// max-age=0. They default to 0 and a day.
	MinTTL, MaxTTL time.Duration
	// StaleWhileRevalidate and StaleIfError are for responses that do not say
	// so themselves. They default to 0: not at all.
	StaleWhileRevalidate, StaleIfError time.Duration
	// MaxStale bounds both, and what responses say of them. Defaults to a day.
	MaxStale time.Duration
	// MaxVariants is how many responses of one URL may be stored beside the one
	// of the plain request: by Vary, KeyHeaders, and headers that say what was
	// asked for. Of more, one in eight takes the place of the oldest; the others
	// are not stored. Defaults to 64, at most 1024.
	MaxVariants int
	// MaxBody is how many bytes a response may have to be stored. Defaults to 1
	// MiB; Config.MaxValueSize must hold 64 KiB more.
	MaxBody int

	// Tags are those of the response to a request, known before it is made: at
	// most 63. The request is not cached where one of them is no tag.
	Tags func(*http.Request) []string
	// Query says which parameters matter. The others are removed from the
	// request: neither the key nor the handler sees them. Defaults to all.
	Query func(name string) bool
	// Cookie says which cookies matter, as Query. A request without any is
	// no one's in particular. Defaults to all.
	Cookie func(name string) bool
	// Credentials are headers by which clients are known beside Authorization,
	// Cookie, X-Api-Key and those of well-known proxies: "X-User-Id".
	Credentials []string
	// KeyHeaders are headers that belong to the key of every response.
	KeyHeaders []string
	// Bypass says which requests the cache has nothing to do with.
	Bypass func(*http.Request) bool
	// ObeyRequest lets clients say by Cache-Control what they want: no-cache,
	// max-age, min-fresh, max-stale, no-store, and only-if-cached, which is a
	// 504 when there is nothing. Without it they are not listened to, as is
	// usual for a cache of the server's own: otherwise anybody can have the
	// handler run.
	ObeyRequest bool
	// PassTTL is for how long it is remembered that the response to a URL is
	// not shareable. Defaults to 10 seconds.
	PassTTL time.Duration
	// Detached lets a handler go on after its request has ended, to make a stale
	// response again or when its client has left. Set it where Middleware is
	// outside of every router, or inside of http.ServeMux alone. Inside of chi,
	// gin, echo or fiber, which use what belongs to a request for the next one, a
	// page of one URL could be stored under another. Without it the stale response
	// is sent at once, too, but that request ends with the handler: by HTTP/2 it
	// is only then complete for the client, by HTTP/1 its connection is busy for
	// so long.
	Detached bool
	// StatusName is how the cache calls itself in Cache-Status: a token; "-"
	// leaves the header out. Defaults to "madcrow".
	StatusName string

	// These are as in [cache.Options]. MaxLoads defaults to 1024; requests beyond it
	// wait, and run the handler for themselves after LoadTimeout.
	NearCacheBytes                     int64
	ReadTimeout, LoadTimeout, LeaseTTL time.Duration
	MaxLoads                           int

	// Logger gets a line when handlers begin to fail (a panic, a status of 500 or
	// more) and one when they succeed again, and panics with their stack. Defaults to
	// that of the Redis.
	Logger *slog.Logger
}

// bodyRoom is what an entry may have beside the body.
const bodyRoom = 64 << 10

// fail makes the errors of this package.
var fail = operr.Maker{Package: "httpcache"}

// filled returns the options with their defaults, or every problem.
func (o Options) filled(r *madcrow.Redis, cacheName string) (Options, error) {
	maxValue := r.Config().MaxValueSize
	o = o.withDefaults(r, maxValue)
	var wrong operr.Arguments
	between := func(name string, v, least, most time.Duration, inWords string) {
		wrong.Check(v >= least && v <= most, name, "must be from "+inWords)
	}
	named := keys.ValidName(cacheName)
	wrong.Check(named, "name", keys.NameRule)
	between("MaxTTL", o.MaxTTL, time.Second, cachelimit.MaxTTL, "1s to 10 years")
	between("MinTTL", o.MinTTL, 0, o.MaxTTL, "0 to MaxTTL")
	between("DefaultTTL", o.DefaultTTL, 0, o.MaxTTL, "0 to MaxTTL")
	between("MaxStale", o.MaxStale, 0, cachelimit.MaxTTL, "0 to 10 years")
	wrong.Check(o.StaleWhileRevalidate >= 0, "StaleWhileRevalidate", "must not be negative")
	wrong.Check(o.StaleIfError >= 0, "StaleIfError", "must not be negative")
	between("PassTTL", o.PassTTL, time.Second, time.Hour, "1s to 1h")
	wrong.Check(o.MaxBody >= 0 && o.MaxBody <= maxValue-bodyRoom, "MaxBody", fmt.Sprintf("must be from 0 to %d: Config.MaxValueSize less %d", maxValue-bodyRoom, bodyRoom))
	wrong.Check(o.MaxVariants >= 1 && o.MaxVariants <= 1024, "MaxVariants", "must be from 1 to 1024")
	wrong.Check(o.StatusName == "-" || isToken(o.StatusName), "StatusName", "must be a token that begins with a letter")
	wrong.Check(o.NearCacheBytes >= 0, "NearCacheBytes", "must not be negative")
	between("ReadTimeout", o.ReadTimeout, time.Millisecond, time.Minute, "1ms to 1m")
	between("LoadTimeout", o.LoadTimeout, 10*time.Millisecond, 24*time.Hour, "10ms to 24h")
	if o.LeaseTTL != -1 {
		between("LeaseTTL", o.LeaseTTL, 100*time.Millisecond, time.Minute, "100ms to 1m")
	}
	wrong.Check(o.MaxLoads >= 1, "MaxLoads", "must be at least 1")
	if !named {
		cacheName = ""
	}
	return o, fail.Arguments("new", cacheName, wrong)
}

func (o Options) withDefaults(r *madcrow.Redis, maxValue int) Options {
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.MaxTTL, 24*time.Hour)
	def(&o.MaxStale, 24*time.Hour)
	def(&o.PassTTL, 10*time.Second)
	def(&o.ReadTimeout, 250*time.Millisecond)
	def(&o.LoadTimeout, 30*time.Second)
	def(&o.LeaseTTL, 3*time.Second)
	if o.MaxBody == 0 {
		o.MaxBody = min(1<<20, max(0, maxValue-bodyRoom))
	}
	if o.MaxLoads == 0 {
		o.MaxLoads = 1024
	}
	if o.MaxVariants == 0 {
		o.MaxVariants = 64
	}
	if o.StatusName == "" {
		o.StatusName = "madcrow"
	}
	if o.Logger = guard.Logger(o.Logger); o.Logger == nil {
		o.Logger = r.Logger()
	}
	o.Credentials, o.KeyHeaders = canonical(o.Credentials), canonical(o.KeyHeaders)
	return o
}

func canonical(names []string) []string {
	names = slices.Clone(names)
	for i := range names {
		names[i] = http.CanonicalHeaderKey(names[i])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// isToken as in RFC 8941.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || !(s[i] >= '0' && s[i] <= '9') && strings.IndexByte("-_.:/*", s[i]) < 0) {
			return false
		}
	}
	return s != ""
}
