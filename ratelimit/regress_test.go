package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
)

func TestGroup_ACostOfZeroLeavesALimitOut(t *testing.T) {
	r := open(t)
	for name, a := range algorithms {
		t.Run(name, func(t *testing.T) {
			limit := func(name string, n int64, a ratelimit.Algorithm) *ratelimit.Limiter {
				return must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.PerMinute(n), ratelimit.FailClosed, ratelimit.WithAlgorithm(a), ratelimit.WithDeniedKeys(0)))
			}
			requests, size := limit(name+"-n", 9, a), limit(name+"-size", 5, a)
			g := must[*ratelimit.Group](t)(ratelimit.Join(requests, size))
			if j, err := g.AllowN(t.Context(), "a", 1, 0); err != nil || !j.Allowed || j.Limits[1].ResetAfter != 0 || j.Limits[1].Remaining != 5 {
				t.Errorf("%+v %v", j, err)
			}
			if d, err := size.Peek(t.Context(), "a"); err != nil || d.Remaining != 5 || d.ResetAfter != 0 {
				t.Errorf("something was counted: %+v %v", d, err)
			}
			// Nor does it deny when more is taken than there may be: its limit
			// was lowered, or tokens are booked ahead.
			if d, err := size.AllowN(t.Context(), "a", 5); err != nil || !d.Allowed {
				t.Fatalf("%+v %v", d, err)
			}
			lower := limit(name+"-size", 2, a)
			if name == "gcra" {
				b := must[*ratelimit.TokenBucket](t)(ratelimit.NewTokenBucket(r, name+"-size", ratelimit.PerMinute(5), 5, ratelimit.FailClosed))
				if res, err := b.Reserve(t.Context(), "a", 2, time.Minute); err != nil || !res.OK {
					t.Fatalf("%+v %v", res, err)
				}
				lower = b.Limiter
			}
			g = must[*ratelimit.Group](t)(ratelimit.Join(requests, lower))
			if j, err := g.AllowN(t.Context(), "a", 1, 0); err != nil || !j.Allowed {
				t.Errorf("%+v %v", j, err)
			}
		})
	}
}

func TestGroup_ACostOfZeroLeavesALimitOutWithoutRedisToo(t *testing.T) {
	r, err := madcrow.Open(t.Context(), madcrow.Config{Host: "127.0.0.1", Port: madcrowtest.FreePort(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	limit := func(name string, n int64) *ratelimit.Limiter {
		return must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.PerMinute(n), ratelimit.FailLocal(1)))
	}
	g := must[*ratelimit.Group](t)(ratelimit.Join(limit("requests", 9), limit("size", 2)))
	for i := range 9 {
		j, err := g.AllowN(t.Context(), "a", 1, 0)
		if err != nil || !j.Allowed || !j.Degraded || j.Limits[1].Remaining != 2 || j.Limits[1].ResetAfter != 0 {
			t.Fatalf("request %d: %+v %v", i, j, err)
		}
	}
	if j, err := g.AllowN(t.Context(), "a", 1, 0); err != nil || j.Allowed || len(j.Violated) != 1 || j.Violated[0] != "requests" {
		t.Errorf("%+v %v", j, err)
	}
}

func TestLimiter_OfABlockedSubjectNothingRemains(t *testing.T) {
	r := open(t)
	var all []*ratelimit.Limiter
	for name, a := range algorithms {
		l := must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.PerMinute(5), ratelimit.FailClosed, ratelimit.WithAlgorithm(a), ratelimit.WithDeniedKeys(0)))
		all = append(all, l)
		if err := l.Block(t.Context(), "a", time.Minute); err != nil {
			t.Fatal(err)
		}
		if d, err := l.Allow(t.Context(), "a"); err != nil || d.Allowed || d.Remaining != 0 {
			t.Errorf("%s: %+v %v", name, d, err)
		}
		if d, err := l.Peek(t.Context(), "a"); err != nil || d.Allowed || d.Remaining != 0 {
			t.Errorf("%s: %+v %v", name, d, err)
		}
	}
	g := must[*ratelimit.Group](t)(ratelimit.Join(all...))
	j, err := g.Allow(t.Context(), "a")
	if err != nil || j.Allowed {
		t.Fatalf("%+v %v", j, err)
	}
	for _, d := range j.Limits {
		if d.Allowed || d.Remaining != 0 {
			t.Errorf("%+v", d)
		}
	}
	c := must[*ratelimit.Concurrency](t)(ratelimit.NewConcurrency(r, "places", 3, time.Minute, ratelimit.FailClosed))
	if err := c.Block(t.Context(), "a", time.Minute); err != nil {
		t.Fatal(err)
	}
	if d, err := c.Peek(t.Context(), "a"); err != nil || d.Allowed || d.Remaining != 0 {
		t.Errorf("%+v %v", d, err)
	}
}

func TestLimiter_AWindowThatBecomesLongerForgetsNothing(t *testing.T) {
	r := open(t)
	for name, a := range map[string][2]ratelimit.Algorithm{
		"log": {ratelimit.SlidingLog(), ratelimit.SlidingLog()},
		"set": {ratelimit.SortedSetLog(), ratelimit.SortedSetLog()},
		// Of the same width, so that the buckets stay.
		"window": {ratelimit.SlidingWindow(1), ratelimit.SlidingWindow(20)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := func(window time.Duration, a ratelimit.Algorithm) *ratelimit.Limiter {
				return must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.Per(window, 5), ratelimit.FailClosed, ratelimit.WithAlgorithm(a), ratelimit.WithDeniedKeys(0)))
			}
			if d, err := limit(time.Second, a[0]).AllowN(t.Context(), "a", 5); err != nil || !d.Allowed {
				t.Fatalf("%+v %v", d, err)
			}
			longer := limit(20*time.Second, a[1])
			for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if d, err := longer.Allow(t.Context(), "a"); err != nil || d.Allowed || d.RetryAfter < 10*time.Second {
					t.Fatalf("%+v %v", d, err)
				}
			}
		})
	}
}

func TestScripts_AClockThatWasPutBackLocksNoSubjectOut(t *testing.T) {
	const clock, hour, minute = 1_700_000_000_000_000, 3_600_000_000, 60_000_000
	r := proofRedis(t)
	for _, p := range []modelPolicy{
		{kind: kindLog, limit: 10, window: minute},
		{kind: kindSet, limit: 10, window: minute},
		{kind: kindWindow, limit: 10, window: minute, extra: 6},
		{kind: kindGCRA, limit: 10, window: minute, extra: 10},
		{kind: kindGCRA, limit: 10, window: minute, extra: 10, wait: minute},
	} {
		for _, back := range []int64{1, minute / 2, minute, minute + minute/2, hour, 1000 * hour} {
			t.Run(fmt.Sprint(p.kind, p.wait, back), func(t *testing.T) {
				take := func(at, cost int64) op {
					return op{kind: opAsk, clock: at, asks: []ask{{0, p, cost}}, verb: verbTake, how: takeAll, id: fmt.Sprint(at)}
				}
				look := func(at int64) op {
					o := take(at, 1)
					o.verb, o.bound = verbLook, p.lockOut()
					return o
				}
				after := take(clock-back, 10)
				after.probe = true
				ops := []op{take(clock, 10), look(clock - back), after, look(clock - back + 1)}
				found, err := inRedis(t.Context(), r, ops)
				if err != nil {
					t.Fatal(err)
				}
				for i, o := range ops {
					if c := o.complain(found[i], replied{}); c != "" {
						t.Errorf("step %d: %s", i, c)
					}
				}
			})
		}
	}
}

// A look at a subject, under a clock that was put back by more than a window,
// once left what it did not believe to be believed later.
func TestScripts_WhatIsNotBelievedIsNotBelievedLater(t *testing.T) {
	const clock, minute = 1_700_000_000_000_000, 60_000_000
	p := modelPolicy{kind: kindWindow, limit: 10, window: minute, extra: 6}
	o := op{kind: opAsk, clock: clock, asks: []ask{{0, p, 10}}, verb: verbTake, how: takeAll}
	look := o
	look.clock, look.verb, look.asks = clock-3*minute/2, verbLook, []ask{{0, p, 1}}
	later := look
	later.clock += minute
	r := proofRedis(t)
	found, err := inRedis(t.Context(), r, []op{o, look, later})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range found[1:] {
		if s.reply[0] != 0 {
			t.Errorf("%v", s.reply)
		}
	}
}

// While a new version is rolled out, both ask. Each cut the other's buckets
// again, always to their ends, and so nothing ever left.
func TestScripts_TwoVersionsOfAWindowLockNoSubjectOut(t *testing.T) {
	const clock, second = 1_700_000_000_000_000, 1_000_000
	r := proofRedis(t)
	for _, buckets := range [][2]int64{{10, 10}, {7, 10}, {1, 60}, {60, 59}} {
		var ops []op
		for i := range int64(600) {
			p := modelPolicy{kind: kindWindow, limit: 10, window: 60 * second, extra: buckets[i%2]}
			ops = append(ops, op{kind: opAsk, clock: clock + i*second, asks: []ask{{0, p, 1}}, verb: verbTake, how: takeAll})
		}
		found, err := runBatch(t.Context(), r, ops, "0")
		if err != nil {
			t.Fatal(err)
		}
		admitted := 0
		for _, s := range found {
			if s.reply[0] == 0 {
				admitted++
			}
		}
		if admitted < 50 || admitted > 100 {
			t.Errorf("%v buckets: %d admitted in ten minutes, at most 10 in each", buckets, admitted)
		}
	}
}

// Two things at once that random schedules seldom meet: the window became
// shorter, and the clock went back.
func TestScripts_AShorterWindowUnderAClockThatWentBackEqualsTheModel(t *testing.T) {
	const clock, second = 1_700_000_000_000_000, 1_000_000
	r := proofRedis(t)
	for _, k := range []modelKind{kindLog, kindSet, kindWindow, kindGCRA} {
		take := func(at, window int64) op {
			p := modelPolicy{kind: k, limit: 20, window: window * second}
			if k == kindWindow || k == kindGCRA {
				p.extra = 10
			}
			return op{kind: opAsk, clock: clock + at*second, asks: []ask{{0, p, 1}}, verb: verbTake, how: takeAll, id: fmt.Sprint(at, window), probe: true, bound: p.lockOut()}
		}
		for _, window := range []int64{10, 20, 30, 60, 90} {
			for back := int64(0); back <= 100; back += 5 {
				var ops []op
				for at := int64(0); at < 60; at += 5 {
					ops = append(ops, take(at, 60))
				}
				look := take(55-back, window)
				look.verb = verbLook
				ops = append(ops, look, take(55-back, window), take(56-back, window), take(56, window))
				if at, complaint, err := compare(t.Context(), r, ops); err != nil || complaint != "" {
					t.Fatalf("%v, window %d, back by %d: step %d: %s %v", k, window, back, at, complaint, err)
				}
			}
		}
	}
}

// Another program's score may be anything, and its key may have no expiry: no wait
// ends in the past, and no subject is locked out for ever.
func TestSortedSetLog_ForeignScoresWithoutAnEnd(t *testing.T) {
	r := open(t)
	for i, score := range []string{"inf", "1e300", "1e18", "1764437602123", "1764437602123456"} {
		l, err := ratelimit.New(r, "foreign."+strconv.Itoa(i), ratelimit.PerMinute(1), ratelimit.FailClosed,
			ratelimit.WithAlgorithm(ratelimit.SortedSetLog()), ratelimit.WithDeniedKeys(0))
		if err != nil {
			t.Fatal(err)
		}
		key := r.Config().KeyPrefix + "m1:limit:" + l.Name() + ":s:{u}"
		do := func(args ...string) madcrow.Message {
			t.Helper()
			m, err := r.Do(t.Context(), func(b madcrow.Builder) madcrow.Command {
				return b.Arbitrary(args[0]).Keys(key).Args(args[1:]...).Build()
			})
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		do("ZADD", score, "x")
		d, err := l.Allow(t.Context(), "u")
		if err != nil || d.Allowed || d.RetryAfter < 24*time.Hour {
			t.Errorf("%s: %+v, %v", score, d, err)
		}
		life := do("PTTL")
		if left, err := life.AsInt64(); err != nil || left <= 0 || left > 2*60_000+1 {
			t.Errorf("%s: the key lives for %d ms, two windows are the most", score, left)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := l.Wait(ctx, "u"); !errors.Is(err, ratelimit.ErrTooLate) {
			t.Errorf("%s: Wait: %v", score, err)
		}
		cancel()
	}
}
