package cache_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// listener keeps events.
type listener struct {
	madcrow.NopRecorder
	mu  sync.Mutex
	all []madcrow.Event
}

func (l *listener) Event(_ context.Context, e madcrow.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

func (l *listener) of(t madcrow.EventType) (found []madcrow.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		if e.Type == t {
			found = append(found, e)
		}
	}
	return found
}

// Five loads failed in a row behind stale values: not one was counted, and nothing
// was in the log.
func TestLoads_ThatFailBehindStaleValuesAreCountedAndSaidOnce(t *testing.T) {
	events, log := &listener{}, &testkit.Log{}
	cfg := ownConfig(t)
	cfg.Recorder, cfg.Logger = events, log.Logger()
	c := newCache(t, openConfig(t, cfg), cache.Options[string]{TTL: 50 * time.Millisecond, Jitter: -1, StaleTTL: time.Hour, Backoff: time.Millisecond})
	mustLoad(t, c, "k", always("old"), "old")
	time.Sleep(60 * time.Millisecond)
	failing := func(context.Context) (string, error) { return "", errDatabase }
	for range 5 {
		mustLoad(t, c, "k", failing, "old")
		time.Sleep(40 * time.Millisecond) // beyond the backoff, which doubles
	}
	failures, stale := events.of(madcrow.EventCacheLoadError), events.of(madcrow.EventCacheStale)
	if len(failures) != 5 || len(stale) != 5 {
		t.Fatalf("%d failed loads and %d stale answers are counted", len(failures), len(stale))
	}
	for _, e := range failures {
		if e.Name != "c" || e.Reason != "error" || !errors.Is(e.Err, errDatabase) || e.Duration <= 0 {
			t.Errorf("%+v", e)
		}
	}
	lines := log.With("a load failed")
	if len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "stale_until=") ||
		!strings.Contains(lines[0], "cache=c") || !strings.Contains(lines[0], errDatabase.Error()) {
		t.Errorf("%q", lines)
	}
	testkit.Eventually(t, "it loads again", func() bool {
		v, err := c.GetOrLoad(t.Context(), "k", always("new"))
		return v == "new" && err == nil
	})
	lines = log.With("loads succeed again")
	if len(lines) != 1 || !strings.Contains(lines[0], "level=INFO") || !strings.Contains(lines[0], "failures=5") ||
		!strings.Contains(lines[0], "stale_answers=5") || !strings.Contains(lines[0], "lasted=") {
		t.Errorf("%q", lines)
	}
	if loads := events.of(madcrow.EventCacheLoad); len(loads) != 7 || loads[0].Duration <= 0 {
		t.Errorf("%d loads: %+v", len(loads), loads)
	}
}

func TestLoads_OneKeyThatFailsAmongOthersIsSaidOnce(t *testing.T) {
	log := &testkit.Log{}
	c := newCache(t, open(t), cache.Options[string]{Backoff: time.Millisecond, Logger: log.Logger()})
	for range 5 {
		if _, err := c.GetOrLoad(t.Context(), "broken", func(context.Context) (string, error) { return "", errDatabase }); !errors.Is(err, errDatabase) {
			t.Fatal(err)
		}
		mustLoad(t, c, "well", always("v"), "v")
		if err := c.Delete(t.Context(), "well"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Millisecond)
	}
	if failed, well := log.With("a load failed"), log.With("succeed again"); len(failed) != 1 || len(well) != 0 || strings.Contains(failed[0], "stale_until") || strings.Contains(failed[0], "broken") {
		t.Errorf("%q, %q", failed, well)
	}
}

func TestLoads_APanicIsInTheLogWithItsStackOnceForEachPlace(t *testing.T) {
	log := &testkit.Log{}
	c := newCache(t, open(t), cache.Options[string]{Backoff: time.Millisecond, Logger: log.Logger()})
	var none *row
	nilPointer := func(context.Context) (string, error) { return none.name, nil }
	other := func(context.Context) (string, error) { panic("boom") }
	for range 3 {
		for key, load := range map[string]func(context.Context) (string, error){"a": nilPointer, "b": other} {
			if _, err := c.GetOrLoad(t.Context(), key, load); err == nil {
				t.Fatal("no error")
			}
		}
		if _, err := c.GetOrLoadMany(t.Context(), []string{"x", "y"}, func(context.Context, []string) (map[string]string, error) { panic("many") }); err == nil {
			t.Fatal("no error")
		}
		time.Sleep(20 * time.Millisecond)
	}
	lines := log.With("a loader panicked")
	if len(lines) != 3 {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	for _, line := range lines {
		if !strings.Contains(line, "level=ERROR") || !strings.Contains(line, "TestLoads_APanicIsInTheLogWithItsStackOnceForEachPlace.func") {
			t.Error(line)
		}
	}
}

// spans is a Recorder that makes spans.
type spans struct {
	listener
	ended chan error
}

type spanKey struct{}

func (s *spans) Start(ctx context.Context, span madcrow.Span) (context.Context, func(error)) {
	return context.WithValue(ctx, spanKey{}, span), func(err error) { s.ended <- err }
}

func TestLoads_HaveASpanOfTheirCaller(t *testing.T) {
	type callerKey struct{}
	tracer := &spans{ended: make(chan error, 10)}
	cfg := ownConfig(t)
	cfg.Recorder = tracer
	c := newCache(t, openConfig(t, cfg), cache.Options[string]{})
	ctx := context.WithValue(t.Context(), callerKey{}, "caller")
	for key, want := range map[string]error{"well": nil, "failing": errDatabase, "none": cache.ErrNotFound, "exits": errors.New("it ends")} {
		_, _ = c.GetOrLoad(ctx, key, func(ctx context.Context) (string, error) {
			if span, _ := ctx.Value(spanKey{}).(madcrow.Span); span != (madcrow.Span{Op: "cache.load", Name: "c"}) || ctx.Value(callerKey{}) != "caller" {
				t.Errorf("%s: the loader's context has the span %+v", key, span)
			}
			if key == "exits" {
				runtime.Goexit()
			}
			return "", want
		})
		switch err := <-tracer.ended; {
		case key == "exits" && err != nil, key == "none" && err == nil, errors.Is(err, want):
		default:
			t.Errorf("%s: the span ended with %v", key, err)
		}
	}
	_, _ = c.GetOrLoadMany(ctx, []string{"x", "y"}, func(context.Context, []string) (map[string]string, error) { return nil, nil })
	<-tracer.ended
	if len(tracer.ended) != 0 {
		t.Error("one call of a loader has several spans")
	}
}
