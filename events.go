package madcrow

import "time"

// Event is one thing that a package reports to a [Recorder].
type Event struct {
	// Type says what happened, and names the package.
	Type EventType
	// Name is the instance: the name of the cache, of the limiter or of the session
	// manager, the topic or the stream.
	Name string
	// N is how many happened together, at least 1.
	N int
	// Duration is how long it took, where it is something that takes time: a load,
	// a delivery. Otherwise 0.
	Duration time.Duration
	// Reason is a word of a short, fixed list where the table of events in
	// docs/events.md names one, such as why a request has no session; otherwise
	// empty. It may be a label of a metric.
	Reason string
	// Err is the cause of a failure, otherwise nil.
	Err error
}

// EventType is the type of an [Event]. 0 is none.
type EventType uint8
