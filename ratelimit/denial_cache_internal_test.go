package ratelimit

import (
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/clock"
)

func TestDenialCache_WhatWasAskedBeforeAResetIsNotRememberedAfterIt(t *testing.T) {
	d := newDenialCache(64)
	before := clock.Now()
	d.remove("a")
	if d.add("a", 1, before, time.Minute, time.Minute); remembers(d, "a", 1) {
		t.Error("an answer from before the reset is believed after it")
	}
	time.Sleep(time.Microsecond)
	if d.add("a", 1, clock.Now(), time.Minute, time.Minute); !remembers(d, "a", 1) {
		t.Error("nothing is remembered any more")
	}
}

func remembers(d *denialCache, subject string, cost int64) bool {
	_, _, ok := d.lookup(subject, cost, clock.Now())
	return ok
}

// The answer may have been on its way for long: the wait counts from when it
// came, and being believed from when it was asked for.
func TestDenialCache_TheWaitIsNeverTooShort(t *testing.T) {
	d := newDenialCache(64)
	const onItsWay = 400 * time.Millisecond
	asked := clock.Now() - int64(onItsWay)
	d.cleared.Store(asked - 1)
	d.add("a", 1, asked, 5*time.Second, 6*time.Second)
	now := clock.Now()
	retry, reset, ok := d.lookup("a", 1, now)
	if !ok || retry < 5*time.Second-50*time.Millisecond || reset < 6*time.Second-50*time.Millisecond {
		t.Errorf("%v %v %v", retry, reset, ok)
	}
	if _, _, ok := d.lookup("a", 1, asked+int64(denialLife)); ok {
		t.Error("believed for longer than its life after it was asked for")
	}
	if remembers(d, "a", 0) || !remembers(d, "a", 2) {
		t.Error("a denial is one of this cost and above")
	}
}
