package madcrow_test

import (
	"context"
	"regexp"
	"sync"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestEventType_EachHasATextOfPackageAndName(t *testing.T) {
	form := regexp.MustCompile(`^[a-z]+\.[a-z]+(_[a-z]+)*$`)
	seen := map[string]bool{}
	for e := madcrow.EventType(1); e.String() != "none"; e++ {
		text := e.String()
		if !form.MatchString(text) || seen[text] || e.Package()+"."+e.Name() != text {
			t.Errorf("type %d: %q, package %q, name %q", e, text, e.Package(), e.Name())
		}
		seen[text] = true
	}
	if len(seen) < 70 || !seen[madcrow.EventServiceHitNear.String()] {
		t.Errorf("only %d types have a text", len(seen))
	}
	for _, e := range []madcrow.EventType{0, 255} {
		if e.String() != "none" || e.Package() != "" || e.Name() != "none" {
			t.Errorf("type %d: %q, package %q, name %q", e, e, e.Package(), e.Name())
		}
	}
	if k := madcrow.Kind(0); k.String() != "none" {
		t.Errorf("no kind is %q", k)
	}
}

// tracer makes spans, and panics where evil is set.
type tracer struct {
	madcrow.NopRecorder
	mu    sync.Mutex
	spans []string
	evil  bool
}

type spanKey struct{}

func (r *tracer) Start(ctx context.Context, s madcrow.Span) (context.Context, func(error)) {
	if r.evil {
		panic("the tracer")
	}
	return context.WithValue(ctx, spanKey{}, s.Op), func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.spans = append(r.spans, s.Op+" "+s.Name+" "+err.Error())
	}
}

func (r *tracer) Operation(ctx context.Context, _ madcrow.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	op, _ := ctx.Value(spanKey{}).(string)
	r.spans = append(r.spans, "operation in "+op)
}

func TestTracer_SpansSurroundTheWorkAndAPanicChangesNothing(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	rec := &tracer{}
	cfg := s.Config()
	cfg.Recorder = rec
	r := open(t, cfg)
	source := events.Of(r, "products")
	ctx, end := source.Start(t.Context(), "cache.load")
	mustDo(t, r, ctx)
	end(context.Canceled)
	if len(rec.spans) != 2 || rec.spans[0] != "operation in cache.load" || rec.spans[1] != "cache.load products context canceled" {
		t.Errorf("spans %q", rec.spans)
	}
	rec.evil = true
	ctx, end = source.Start(t.Context(), "cache.load")
	if ctx != t.Context() {
		t.Error("after a panic the work has another context")
	}
	end(nil)

	cfg.Recorder = nil
	silent := events.Of(open(t, cfg), "products")
	if n := testing.AllocsPerRun(100, func() {
		_, end := silent.Start(t.Context(), "cache.load")
		silent.Count(t.Context(), madcrow.EventCacheHit)
		end(nil)
	}); n != 0 || silent.Listened() {
		t.Errorf("%v allocations where no one listens", n)
	}
}

// lazyTracer makes no span, and returns nothing for it.
type lazyTracer struct{ madcrow.NopRecorder }

func (lazyTracer) Start(context.Context, madcrow.Span) (context.Context, func(error)) {
	return nil, nil
}

// The work had no context, and panicked.
func TestTracer_WithoutAContextTheWorkHasItsOwn(t *testing.T) {
	cfg := madcrowtest.StartRedis(t).Config()
	cfg.Recorder = lazyTracer{}
	source := events.Of(open(t, cfg), "products")
	ctx, end := source.Start(t.Context(), "cache.load")
	if ctx != t.Context() {
		t.Errorf("the work has the context %v", ctx)
	}
	end(nil)
}

func mustDo(t *testing.T, r *madcrow.Redis, ctx context.Context) { //nolint:revive // t comes first
	t.Helper()
	if err := r.Do(ctx, r.B().Ping().Build()).Err(); err != nil {
		t.Fatal(err)
	}
}
