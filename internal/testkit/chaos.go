//go:build chaos

package testkit

// Chaos says whether this is the chaos tier.
const Chaos = true
