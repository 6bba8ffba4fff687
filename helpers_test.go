package madcrow_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

type (
	builder = madcrow.Builder
	command = madcrow.Command
)

// builds is a Redis or a transaction.
type builds interface{ B() builder }

func get(r builds, key string) command { return r.B().Get().Key(key).Build() }

func set(r builds, key, value string) command { return r.B().Set().Key(key).Value(value).Build() }

func incr(r builds, key string) command { return r.B().Incr().Key(key).Build() }

func arbitrary(r builds, args ...string) command { return r.B().Arbitrary(args...).Build() }

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
	if err := r.Do(t.Context(), set(r, key, value)).Err(); err != nil {
		t.Fatal(err)
	}
}

func mustGet(t testing.TB, r *madcrow.Redis, key, want string) {
	t.Helper()
	msg, err := r.Do(t.Context(), get(r, key)).Message()
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := msg.ToString(); got != want {
		t.Fatalf("GET %s = %q, want %q", key, got, want)
	}
}

// changes counts what Watch tells until stop is called.
func changes(t testing.TB, r *madcrow.Redis) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	n := make(chan int)
	go func() {
		notified := 0
		for range r.Watch(ctx) {
			notified++
		}
		n <- notified
	}()
	return func() int { cancel(); return <-n }
}
