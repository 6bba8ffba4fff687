package ratelimit_test

import (
	"fmt"
	"testing"
)

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
