package pubsub

import "time"

// SetSweep changes how often consumers that were left behind are looked for,
// and how long they must have been idle.
func SetSweep(every, idle time.Duration) (restore func()) {
	e, i := sweepEvery, consumerIdle
	sweepEvery, consumerIdle = every, idle
	return func() { sweepEvery, consumerIdle = e, i }
}

// SetHashing says whether seals can be checked.
func SetHashing(may bool) (restore func()) {
	before := mayHash
	mayHash = may
	return func() { mayHash = before }
}
