package pubsub_test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

// Behind a balancer that leads subscriptions to another server, each new
// connection was a line in the log, and the end of it none.
func TestProbe_LogsOnceThatNothingComesAndThatItIsOver(t *testing.T) {
	srv, other := madcrowtest.StartRedis(t), madcrowtest.StartRedis(t)
	var elsewhere atomic.Bool
	cfg := srv.Config()
	events := &counter{}
	cfg.Recorder = events
	cfg.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		if elsewhere.Load() {
			address = other.Addr()
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	var silent, over atomic.Int32
	r := openConfig(t, cfg)
	b := newBus(t, r, pubsub.Options{Probe: 100 * time.Millisecond, Logger: madcrowLog(func(line string) {
		if strings.Contains(line, "no messages arrive") {
			silent.Add(1)
		}
		if strings.Contains(line, "messages arrive again") {
			over.Add(1)
		}
	})})
	elsewhere.Store(true) // the next connection is that for pub/sub
	l := hearing(t, subscribeTo(topicOf(t, b, "t", pubsub.TopicOptions[string]{})))
	testkit.Eventually(t, "three new connections", func() bool { return events.count("renewed") >= 3 })
	elsewhere.Store(false)
	testkit.Eventually(t, "the end of it", func() bool { return over.Load() > 0 })
	if w, i := silent.Load(), over.Load(); w != 1 || i != 1 {
		t.Errorf("%d × that nothing comes, %d × that it is over", w, i)
	}
	l.stop()
	<-l.ended
}
