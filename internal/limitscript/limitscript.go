// Package limitscript holds the Lua scripts of the limits, for all rooms that
// decide one: they run the same lines.
package limitscript

import (
	_ "embed"
	"strings"

	"github.com/madcrow-go/madcrow"
)

// Scripts are put together from parts, so that a limit alone and one of
// several run the same lines. What each takes and returns is said in its last
// part.
var (
	//go:embed lua/begin.lua
	begin string
	//go:embed lua/log.lua
	judgeLog string
	//go:embed lua/set.lua
	judgeSet string
	//go:embed lua/window.lua
	judgeWindow string
	//go:embed lua/gcra.lua
	judgeGCRA string
	//go:embed lua/one.lua
	endOne string
	//go:embed lua/group.lua
	endGroup string
	//go:embed lua/block.lua
	endBlock string
	//go:embed lua/lease.lua
	endLease string
	//go:embed lua/login.lua
	endLogin string
)

// The scripts: one limit by each algorithm, several limits together, a block,
// leases, and logins.
var (
	Log    = one("log", judgeLog)
	Set    = one("set", judgeSet)
	Window = one("window", judgeWindow)
	GCRA   = one("gcra", judgeGCRA)
	Group  = script("limit_group", judgeLog+judgeSet+judgeWindow+judgeGCRA+endGroup)
	Block  = script("limit_block", endBlock)
	Lease  = script("limit_lease", endLease)
	Login  = script("limit_login", judgeSet+endLogin)
)

// sources is written before main alone.
var sources = map[*madcrow.Script]string{}

// one is the script of a limit alone.
func one(name, judge string) *madcrow.Script {
	return script("limit_"+name, judge+"local judge = judge_"+name+"\n"+endOne)
}

func script(name, rest string) *madcrow.Script {
	source := begin + rest
	s := madcrow.NewScript(name, source)
	sources[s] = source
	return s
}

// Source returns the text of one of the scripts above.
func Source(s *madcrow.Script) string { return sources[s] }

// WithClock returns a script for tests: it takes the time from two further
// arguments at the end, seconds and microseconds, and not from the server. Only
// that one expression differs. Keys still expire by the server's clock.
func WithClock(s *madcrow.Script) *madcrow.Script {
	const clock = "redis.call('TIME')"
	source := Source(s)
	if strings.Count(source, clock) != 1 {
		panic("limitscript: " + s.Name() + " must read the clock in exactly one place")
	}
	return madcrow.NewScript(s.Name()+"_test", strings.Replace(source, clock, "{ARGV[#ARGV - 1], ARGV[#ARGV]}", 1))
}
