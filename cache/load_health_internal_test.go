package cache

import (
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
)

// A key that is never asked for again does not keep the log from saying that loads
// succeed again.
func TestLoadHealth_IsOverWhenNoLoadHasFailedForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &testkit.Log{}
		h := newLoadHealth(log.Logger(), "c")
		for i := range 2 * mostFailing {
			h.failed(strconv.Itoa(i), errors.New("away"), 0)
		}
		h.succeeded("0")
		time.Sleep(defaultQuiet - time.Second)
		h.succeeded("1")
		if lines := log.With("succeed again"); len(lines) != 0 {
			t.Errorf("said at once: %q", lines)
		}
		time.Sleep(time.Second)
		h.succeeded("2")
		h.succeeded("3")
		if failed, well := log.With("a load failed"), log.With("failures=2000"); len(failed) != 1 || len(well) != 1 {
			t.Errorf("%q, %q", failed, well)
		}
	})
}

// Where a small part of all loads fails, each failure was the begin of an outage and
// the next success its end: two lines each time.
func TestLoadHealth_ShortOutagesInARowDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &testkit.Log{}
		h := newLoadHealth(log.Logger(), "c")
		for range 1000 { // 10 s
			h.failed("k", errors.New("away"), 0)
			h.succeeded("k")
			time.Sleep(10 * time.Millisecond)
		}
		if failed, well := log.With("a load failed"), log.With("succeed again"); len(failed) != mostOutages || len(well) != mostOutages {
			t.Errorf("%d and %d lines", len(failed), len(well))
		}
		time.Sleep(defaultQuiet)
		h.failed("k", errors.New("away"), 0)
		h.succeeded("k")
		if failed, well := log.With("a load failed"), log.With("others_before=995"); len(failed) != mostOutages+1 || len(well) != 1 {
			t.Errorf("a minute later: %d and %d lines", len(failed), len(well))
		}
	})
}
