package stream_test

import (
	"context"
	"flag"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

var config madcrow.Config

func TestMain(m *testing.M) {
	if madcrowtest.OlderThan(nil, "6.2") { // examples cannot skip themselves
		_ = flag.Set("test.skip", "^Example")
	}
	madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { config = s.Config() })
}

type note struct {
	N int `json:"n"`
}

// open connects to the server of the package, under a key prefix of the test's
// own.
func open(t testing.TB) *madcrow.Redis {
	t.Helper()
	cfg := config
	cfg.KeyPrefix = t.Name() + ":"
	return openConfig(t, cfg)
}

func openConfig(t testing.TB, cfg madcrow.Config) *madcrow.Redis {
	t.Helper()
	cfg.Require = true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

// needStreams leaves out a test where the servers have no streams as we use them.
func needStreams(t testing.TB) {
	t.Helper()
	if madcrowtest.OlderThan(t, "6.2") {
		t.Skip("streams need Redis 6.2")
	}
}

// long is for what a test does more of in `make soak`.
func long[T any](usual, soak T) T {
	if testkit.Soak {
		return soak
	}
	return usual
}

// counter counts calls and events.
type counter struct {
	madcrow.NopRecorder
	calls  atomic.Int64
	mu     sync.Mutex
	events map[string]int
}

func (c *counter) Operation(context.Context, madcrow.Operation) { c.calls.Add(1) }

func (c *counter) Event(_ context.Context, ev madcrow.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.events == nil {
		c.events = map[string]int{}
	}
	c.events[ev.Type.String()] += ev.N
}

func (c *counter) count(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.events["stream."+name]
}

// lines is a log that hands over each line.
type lines func(string)

func (l lines) Write(p []byte) (int, error) {
	l(string(p))
	return len(p), nil
}

func logTo(to func(line string)) *slog.Logger {
	return slog.New(slog.NewTextHandler(lines(to), nil))
}
