// Package sealed closes exported functions to programs: what takes a [Key] can be
// called by the packages of this module alone, for no one else can make one.
package sealed

// Key opens a sealed function.
type Key struct{}
