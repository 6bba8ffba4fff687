//go:build !race

package testkit

// Race says that the race detector runs. A sync.Pool forgets some of its values
// on purpose then.
const Race = false
