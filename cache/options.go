package cache

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/cachelimit"
	"github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/guard"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/internal/operr"
)

// Options says how a cache works. The zero value works.
type Options[T any] struct {
	// Codec encodes values. Defaults to [madcrow.Text] for strings,
	// [madcrow.Bytes] for byte slices and [madcrow.JSON] for all else.
	Codec madcrow.Codec[T]

	// Load is the loader of [Cache.Load], for a cache whose values all come from one
	// place. It returns [ErrNotFound] where there is no value. Defaults to none.
	Load func(ctx context.Context, key string) (T, error)

	// TTL is how long a value is fresh, from 10 ms to 10 years. Defaults to 5
	// minutes.
	TTL time.Duration
	// Jitter is the part of TTL, 0 to 0.5, by which lives are shortened at
	// random, so that what was stored together does not expire together. -1 is
	// none. Defaults to 0.05.
	Jitter float64
	// NegativeTTL is how long the absence of a value is cached; -1 is not at
	// all. Defaults to a tenth of TTL, at most 30 seconds.
	NegativeTTL time.Duration
	// StaleTTL is how long after TTL a value is kept, to be served when the
	// loader fails or is slow. Defaults to 0: not at all.
	StaleTTL time.Duration
	// Sliding lets every read restart the life. It costs one write for half
	// a life at most.
	Sliding bool

	// RefreshAhead lets a read of a value that has used this part of its life
	// (0 to 1, exclusive) load it again in the background. 0 is off, unless
	// RefreshEarly is set.
	RefreshAhead float64
	// RefreshEarly refreshes in the background at random, the earlier the
	// longer the value took to load, as XFetch does (Vattani, Chierichetti,
	// Lowenstein: Optimal Probabilistic Cache Stampede Prevention, 2015). 1 is
	// their β; more is earlier. 0 is off.
	RefreshEarly float64

	// SoftTimeout is how long GetOrLoad waits for a load where a stale value
	// can be had; the load goes on. Defaults to 0: as long as without.
	SoftTimeout time.Duration
	// HardTimeout is how long GetOrLoad waits for a load at most. Defaults to
	// LoadTimeout.
	HardTimeout time.Duration
	// LoadTimeout is when a load is cancelled and given up, from 10 ms.
	// Defaults to 30 seconds.
	LoadTimeout time.Duration
	// Backoff is how long after a failed load the next one may begin. It
	// doubles with each failure in a row, up to 32 times. Defaults to 500 ms.
	Backoff time.Duration
	// MaxLoads bounds how many loads run at the same time in this process.
	// Defaults to 128.
	MaxLoads int
	// LeaseTTL is how long a load of a process that died keeps others from
	// loading, from 100 ms; a living one renews it. -1 lets each process load
	// for itself. Defaults to 3 seconds.
	LeaseTTL time.Duration

	// NearCacheBytes is how many bytes the values that are kept decoded in this process
	// may take; 0 is none. It is their memory as it is used, estimated, not what
	// Redis holds: a decoded value may take many times that. Values must then
	// not be changed by those who get them.
	NearCacheBytes int64
	// NearTTL is how long a copy in this process is believed where Redis does
	// not notify of changes: it refuses CLIENT TRACKING, what it pushes does not
	// arrive (RESP3 is switched off, or a proxy drops it), or it is away.
	// Defaults to a second.
	NearTTL time.Duration

	// ReadTimeout bounds reads from Redis, after which GetOrLoad loads.
	// Defaults to 250 ms, at most Config.CommandTimeout.
	ReadTimeout time.Duration

	// Tags are those of every entry, beside those of the call.
	Tags []string

	// Logger gets a line when loads begin to fail and one when they succeed again,
	// panics of loaders with their stack, and values that cannot be encoded or
	// decoded. No key and no value reaches it, but the texts of the loader's errors
	// do. Defaults to that of the Redis.
	Logger *slog.Logger
}

const (
	minTTL     = cachelimit.MinTTL
	maxTTL     = cachelimit.MaxTTL
	maxBackoff = 32 // times Options.Backoff
)

// filled returns the options with their defaults, or every problem.
func (o Options[T]) filled(r *madcrow.Redis, cacheName string) (Options[T], error) {
	var wrong operr.Arguments
	wrong.Check(keys.ValidName(cacheName), "name", keys.NameRule)
	o = o.withDefaults(r)
	o.checkTimes(&wrong)
	wrong.Check(o.Jitter <= 0.5, "Jitter", "must be from 0 to 0.5, or -1 for none")
	wrong.Check(o.RefreshAhead >= 0 && o.RefreshAhead < 1, "RefreshAhead", "must be from 0 to 1, exclusive")
	wrong.Check(o.RefreshEarly >= 0, "RefreshEarly", "must not be negative")
	wrong.Check(o.MaxLoads >= 1, "MaxLoads", "must be at least 1")
	wrong.Check(o.NearCacheBytes >= 0, "NearCacheBytes", "must not be negative")
	text := cachelimit.TagProblem(o.Tags)
	wrong.Check(text == "", "Tags", text)
	if !keys.ValidName(cacheName) {
		cacheName = ""
	}
	return o, fail.Arguments("new", cacheName, wrong)
}

func (o Options[T]) withDefaults(r *madcrow.Redis) Options[T] {
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	if o.Codec == nil {
		o.Codec = codec.Default[T]()
	}
	if o.Logger = guard.Logger(o.Logger); o.Logger == nil {
		o.Logger = r.Logger()
	}
	def(&o.TTL, 5*time.Minute)
	def(&o.NegativeTTL, max(minTTL, min(o.TTL/10, 30*time.Second)))
	def(&o.LoadTimeout, 30*time.Second)
	def(&o.HardTimeout, o.LoadTimeout)
	def(&o.Backoff, 500*time.Millisecond)
	def(&o.LeaseTTL, 3*time.Second)
	def(&o.NearTTL, time.Second)
	def(&o.ReadTimeout, 250*time.Millisecond)
	if o.Jitter == 0 {
		o.Jitter = 0.05
	}
	o.Jitter = max(o.Jitter, 0)
	if o.MaxLoads == 0 {
		o.MaxLoads = 128
	}
	return o
}

func (o Options[T]) checkTimes(wrong *operr.Arguments) {
	between := func(name string, v, least, most time.Duration) {
		wrong.Check(v >= least && v <= most, name, fmt.Sprintf("must be from %s to %s", inWords(least), inWords(most)))
	}
	between("TTL", o.TTL, minTTL, maxTTL)
	between("StaleTTL", o.StaleTTL, 0, maxTTL)
	between("LoadTimeout", o.LoadTimeout, 10*time.Millisecond, 24*time.Hour)
	wrong.Check(o.HardTimeout >= time.Millisecond && o.HardTimeout <= o.LoadTimeout, "HardTimeout", "must be from 1ms to LoadTimeout")
	wrong.Check(o.SoftTimeout >= 0 && o.SoftTimeout <= o.HardTimeout, "SoftTimeout", "must be from 0 to HardTimeout")
	between("Backoff", o.Backoff, time.Millisecond, time.Hour)
	between("NearTTL", o.NearTTL, time.Millisecond, time.Hour)
	between("ReadTimeout", o.ReadTimeout, time.Millisecond, time.Minute)
	if o.NegativeTTL != -1 {
		between("NegativeTTL", o.NegativeTTL, minTTL, maxTTL)
	}
	if o.LeaseTTL != -1 {
		between("LeaseTTL", o.LeaseTTL, 100*time.Millisecond, time.Minute)
	}
}

// inWords is a bound as people write it: 10 years are no "87600h0m0s".
func inWords(d time.Duration) string {
	const year = 365 * 24 * time.Hour
	switch {
	case d == 0:
		return "0"
	case d%year == 0:
		return strconv.Itoa(int(d/year)) + " years"
	case d%time.Hour == 0:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d%time.Minute == 0:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	}
	return d.String()
}

// CallOption changes one call.
type CallOption func(*call)

type call struct {
	tags []string
	ttl  time.Duration
	// readOnly: no load follows, so invalidations need not be tracked.
	readOnly bool
}

// WithTags adds tags to the entry that is stored, at most 63 with those of the
// options. A read with tags takes an entry without one of them for a miss:
// no one could remove it by that tag.
func WithTags(tags ...string) CallOption {
	return func(c *call) { c.tags = append(c.tags, tags...) }
}

// WithTTL is Options.TTL for what this call stores.
func WithTTL(ttl time.Duration) CallOption { return func(c *call) { c.ttl = ttl } }

func checkTags(cacheName string, tags []string) error {
	if text := cachelimit.TagProblem(tags); text != "" {
		return fail.Argument("call", cacheName, "tags", text)
	}
	return nil
}
