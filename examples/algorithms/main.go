// Command algorithms draws what each algorithm of package ratelimit admits of
// one attack: docs/img/ratelimit-algorithms.svg. The decisions are those of the
// library, made by a Redis in this process. Its clock is set by this program,
// so eight minutes take a second, and the picture is the same each time.
//
//	go run . -o picture.svg
package main

//go:generate go run . -o ../../docs/img/ratelimit-algorithms.svg

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/ratelimit"
)

const (
	limit  = 100
	window = time.Minute
	length = 8 * window // of the attack
)

// attack is when a request comes, since the start.
func attack() (at []time.Duration) {
	evenly := func(from, to time.Duration, n int) {
		for i := range time.Duration(n) {
			at = append(at, from+(to-from)*(2*i+1)/time.Duration(2*n))
		}
	}
	evenly(0, length, 160) // honest use: 20 a minute
	evenly(2*window-6*time.Second, 2*window, 150)
	evenly(2*window, 2*window+6*time.Second, 150)
	evenly(4*window+window/2, 6*window+window/2, 600)
	slices.Sort(at)
	return at
}

// contestant is one limiter of the attacked.
type contestant struct {
	name    string
	notes   []string
	promise int // the most that it may admit in any window
	allow   func(ctx context.Context) (bool, error)

	admitted, denied []time.Duration
}

func main() {
	to := flag.String("o", "", "write the picture to this file and not to the standard output")
	flag.Parse()
	picture, err := run(context.Background())
	if err == nil && *to != "" {
		err = os.WriteFile(*to, picture, 0o644)
	} else if err == nil {
		_, err = os.Stdout.Write(picture)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) ([]byte, error) {
	redis, err := miniredis.Run()
	if err != nil {
		return nil, err
	}
	defer redis.Close()
	redis.ClockTTL(true) // keys expire by the clock that is set
	r, err := madcrow.Open(ctx, madcrow.Config{Host: redis.Host(), Port: redis.Server().Addr().Port, Embedded: true, Require: true})
	if err != nil {
		return nil, err
	}
	defer r.Close(ctx)
	contestants, err := enter(r)
	if err != nil {
		return nil, err
	}

	start := time.Date(2025, 1, 1, 12, 0, 0, 0, time.UTC) // a whole minute, for the fixed window
	for _, at := range attack() {
		redis.SetTime(start.Add(at))
		for _, c := range contestants {
			allowed, err := c.allow(ctx)
			switch {
			case err != nil:
				return nil, fmt.Errorf("%s: %w", c.name, err)
			case allowed:
				c.admitted = append(c.admitted, at)
			default:
				c.denied = append(c.denied, at)
			}
		}
	}
	for _, c := range contestants {
		if most := c.most(); most > c.promise {
			return nil, fmt.Errorf("%s admitted %d in one window and promises at most %d", c.name, most, c.promise)
		}
	}
	return draw(contestants), nil
}

func enter(r *madcrow.Redis) (all []*contestant, err error) {
	all = []*contestant{{
		name:    "A fixed window",
		notes:   []string{"One counter for each clock minute.", "At most 200 in any minute.", "For comparison: not in this library."},
		promise: 2 * limit,
		allow:   fixedWindow(r),
	}}
	ours := func(a ratelimit.Algorithm, promise int, name string, notes ...string) {
		rate := ratelimit.Per(window, limit)
		// Denials that are remembered end by the true clock, so none are.
		l, e := ratelimit.New(r, fmt.Sprintf("attacked%d", len(all)), ratelimit.Options{Rate: rate, FailPolicy: madcrow.FailClosed, Algorithm: a, DeniedSubjects: -1})
		if e != nil {
			err = e
			return
		}
		all = append(all, &contestant{name: name, notes: notes, promise: promise, allow: func(ctx context.Context) (bool, error) {
			d, err := l.Allow(ctx, "attacker")
			return d.Allowed, err
		}})
	}
	ours(ratelimit.SlidingLog(), limit, "SlidingLog",
		"Each request counts for 60 s, exactly.", "At most 100 in any minute.", "SortedSetLog decides alike.")
	ours(ratelimit.SlidingWindow(10), limit, "SlidingWindow(10)",
		"Each request counts for 60 to 66 s.", "At most 100 in any minute.")
	ours(ratelimit.GCRA(limit), 2*limit, "GCRA(100)",
		"A burst of 100, then one each 0.6 s.", "At most 200 in any minute:", "burst and limit.")
	ours(ratelimit.GCRA(20), limit+20, "GCRA(20)",
		"A burst of 20, then one each 0.6 s.", "At most 120 in any minute:", "burst and limit.")
	return all, err
}

// fixedWindow is what many write first: it admits its limit at the end of a
// minute and once more at the beginning of the next.
func fixedWindow(r *madcrow.Redis) func(ctx context.Context) (bool, error) {
	script := madcrow.NewScript("fixed_window", `
local t = redis.call('TIME')
local key = KEYS[1] .. math.floor(tonumber(t[1]) / 60)
local n = redis.call('INCR', key)
redis.call('EXPIRE', key, '60')
return n`)
	return func(ctx context.Context) (bool, error) {
		m, err := r.Eval(ctx, script, []string{"fixed:"}, nil).Message()
		if err != nil {
			return false, err
		}
		n, err := m.AsInt64()
		return n <= limit, err
	}
}

// most is the largest number that was admitted in any window.
func (c *contestant) most() (most int) {
	first := 0
	for last, at := range c.admitted {
		for c.admitted[first] <= at-window {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}
