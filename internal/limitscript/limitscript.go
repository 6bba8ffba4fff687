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
// part, what an algorithm is in begin.lua.
var (
	//go:embed lua/begin.lua
	begin string
	//go:embed lua/blocked.lua
	blocked string
	//go:embed lua/blocked_function.lua
	blockedFunction string
	//go:embed lua/functions.lua
	functions string
	//go:embed lua/log.lua
	log string
	//go:embed lua/set.lua
	set string
	//go:embed lua/window.lua
	window string
	//go:embed lua/gcra.lua
	gcra string
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

// one is a limit alone; its algorithm is still missing.
var one = put(endOne, "blocked", blocked)

// The scripts: one limit by each algorithm, several limits together, a block,
// leases, and logins.
var (
	Log    = script("limit_log", inPlace(log, one))
	Set    = script("limit_set", inPlace(set, one))
	Window = script("limit_window", inPlace(window, one))
	GCRA   = script("limit_gcra", inPlace(gcra, one))
	Group  = script("limit_group", function("log", log)+function("set", set)+
		function("window", window)+function("gcra", gcra)+put(blockedFunction, "blocked", blocked)+endGroup)
	Block = script("limit_block", endBlock)
	// Blocked says how long a block still lasts, by itself.
	Blocked = script("limit_blocked", put(blockedFunction, "blocked", blocked)+"return blocked(KEYS[1])\n")
	Lease   = script("limit_lease", put(blockedFunction, "blocked", blocked)+endLease)
	Login   = script("limit_login", function("set", set)+endLogin)
)

// sources is written before main alone.
var sources = map[*madcrow.Script]string{}

// inPlace puts the pieces of an algorithm into a text.
func inPlace(algorithm, text string) string {
	before, rest, _ := strings.Cut(algorithm, mark("judge"))
	judge, take, _ := strings.Cut(rest, mark("take"))
	return before + put(put(text, "judge", judge), "take", take)
}

// function makes judge_name and take_name of an algorithm.
func function(name, algorithm string) string {
	return inPlace(algorithm, strings.ReplaceAll(functions, "NAME", name))
}

func put(text, at, piece string) string {
	before, after, found := strings.Cut(text, mark(at))
	if !found || piece == "" {
		panic("limitscript: no place for a piece, or no piece: " + at)
	}
	return before + piece + after
}

// mark is the line where a piece begins, or is put.
func mark(piece string) string { return "--- " + piece + "\n" }

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
