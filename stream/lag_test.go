package stream_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/stream"
)

// After a failover Redis may count too many messages as waiting, for ever, and Lag
// said so although all were done.
func TestStream_LagIsRightAfterAFailover(t *testing.T) {
	t.Parallel()
	s := openShop(t, stream.Options[int]{KeepDone: true})
	s.order(t, 1, 100)
	acknowledge := func(context.Context, stream.Delivery[int]) error { return nil }
	stop := s.work(t, acknowledge, stream.WithSweep(stream.WorkOptions{}, 20*time.Millisecond, time.Hour))
	s.done(t)
	stop()
	last := fmt.Sprint(s.srv.Do(t, "XREVRANGE", shopLog, "+", "-", "COUNT", "1").([]any)[0].([]any)[0])
	miscount := func() { s.srv.Do(t, "XGROUP", "SETID", shopLog, "g", last, "ENTRIESREAD", "7") }
	miscount()
	if l := s.lag(t); l.Waiting != 0 {
		t.Errorf("all was done: %+v", l)
	}
	stop = s.work(t, acknowledge, stream.WorkOptions{})
	testkit.Eventually(t, "the count is right again", func() bool {
		info := fmt.Sprint(s.srv.Do(t, "XINFO", "GROUPS", shopLog))
		return strings.Contains(info, "entries-read 100 lag 0")
	})
	stop()
	s.order(t, 101, 103)
	if l := s.lag(t); l.Waiting != 3 {
		t.Errorf("three are waiting: %+v", l)
	}
}
