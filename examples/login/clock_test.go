package main

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// The program over TLS, with a Redis whose clock is set: a session ends 30
// minutes after its last use, and 12 hours after the login whatever its use.
func TestSessions_EndByTheClock(t *testing.T) {
	redis := miniredis.RunT(t)
	now := time.Now()
	pass := func(d time.Duration) {
		now = now.Add(d)
		redis.SetTime(now)
		redis.FastForward(d)
	}
	pass(0)
	s := open(t, "REDIS_PORT="+redis.Port())
	b := s.browser(firefox)

	b.login("ada")
	for range 3 {
		if pass(25 * time.Minute); !b.in("ada") {
			t.Fatal("used each 25 minutes, and ended")
		}
	}
	if pass(31 * time.Minute); b.in("ada") {
		t.Error("not used for 31 minutes, and alive")
	}

	b.login("ada")
	stolen := b.cookie()
	for used := time.Duration(0); used+25*time.Minute < 12*time.Hour; used += 25 * time.Minute {
		if pass(25 * time.Minute); !b.in("ada") {
			t.Fatalf("ended after %v, in use", used)
		}
	}
	if pass(25 * time.Minute); b.in("ada") {
		t.Error("alive after 12 hours")
	}
	b.plant(stolen)
	if b.in("ada") {
		t.Error("its identifier lives on")
	}
	if b.login("ada"); !b.in("ada") {
		t.Error("no login after that")
	}
}
