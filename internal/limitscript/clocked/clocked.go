// Package clocked makes the scripts of limits take the time from their caller:
// for tests that compare them with a model.
package clocked

import (
	"strings"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/limitscript"
)

// Script returns a script that takes the time from two further arguments at the
// end, seconds and microseconds, and not from the server. Only that one
// expression differs. Keys still expire by the server's clock.
func Script(s *madcrow.Script) *madcrow.Script {
	const clock = "redis.call('TIME')"
	source := limitscript.Source(s)
	if strings.Count(source, clock) != 1 {
		panic("clocked: " + s.Name() + " must read the clock in exactly one place")
	}
	return madcrow.NewScript(s.Name()+"_clocked", strings.Replace(source, clock, "{ARGV[#ARGV - 1], ARGV[#ARGV]}", 1))
}
