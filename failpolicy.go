package madcrow

import "fmt"

// FailPolicy says what a limit, a semaphore or the reading of a session does
// while Redis is unavailable: down, too slow, read-only, or refusing the command.
// The zero value is refused where a policy is needed: it must be chosen. Policies
// are compared with ==.
type FailPolicy struct {
	mode      uint8
	processes int
}

const (
	_ uint8 = iota
	failOpen
	failClosed
	failLocal
	failStale
)

// The policies that are the same everywhere. Each package says which ones it
// takes, and refuses the others by name.
var (
	// FailOpen goes on without Redis: a limit admits, a session is read as that of
	// a visitor. The decision says that it is degraded, and why.
	FailOpen = FailPolicy{mode: failOpen}
	// FailClosed returns the error.
	FailClosed = FailPolicy{mode: failClosed}
	// FailStale serves what this process read last, for a bounded time, and
	// returns the error where it has nothing.
	FailStale = FailPolicy{mode: failStale}
)

// FailLocal counts in this process alone, with its share of the limit: the limit
// divided by the number of processes, at least 1. Each process more or less
// changes the sum by a share.
func FailLocal(processes int) FailPolicy {
	return FailPolicy{mode: failLocal, processes: processes}
}

// Processes is the number that [FailLocal] was given, and 0 for other policies.
func (p FailPolicy) Processes() int { return p.processes }

// IsLocal is true for [FailLocal].
func (p FailPolicy) IsLocal() bool { return p.mode == failLocal }

// String returns "FailOpen", "FailClosed", "FailStale", "FailLocal(3)" or "none".
func (p FailPolicy) String() string {
	switch p.mode {
	case failOpen:
		return "FailOpen"
	case failClosed:
		return "FailClosed"
	case failStale:
		return "FailStale"
	case failLocal:
		return fmt.Sprintf("FailLocal(%d)", p.processes)
	}
	return "none"
}
