package stream

import "time"

// WithSweep changes how often consumers of crashed processes are removed, and how
// long they must have been idle.
func WithSweep(o WorkOptions, every, idle time.Duration) WorkOptions {
	o.sweepEvery, o.consumerIdle = every, idle
	return o
}
