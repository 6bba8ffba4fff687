package logonce

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestReasons_EachOnceUntilItIsOver(t *testing.T) {
	var r Reasons
	if r.Clear() {
		t.Error("something was over that never began")
	}
	a, b := errors.New("a"), errors.New("b")
	for i, want := range []bool{true, true, false, false, false} {
		if got := r.First([]error{a, b, a, b, a}[i]); got != want {
			t.Errorf("%d: %v, want %v", i, got, want)
		}
	}
	if !r.Clear() || r.Clear() {
		t.Error("the end of it is not said once")
	}
	if !r.First(a) {
		t.Error("what comes again after the end is not said")
	}
}

func TestReasons_AreBounded(t *testing.T) {
	var r Reasons
	said := 0
	for i := range 10 * most {
		if r.First(fmt.Errorf("%d", i)) {
			said++
		}
	}
	if said != most || len(r.logged) != most {
		t.Errorf("said %d, keeps %d, want %d", said, len(r.logged), most)
	}
}

// The reasons of several Sentinels were joined in the order in which these
// failed, so that one outage was a new reason each half second.
func TestText_OneReasonHasOneText(t *testing.T) {
	a, b := errors.New("10.0.0.1:1: refused"), errors.New("10.0.0.2:1: refused")
	for _, pair := range [][2]error{
		{errors.Join(a, b), errors.Join(b, a)},
		{errors.New("read tcp 10.0.0.1:50412->10.0.0.2:6379: reset"), errors.New("read tcp 10.0.0.1:50413->10.0.0.2:6379: reset")},
		{errors.New("lookup r on 10.0.0.9:53: read udp [::1]:1->10.0.0.9:53: i/o timeout"), errors.New("lookup r on 10.0.0.9:53: read udp [::1]:2->10.0.0.9:53: i/o timeout")},
		{nil, nil},
	} {
		if x, y := Text(pair[0]), Text(pair[1]); x != y {
			t.Errorf("%q and %q", x, y)
		}
	}
	if Text(a) == Text(b) {
		t.Error("two addresses are one")
	}
}

func TestEvery_IsDueOnceInAWhileAndCountsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e Every
		var due []int
		for range 130 { // one a second
			due = append(due, e.Due(time.Minute))
			time.Sleep(time.Second)
		}
		if due[0] != 1 || due[60] != 60 || due[120] != 60 || due[59]+due[61]+due[129] != 0 {
			t.Errorf("%v", due)
		}
	})
}
