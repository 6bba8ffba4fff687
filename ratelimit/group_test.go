package ratelimit_test

import (
	"context"
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
				return must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.PerMinute(n), FailPolicy: madcrow.FailClosed, Algorithm: a, DeniedSubjects: -1}))
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
				b := must[*ratelimit.TokenBucket](t)(ratelimit.NewTokenBucket(r, name+"-size", ratelimit.TokenBucketOptions{Rate: ratelimit.PerMinute(5), Burst: 5, FailPolicy: madcrow.FailClosed}))
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
		return must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.PerMinute(n), FailPolicy: madcrow.FailLocal(1)}))
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

func TestGroup_AllOrNothing(t *testing.T) {
	r := open(t)
	var limits []*ratelimit.Limiter
	for name, a := range algorithms {
		limits = append(limits, must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.PerMinute(5), FailPolicy: madcrow.FailClosed, Algorithm: a, DeniedSubjects: -1})))
	}
	narrow := must[*ratelimit.Limiter](t)(ratelimit.New(r, "narrow", ratelimit.Options{Rate: ratelimit.PerSecond(2), FailPolicy: madcrow.FailClosed}))
	g := must[*ratelimit.Group](t)(ratelimit.Join(append(limits, narrow)...))
	for i := range 2 {
		if j, err := g.Allow(t.Context(), "a"); err != nil || !j.Allowed || j.Limiter != "narrow" || j.Remaining != int64(1-i) || len(j.Limits) != 5 {
			t.Fatalf("%+v %v", j, err)
		}
	}
	j, err := g.Allow(t.Context(), "a")
	if err != nil || j.Allowed || len(j.Violated) != 1 || j.Violated[0] != "narrow" {
		t.Fatalf("%+v %v", j, err)
	}
	for _, l := range limits {
		if d, err := l.Peek(t.Context(), "a"); err != nil || d.Remaining != 3 {
			t.Errorf("%s: %+v %v", l.Name(), d, err)
		}
	}
}
