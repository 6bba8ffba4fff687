package madcrow_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

type (
	builder = madcrow.Builder
	command = madcrow.Command
)

func get(key string) func(builder) command {
	return func(b builder) command { return b.Get().Key(key).Build() }
}

func set(key, value string) func(builder) command {
	return func(b builder) command { return b.Set().Key(key).Value(value).Build() }
}

func incr(key string) func(builder) command {
	return func(b builder) command { return b.Incr().Key(key).Build() }
}

func arbitrary(args ...string) func(builder) command {
	return func(b builder) command { return b.Arbitrary(args...).Build() }
}

// open opens a Redis that is closed when the test ends.
func open(t testing.TB, cfg madcrow.Config) *madcrow.Redis {
	t.Helper()
	if testing.Verbose() && cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// server starts a Redis and opens it.
func server(t testing.TB, opts ...madcrowtest.Option) (*madcrowtest.Server, *madcrow.Redis) {
	t.Helper()
	s := madcrowtest.StartRedis(t, opts...)
	r := open(t, s.Config())
	await(t, r, madcrow.StateUp, 5*time.Second)
	return s, r
}

func await(t testing.TB, r *madcrow.Redis, want madcrow.State, within time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for st := range r.Watch(ctx) {
		if st.State == want {
			return time.Since(start)
		}
	}
	t.Fatalf("state is %v after %v, want %v: %v", r.State(), within, want, r.Err())
	return 0
}

func mustSet(t testing.TB, r *madcrow.Redis, key, value string) {
	t.Helper()
	if _, err := r.Do(t.Context(), set(key, value)); err != nil {
		t.Fatal(err)
	}
}

func mustGet(t testing.TB, r *madcrow.Redis, key, want string) {
	t.Helper()
	msg, err := r.Do(t.Context(), get(key))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := msg.ToString(); got != want {
		t.Fatalf("GET %s = %q, want %q", key, got, want)
	}
}

// strict is true in `make chaos`, which runs alone and without the race
// detector; otherwise promised times have four times the slack.
var strict = testkit.Chaos

func slack(d time.Duration) time.Duration {
	if strict {
		return d
	}
	return 4 * d
}

// length is how long a fault lasts: short in the usual run.
func length(usual, chaos time.Duration) time.Duration {
	if strict {
		return chaos
	}
	return usual
}

// logLines is a log for a test to read.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// with returns the lines that contain text.
func (l *logLines) with(text string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

// await waits for n lines that contain text.
func (l *logLines) await(t testing.TB, n int, text string, within time.Duration) {
	t.Helper()
	for end := time.Now().Add(within); len(l.with(text)) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %d × %q in the log after %v, but %q", n, text, within, l.with(""))
		}
	}
}

// changes counts what Watch tells until stop is called.
func changes(t testing.TB, r *madcrow.Redis) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	n := make(chan int)
	go func() {
		told := 0
		for range r.Watch(ctx) {
			told++
		}
		n <- told
	}()
	return func() int { cancel(); return <-n }
}

// lateness measures, beside a load, how late the scheduler wakes a goroutine
// that only sleeps. What it finds is not the library's fault.
type lateness struct {
	most atomic.Int64
	stop chan struct{}
	done chan struct{}
}

func measureLateness() *lateness {
	l := &lateness{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for {
			start := time.Now()
			select {
			case <-l.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if late := int64(time.Since(start) - 5*time.Millisecond); late > l.most.Load() {
				l.most.Store(late)
			}
		}
	}()
	return l
}

func (l *lateness) end() time.Duration {
	close(l.stop)
	<-l.done
	return time.Duration(l.most.Load())
}

// within fails when fn takes longer than limit and its slack.
func within(t *testing.T, what string, limit time.Duration, fn func()) {
	t.Helper()
	limit = slack(limit)
	start := time.Now()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(limit + 8*time.Second):
	}
	if d := time.Since(start); d > limit {
		t.Errorf("%s took %v, want at most %v", what, d, limit)
	}
}
