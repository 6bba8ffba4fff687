// Package limitscript holds the Lua scripts of limits. All packages that decide
// a limit run the same lines.
package limitscript

import (
	_ "embed"
	"strings"

	"github.com/madcrow-go/madcrow"
)

// Scripts are assembled from parts, so that a single limit and a group run the
// same lines. The last part of a script documents its arguments and reply,
// begin.lua the parts of an algorithm.
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
	//go:embed lua/login_blocked.lua
	endLoginBlocked string
)

// one is the script of a single limit, without its algorithm.
var one = insert(endOne, "blocked", blocked)

// The scripts: a single limit by each algorithm, a group, a block, leases, and
// logins.
var (
	Log    = script("limit_log", inPlace(log, one))
	Set    = script("limit_set", inPlace(set, one))
	Window = script("limit_window", inPlace(window, one))
	GCRA   = script("limit_gcra", inPlace(gcra, one))
	Group  = script("limit_group", function("log", log)+function("set", set)+
		function("window", window)+function("gcra", gcra)+insert(blockedFunction, "blocked", blocked)+endGroup)
	Block = script("limit_block", endBlock)
	// Blocked returns how long a block still lasts.
	Blocked = script("limit_blocked", insert(blockedFunction, "blocked", blocked)+"return blocked(KEYS[1])\n")
	Lease   = script("limit_lease", insert(blockedFunction, "blocked", blocked)+endLease)
	Login   = script("limit_login", function("set", set)+endLogin)
	// LoginBlocked returns how long a block of logins still lasts.
	LoginBlocked = script("limit_login_blocked", endLoginBlocked)
)

// sources has the text of each script. It is written before main only.
var sources = map[*madcrow.Script]string{}

// inPlace inserts the two parts of an algorithm into a text.
func inPlace(algorithm, text string) string {
	before, rest, _ := strings.Cut(algorithm, mark("decide"))
	decide, take, _ := strings.Cut(rest, mark("take"))
	return before + insert(insert(text, "decide", decide), "take", take)
}

// function makes decide_name and take_name of an algorithm.
func function(name, algorithm string) string {
	return inPlace(algorithm, strings.ReplaceAll(functions, "NAME", name))
}

func insert(text, at, piece string) string {
	before, after, found := strings.Cut(text, mark(at))
	if !found || piece == "" {
		panic("limitscript: no mark for a part, or an empty part: " + at)
	}
	return before + piece + after
}

// mark is the line where a part begins, or is inserted.
func mark(piece string) string { return "--- " + piece + "\n" }

func script(name, rest string) *madcrow.Script {
	source := begin + rest
	s := madcrow.NewScript(name, source)
	sources[s] = source
	return s
}

// Source returns the text of one of the scripts above.
func Source(s *madcrow.Script) string { return sources[s] }
