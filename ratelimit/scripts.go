package ratelimit

import (
	_ "embed"

	"github.com/madcrow-go/madcrow"
)

// Scripts are put together from parts, so that a limit alone and one of
// several run the same lines.
var (
	//go:embed lua/begin.lua
	luaBegin string
	//go:embed lua/log.lua
	luaLog string
	//go:embed lua/set.lua
	luaSet string
	//go:embed lua/window.lua
	luaWindow string
	//go:embed lua/gcra.lua
	luaGCRA string
	//go:embed lua/one.lua
	luaOne string
	//go:embed lua/group.lua
	luaGroup string
	//go:embed lua/block.lua
	luaBlock string
	//go:embed lua/lease.lua
	luaLease string
)

// one is the script of a limit alone.
func one(name, judge string) *madcrow.Script {
	return madcrow.NewScript("limit_"+name, luaBegin+judge+"local judge = judge_"+name+"\n"+luaOne)
}

var (
	scriptLog    = one("log", luaLog)
	scriptSet    = one("set", luaSet)
	scriptWindow = one("window", luaWindow)
	scriptGCRA   = one("gcra", luaGCRA)
	scriptGroup  = madcrow.NewScript("limit_group", luaBegin+luaLog+luaSet+luaWindow+luaGCRA+luaGroup)
	scriptBlock  = madcrow.NewScript("limit_block", luaBegin+luaBlock)
	scriptLease  = madcrow.NewScript("limit_lease", luaBegin+luaLease)
)
