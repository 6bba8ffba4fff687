package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/redis/go-redis/v9"
	"github.com/throttled/throttled/v2"
	goredisstore "github.com/throttled/throttled/v2/store/goredisstore.v9"
	ulule "github.com/ulule/limiter/v3"
	ululestore "github.com/ulule/limiter/v3/drivers/store/redis"
)

// The races of the limiters. Every answer is checked: who admits what is to be
// denied, or the other way round, is out.
//
// Where all are admitted the windows are short, so that logs reach a steady
// length and each admission also removes an old one, as in service; rates of
// token buckets are such that their state is always there and never empty.

func limitAdmitted(e *environment) (race, error) {
	return limitRace(e, limits{
		name: "limit-admitted", what: "a decision, all admitted, 1,000 keys", keys: keys, admit: true,
		rate: ratelimit.Per(time.Second, 1_000_000), bucket: ratelimit.PerSecond(1), burst: 1_000_000,
	})
}

func limitAdmittedOneKey(e *environment) (race, error) {
	return limitRace(e, limits{
		name: "limit-admitted-one-key", what: "a decision, all admitted, 1 key", keys: 1, admit: true,
		rate: ratelimit.Per(100*time.Millisecond, 1_000_000), bucket: ratelimit.PerSecond(1_000_000), burst: 1_000_000,
	})
}

func limitDenied(e *environment) (race, error) {
	return limitRace(e, limits{
		name: "limit-denied", what: "a decision, all denied, 1,000 keys", keys: keys,
		rate: ratelimit.PerDay(100), bucket: ratelimit.PerDay(100), burst: 100,
	})
}

func limitDeniedOneKey(e *environment) (race, error) {
	return limitRace(e, limits{
		name: "limit-denied-one-key", what: "a decision, all denied, 1 key", keys: 1,
		rate: ratelimit.PerDay(100), bucket: ratelimit.PerDay(100), burst: 100,
	})
}

// limits says what the contestants of a race decide.
type limits struct {
	name, what string
	keys       int
	admit      bool
	rate       ratelimit.Rate // of windows
	bucket     ratelimit.Rate // of token buckets
	burst      int64
}

// decide asks one limiter for n requests of a subject.
type decide func(ctx context.Context, subject string, n int64) (allowed bool, err error)

func limitRace(e *environment, s limits) (race, error) {
	client := redis.NewClient(&redis.Options{Addr: net.JoinHostPort(e.host, strconv.Itoa(e.port))})
	e.closers = append(e.closers, client.Close)
	peers, err := s.peers(client)
	if err != nil {
		return race{}, err
	}
	ours, err := s.ours(e)
	if err != nil {
		return race{}, err
	}
	r := race{name: s.name, what: s.what, cpu: true}
	for _, c := range append(peers, ours...) {
		if !s.admit { // use the limit up
			for i := range s.keys {
				if allowed, err := c.decide(context.Background(), e.keys[i], s.burst); err != nil || !allowed {
					return race{}, fmt.Errorf("%s: it does not admit what is free: %v", c.name, err)
				}
			}
		}
		r.contestants = append(r.contestants, contestant{c.name, c.must, s.worker(e, c.decide)})
	}
	return r, nil
}

func (s limits) worker(e *environment, ask decide) func(int) func() error {
	return func(g int) func() error {
		ctx := context.Background()
		i := g * 37
		return func() error {
			i++
			allowed, err := ask(ctx, e.keys[i%s.keys], 1)
			if err == nil && allowed != s.admit {
				err = fmt.Errorf("allowed: %v", allowed)
			}
			return err
		}
	}
}

type limiter struct {
	name   string
	must   float64
	decide decide
}

// peers are the others, as they come: one go-redis client with its defaults.
func (s limits) peers(client *redis.Client) ([]limiter, error) {
	rate := redis_rate.NewLimiter(client)
	redisRate := func(prefix string) decide {
		limit := redis_rate.Limit{Rate: int(s.bucket.Limit), Period: s.bucket.Window, Burst: int(s.burst)}
		return func(ctx context.Context, subject string, n int64) (bool, error) {
			res, err := rate.AllowN(ctx, prefix+subject, limit, int(n))
			return err == nil && res.Allowed > 0, err
		}
	}
	thrice := [...]decide{redisRate(s.name + ":a:"), redisRate(s.name + ":b:"), redisRate(s.name + ":c:")}

	store, err := ululestore.NewStoreWithOptions(client, ulule.StoreOptions{Prefix: s.name + ":ulule"})
	if err != nil {
		return nil, err
	}
	fixed := ulule.New(store, ulule.Rate{Limit: s.rate.Limit, Period: s.rate.Window})

	cas, err := goredisstore.NewCtx(client, s.name+":throttled:")
	if err != nil {
		return nil, err
	}
	gcra, err := throttled.NewGCRARateLimiterCtx(cas, throttled.RateQuota{
		MaxRate: throttled.PerDuration(int(s.bucket.Limit), s.bucket.Window), MaxBurst: int(s.burst) - 1,
	})
	if err != nil {
		return nil, err
	}
	// Its default of 10 fails where many meet on one key.
	gcra.SetMaxCASAttemptsLimit(1_000_000)

	return []limiter{
		{"redis_rate v10 (GCRA)", 0, redisRate(s.name + ":")},
		{"ulule/limiter v3 (fixed window)", 0, func(ctx context.Context, subject string, n int64) (bool, error) {
			c, err := fixed.Increment(ctx, subject, n)
			return !c.Reached, err
		}},
		{"throttled v2 (GCRA by compare-and-swap)", 0, func(ctx context.Context, subject string, n int64) (bool, error) {
			limited, _, err := gcra.RateLimitCtx(ctx, subject, int(n))
			return !limited, err
		}},
		{"redis_rate v10, three limits in three calls", 0, func(ctx context.Context, subject string, n int64) (bool, error) {
			all := true
			for _, ask := range thrice {
				allowed, err := ask(ctx, subject, n)
				if err != nil {
					return false, err
				}
				all = all && allowed
			}
			return all, nil
		}},
	}, nil
}

// ours are asked at Redis each time, and where all are denied also as they
// come, which is without asking.
func (s limits) ours(e *environment) ([]limiter, error) {
	var failed error
	make := func(name string, rate ratelimit.Rate, a ratelimit.Algorithm, denied int) *ratelimit.Limiter {
		l, err := ratelimit.New(e.redis, s.name+"."+name, ratelimit.Options{Rate: rate, FailPolicy: madcrow.FailClosed, Algorithm: a, DeniedSubjects: denied})
		if err != nil {
			failed = err
		}
		return l
	}
	alone := func(l *ratelimit.Limiter) decide {
		return func(ctx context.Context, subject string, n int64) (bool, error) {
			d, err := l.AllowN(ctx, subject, n)
			return d.Allowed, err
		}
	}
	const ask = -1
	three := []*ratelimit.Limiter{
		make("group1", s.rate, ratelimit.SlidingLog(), ask),
		make("group2", s.rate, ratelimit.SlidingWindow(10), ask),
		make("group3", s.bucket, ratelimit.GCRA(s.burst), ask),
	}
	local := []limiter{
		{"madcrow SlidingLog, known here (≤ 250 ns)", 0, alone(make("known", s.rate, ratelimit.SlidingLog(), 0))},
		{"madcrow GCRA, known here (≤ 250 ns)", 0, alone(make("known", s.bucket, ratelimit.GCRA(s.burst), 0))},
	}
	asked := []limiter{
		{"madcrow SlidingLog", s.must(1.7), alone(make("log", s.rate, ratelimit.SlidingLog(), ask))},
		{"madcrow SortedSetLog", s.must(1.2), alone(make("set", s.rate, ratelimit.SortedSetLog(), ask))},
		{"madcrow SlidingWindow(10)", 0, alone(make("window", s.rate, ratelimit.SlidingWindow(10), ask))},
		{"madcrow GCRA", s.must(1.7), alone(make("gcra", s.bucket, ratelimit.GCRA(s.burst), ask))},
	}
	if failed != nil {
		return nil, failed
	}
	group, err := ratelimit.Join(three...)
	if err != nil {
		return nil, err
	}
	asked = append(asked, limiter{"madcrow Group of three, one call", 0, func(ctx context.Context, subject string, n int64) (bool, error) {
		j, err := group.AllowN(ctx, subject, n, n, n)
		return j.Allowed, err
	}})
	if s.admit {
		return asked, nil
	}
	return append(asked, local...), nil
}

// must is what is promised of admissions alone.
func (s limits) must(ratio float64) float64 {
	if s.admit {
		return ratio
	}
	return 0
}
