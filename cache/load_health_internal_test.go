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
		h := loadHealth{log: log.Logger(), name: "c", quiet: defaultQuiet}
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
