package madcrow

import (
	"context"
	"time"

	"github.com/madcrow-go/madcrow/internal/sealed"
)

// Recorder observes what happens. All methods are called from many goroutines,
// on the path of the calls: they must be fast, must not block and must not end
// their goroutine. A panic is logged and changes nothing. A context is that of the
// call, with its values; it may have ended. Embed [NopRecorder], so that a later
// method does not break the build. A Recorder that is also a [Tracer] makes spans.
type Recorder interface {
	// Operation is called once for each call of [Redis.Do] and its like, with
	// what became of it after all tries.
	Operation(context.Context, Operation)
	// Dial is called for each attempt to open a connection.
	Dial(context.Context, Dial)
	// StateChange is called when the state of the connection changes. It may
	// ask for the state, and must not call Close.
	StateChange(from, to State)
	// Event reports what a package did: a cache hit, a denied request, and so on.
	Event(context.Context, Event)
}

// Operation is one call as a [Recorder] sees it.
type Operation struct {
	// Name is the command ("GET"), or "PIPELINE", "TX", a script's name.
	Name string
	// Commands is how many commands were sent together.
	Commands int
	// Duration is from the call to its return, retries included.
	Duration time.Duration
	// Retries is how often it was tried again.
	Retries int
	// Kind is zero for success.
	Kind Kind
}

// Dial is one attempt to connect.
type Dial struct {
	Address  string
	Duration time.Duration
	Err      error
}

// Tracer makes spans. It is what a [Recorder] may also be: the packages then call
// Start around work of their own that takes time, such as a load of a cache or a
// delivery of a stream. The calls to Redis within are not started by it: each is an
// [Operation], with the context that Start returned.
type Tracer interface {
	// Start begins a span, and returns the context for the work. The function
	// that it returns is called once, when the work is done, with its error.
	Start(context.Context, Span) (context.Context, func(error))
}

// Span is one piece of work as a [Tracer] sees it.
type Span struct {
	// Op is the package and the work: "cache.load", "stream.deliver", …
	Op string
	// Name is the instance: see [Event.Name].
	Name string
}

// NopRecorder does nothing.
type NopRecorder struct{}

// Operation does nothing.
func (NopRecorder) Operation(context.Context, Operation) {}

// Dial does nothing.
func (NopRecorder) Dial(context.Context, Dial) {}

// StateChange does nothing.
func (NopRecorder) StateChange(State, State) {}

// Event does nothing.
func (NopRecorder) Event(context.Context, Event) {}

// Recorder returns the one of Config, and as a [Tracer] where it is one; nil where
// no one listens, so that nothing is built for it. Only the packages of this module
// can call it.
func (r *Redis) Recorder(sealed.Key) (Recorder, Tracer) {
	tracer, _ := r.rec.(Tracer)
	return r.rec, tracer
}
