//go:build !soak

package testkit

// Soak says whether this is the soak tier.
const Soak = false
