// Package events hands the events of a package to the Recorder of its Redis.
package events

import (
	"context"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/sealed"
)

// Source reports what one instance does: a cache, a limiter, a stream. The zero
// value reports nothing, and so does one of a Redis without a Recorder: its methods
// cost a comparison then.
type Source struct {
	rec    madcrow.Recorder
	tracer madcrow.Tracer
	name   string
}

// Of returns the source of an instance.
func Of(r *madcrow.Redis, name string) Source {
	rec, tracer := r.Recorder(sealed.Key{})
	return Source{rec: rec, tracer: tracer, name: name}
}

// Listened reports whether anybody listens. It is for events that cost something
// to make.
func (s *Source) Listened() bool { return s.rec != nil }

// Count reports one event.
func (s *Source) Count(ctx context.Context, t madcrow.EventType) {
	if s.rec != nil {
		s.send(ctx, t, 1)
	}
}

// CountN reports n events of one type.
func (s *Source) CountN(ctx context.Context, t madcrow.EventType, n int) {
	if s.rec != nil {
		s.send(ctx, t, n)
	}
}

func (s *Source) send(ctx context.Context, t madcrow.EventType, n int) {
	s.rec.Event(ctx, madcrow.Event{Type: t, Name: s.name, N: n})
}

// Send reports an event with more than its type. Name is that of the instance
// where it is empty, and N is 1 where it is 0.
func (s *Source) Send(ctx context.Context, e madcrow.Event) {
	if s.rec == nil {
		return
	}
	if e.Name == "" {
		e.Name = s.name
	}
	e.N = max(e.N, 1)
	s.rec.Event(ctx, e)
}

// Start begins a span where the Recorder is a Tracer: op is "cache.load" and the
// like. The work gets the context, and end its error; end is never nil.
func (s *Source) Start(ctx context.Context, op string) (_ context.Context, end func(error)) {
	if s.tracer == nil {
		return ctx, endNothing
	}
	return s.tracer.Start(ctx, madcrow.Span{Op: op, Name: s.name})
}

func endNothing(error) {}
