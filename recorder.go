package madcrow

import "time"

// Recorder observes what happens. All methods are called from many goroutines,
// on the path of the calls: they must be fast, must not block and must not end
// their goroutine. A panic is logged and changes nothing. Embed [NopRecorder], so
// that a later method does not break the build.
type Recorder interface {
	// Operation is called once for each call of [Redis.Do] and its like, with
	// what became of it after all tries.
	Operation(Operation)
	// Dial is called for each attempt to open a connection.
	Dial(Dial)
	// StateChange is called when the state of the connection changes. It may
	// ask for the state, and must not call Close.
	StateChange(from, to State)
	// Event counts what a package reports: pkg "cache", name "hit", and so on.
	Event(pkg, name string, n int)
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

// NopRecorder does nothing.
type NopRecorder struct{}

// Operation does nothing.
func (NopRecorder) Operation(Operation) {}

// Dial does nothing.
func (NopRecorder) Dial(Dial) {}

// StateChange does nothing.
func (NopRecorder) StateChange(State, State) {}

// Event does nothing.
func (NopRecorder) Event(string, string, int) {}
